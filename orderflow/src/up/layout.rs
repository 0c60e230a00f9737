//! Where everything of one stack lies: its folder, its addresses, and the arguments that each part is started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Config, Error};
use crate::part::{Instance, Part};

/// The topology that the suite needs: compiled in, so that the binary alone is enough.
const TOPOLOGY: &str = include_str!("../../../topology.json");

/// How far apart the instances of a part listen: payment-service-2 listens ten ports above payment-service.
const PORTS_APART: u16 = 10;

/// How far above a part's port its page for Prometheus is.
const METRICS_ABOVE: u16 = 1_000;

/// The folder and the addresses of one stack.
#[derive(Debug)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    listen: BTreeMap<Instance, SocketAddr>,
    /// Ways from one part to another that do not lead there directly.
    detours: BTreeMap<(Part, Part), SocketAddr>,
    metrics: bool,
}

impl Layout {
    /// Creates the folders of the stack and writes the topology into them.
    pub(crate) fn create(config: &Config) -> Result<Self, Error> {
        let prepare = || -> io::Result<PathBuf> {
            fs::create_dir_all(config.data_dir.join("logs"))?;
            fs::create_dir_all(config.data_dir.join("mail"))?;
            // Parts get absolute paths: what they are told stays right whatever folder they work in.
            let data_dir = config.data_dir.canonicalize()?;
            fs::write(data_dir.join("topology.json"), TOPOLOGY)?;
            Ok(data_dir)
        };
        let data_dir = prepare().map_err(|source| Error::DataDir { path: config.data_dir.clone(), source })?;
        Ok(Self { data_dir, ..Self::plan(config)? })
    }

    /// What the configuration asks for. Nothing is created.
    pub(crate) fn plan(config: &Config) -> Result<Self, Error> {
        let mut listen = BTreeMap::new();
        for part in Part::ALL {
            listen.insert(part.into(), config.listen(part));
            for number in 2..=config.instances(part) {
                let mut address = config.listen(part);
                let port = address.port().checked_add(PORTS_APART * (number - 1));
                address.set_port(port.ok_or(Error::NoPort { part: Instance { part, number } })?);
                listen.insert(Instance { part, number }, address);
            }
        }
        let data_dir = config.data_dir.clone();
        Ok(Self { data_dir, listen, detours: BTreeMap::new(), metrics: config.metrics })
    }

    /// Lets every instance of `from` call `to` at this address, instead of where it listens.
    pub(crate) fn detour(&mut self, from: Part, to: Part, through: SocketAddr) {
        self.detours.insert((from, to), through);
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Every process of the stack, in the order in which they start.
    pub(crate) fn instances(&self) -> impl Iterator<Item = Instance> {
        self.listen.keys().copied()
    }

    pub(crate) fn has(&self, instance: Instance) -> bool {
        self.listen.contains_key(&instance)
    }

    pub(crate) fn listen(&self, instance: Instance) -> SocketAddr {
        self.listen[&instance]
    }

    /// Where the others reach a part: a wildcard address is a fine one to listen on, but none to connect to.
    pub(crate) fn reach(&self, instance: impl Into<Instance>) -> SocketAddr {
        let mut address = self.listen(instance.into());
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    pub(crate) fn log_file(&self, instance: Instance) -> PathBuf {
        self.data_dir.join("logs").join(format!("{instance}.log"))
    }

    /// The arguments that make this executable run as the instance. Instances of a part share its database.
    pub(crate) fn arguments(&self, instance: Instance) -> Vec<OsString> {
        let way = |part: Part| self.detours.get(&(instance.part, part)).copied().unwrap_or_else(|| self.reach(part));
        let url = |part: Part| OsString::from(format!("http://{}", way(part)));
        let database = |name| ("--database-url", self.database_url(name));
        let broker = ("--broker", url(Part::Broker));
        let (command, flags): (&[&str], Vec<(&str, OsString)>) = match instance.part {
            Part::Broker => (
                &["broker", "serve"],
                vec![
                    ("--data-dir", self.data_dir.join("broker").into()),
                    ("--topology", self.data_dir.join("topology.json").into()),
                ],
            ),
            Part::Acquirer => (&["acquirer"], vec![database("acquirer")]),
            Part::OrderService => {
                let payment = ("--payment-url", url(Part::PaymentService));
                let notification = ("--notification-url", url(Part::NotificationService));
                (&["order-service"], vec![database("order"), broker, payment, notification])
            }
            Part::PaymentService => {
                (&["payment-service"], vec![database("payment"), broker, ("--acquirer", url(Part::Acquirer))])
            }
            Part::NotificationService => {
                let mut flags = vec![database("notification"), broker];
                // A mail server's URL may hold a password: it stays in the environment, which the child inherits.
                if std::env::var_os("NOTIFICATION_EMAIL_URL").is_none() {
                    flags.push(("--email-url", format!("file://{}", self.mail_dir().display()).into()));
                }
                (&["notification-service"], flags)
            }
            Part::InvoiceWorker => (&["invoice-worker"], vec![broker]),
        };
        let listen = [OsString::from("--listen"), self.listen(instance).to_string().into()];
        let page =
            self.metrics_page(instance).map(|page| [OsString::from("--metrics-listen"), page.to_string().into()]);
        [OsString::from("--exit-with-parent")]
            .into_iter()
            .chain(command.iter().map(OsString::from))
            .chain(listen)
            .chain(page.into_iter().flatten())
            .chain(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]))
            .collect()
    }

    /// Where an instance shows its figures, if it is to show them and there is a port for it.
    pub(crate) fn metrics_page(&self, instance: Instance) -> Option<SocketAddr> {
        metrics_address(self.listen(instance)).filter(|_| self.metrics)
    }

    /// Where e-mail goes unless the environment names a mail server.
    pub(crate) fn mail_dir(&self) -> PathBuf {
        self.data_dir.join("mail")
    }

    /// Tries whether a part's address is free, so that a taken one is named before anything starts.
    pub(crate) fn check_address(&self, instance: Instance) -> Result<(), Error> {
        let (part, address) = (instance.part, self.listen(instance));
        TcpListener::bind(address).map(drop).map_err(|source| Error::Address {
            part: instance,
            address,
            flag: format!("--{}", part.listen_variable().to_lowercase().replace('_', "-")),
            variable: part.listen_variable(),
            source,
        })
    }

    fn database_url(&self, name: &str) -> OsString {
        let path = self.data_dir.join(format!("{name}.db"));
        // In a URL these three would end the path or start an escape.
        let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        format!("sqlite://{escaped}").into()
    }
}

/// Where the page of figures of whoever listens at an address is, if it has one.
pub(crate) fn metrics_address(address: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.ip(), address.port().checked_add(METRICS_ABOVE)?))
}
