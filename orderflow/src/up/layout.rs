//! Where everything of one stack lies: its folder, its addresses, and the arguments that each part is started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::foundation::{Foundation, NATS_SERVERS, route};
use super::{Config, Error, instances};
use crate::audit::Addresses;
use crate::part::{Instance, Part};
use crate::proxy::Proxy;

/// The topology that the suite needs: compiled in, so that the binary alone is enough.
const TOPOLOGY: &str = include_str!("../../../topology.json");

/// How far apart the instances of a part listen: payment-service-2 listens ten ports above payment-service. Where a part has
/// a door, that is its first port.
const PORTS_APART: u16 = 10;

/// How far above a part's port its page for Prometheus is.
const METRICS_ABOVE: u16 = 1_000;

/// A flag with its value, if it is to be said.
type Flag = Option<(&'static str, OsString)>;

/// The folder and the addresses of one stack.
#[derive(Debug)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    listen: BTreeMap<Instance, SocketAddr>,
    /// One address for all instances of a part, in a stack past one machine.
    doors: BTreeMap<Part, SocketAddr>,
    foundation: Option<Foundation>,
    /// Ways from one part to another that do not lead there directly.
    detours: BTreeMap<(Part, Part), SocketAddr>,
    metrics: bool,
}

impl Layout {
    /// Creates the folders of the stack and writes the topology into them.
    pub(crate) fn create(config: &Config) -> Result<Self, Error> {
        let is_scaled = config.scale.scale;
        let prepare = || -> io::Result<PathBuf> {
            fs::create_dir_all(config.data_dir.join("logs"))?;
            fs::create_dir_all(config.data_dir.join("mail"))?;
            // Parts get absolute paths: what they are told stays right whatever folder they work in.
            let data_dir = config.data_dir.canonicalize()?;
            fs::write(data_dir.join("topology.json"), TOPOLOGY)?;
            Ok(data_dir)
        };
        Self::check_kind(config)?;
        let data_dir = prepare().map_err(|source| Error::DataDir { path: config.data_dir.clone(), source })?;
        let foundation = is_scaled.then(|| Foundation::create(&config.scale, &data_dir)).transpose()?;
        Ok(Self { data_dir, foundation, ..Self::plan(config)? })
    }

    /// Refuses a folder with the data of a stack on one machine for one that goes past it, and the other way round: half of
    /// the books would be missing.
    pub(crate) fn check_kind(config: &Config) -> Result<(), Error> {
        let is_scaled = config.scale.scale;
        let other = if is_scaled { "broker" } else { "nats" };
        if config.data_dir.join(other).exists() {
            return Err(Error::OtherStack { path: config.data_dir.clone(), is_scaled });
        }
        Ok(())
    }

    /// What the configuration asks for. Nothing is created.
    pub(crate) fn plan(config: &Config) -> Result<Self, Error> {
        let (mut listen, mut doors) = (BTreeMap::new(), BTreeMap::new());
        for instance in instances(config.scale.scale, &config.instances) {
            let Instance { part, number } = instance;
            // The ledger of the acquirer is in a file, so that there is one of it; NATS and PostgreSQL need no door of ours.
            let has_door = config.scale.scale && !matches!(part, Part::Acquirer | Part::Nats | Part::Postgres);
            if has_door {
                doors.insert(part, config.listen(part));
            }
            let mut address = config.listen(part);
            let port = address.port().checked_add(PORTS_APART * (number - 1 + u16::from(has_door)));
            address.set_port(port.filter(|port| *port < u16::MAX).ok_or(Error::NoPort { part: instance })?);
            listen.insert(instance, address);
        }
        let data_dir = config.data_dir.clone();
        Ok(Self { data_dir, listen, doors, foundation: None, detours: BTreeMap::new(), metrics: config.metrics })
    }

    /// Opens the one address of each part that has several instances behind it.
    pub(crate) async fn open_doors(&self) -> Result<Vec<Proxy>, Error> {
        let mut open = Vec::new();
        for (&part, &address) in &self.doors {
            let taken = |source| address_error(part.into(), address, source);
            open.push(Proxy::listen(address, self.behind(part)).await.map_err(taken)?);
        }
        Ok(open)
    }

    /// Makes what has to be on the servers below before anybody else starts.
    pub(super) async fn lay_foundation(&self) -> Result<(), Error> {
        match &self.foundation {
            Some(foundation) => Ok(foundation.make_databases(self.call(Part::Postgres)).await.map_err(Box::new)?),
            None => Ok(()),
        }
    }

    /// Whether it is that of a stack past one machine.
    pub(crate) fn is_scaled(&self) -> bool {
        !self.doors.is_empty()
    }

    /// One address for all instances of a part, where there is one.
    pub(crate) fn doors(&self) -> &BTreeMap<Part, SocketAddr> {
        &self.doors
    }

    /// Every instance of a part.
    pub(crate) fn behind(&self, part: Part) -> Vec<SocketAddr> {
        self.instances().filter(|instance| instance.part == part).map(|instance| self.reach(instance)).collect()
    }

    /// Where a part is called: at its door, or where its first instance listens.
    pub(crate) fn call(&self, part: Part) -> SocketAddr {
        self.doors.get(&part).map_or_else(|| self.reach(part), |door| reachable(*door))
    }

    /// Where everybody is called who keeps books.
    pub(crate) fn addresses(&self) -> Addresses {
        let url = |part| format!("http://{}", self.call(part));
        Addresses {
            broker: url(Part::Broker),
            acquirer: url(Part::Acquirer),
            order_service: url(Part::OrderService),
            payment_service: url(Part::PaymentService),
            notification_service: url(Part::NotificationService),
        }
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

    /// Where the others reach an instance.
    pub(crate) fn reach(&self, instance: impl Into<Instance>) -> SocketAddr {
        reachable(self.listen(instance.into()))
    }

    pub(crate) fn log_file(&self, instance: Instance) -> PathBuf {
        self.data_dir.join("logs").join(format!("{instance}.log"))
    }

    /// The call that runs an instance: of this executable, or of one that others wrote.
    pub(crate) fn command(&self, instance: Instance, executable: &Path) -> io::Result<Command> {
        let foundation = || self.foundation.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        match instance.part {
            Part::Nats => {
                let all: Vec<_> = self.listen.iter().filter(|(other, _)| other.part == Part::Nats).collect();
                let all: Vec<_> = all.into_iter().map(|(other, address)| (*other, *address)).collect();
                foundation()?.nats(instance, &all)
            }
            Part::Postgres => Ok(foundation()?.postgres(self.listen(instance))),
            _ => {
                let mut command = Command::new(executable);
                command.args(self.arguments(instance));
                let server = |foundation: &Foundation| {
                    foundation.database(instance.part, self.way(instance.part, Part::Postgres))
                };
                command.envs(self.foundation.as_ref().and_then(server));
                Ok(command)
            }
        }
    }

    /// Where the instances of a part call another part.
    fn way(&self, from: Part, to: Part) -> SocketAddr {
        self.detours.get(&(from, to)).copied().unwrap_or_else(|| self.call(to))
    }

    /// The arguments that make this executable run as the instance. Instances of a part share its database.
    fn arguments(&self, instance: Instance) -> Vec<OsString> {
        let url = |part: Part| OsString::from(format!("http://{}", self.way(instance.part, part)));
        // Where there are servers below, the environment has the URL.
        let database = |name| self.foundation.is_none().then(|| ("--database-url", self.database_url(name)));
        let broker = Some(("--broker", url(Part::Broker)));
        let (command, flags): (&[&str], Vec<Flag>) = match instance.part {
            Part::Nats | Part::Postgres => (&[], Vec::new()),
            Part::Broker => (&["broker", "serve"], self.broker_flags(instance)),
            Part::Acquirer => (&["acquirer"], vec![Some(("--database-url", self.database_url("acquirer")))]),
            Part::OrderService => {
                let payment = Some(("--payment-url", url(Part::PaymentService)));
                let notification = Some(("--notification-url", url(Part::NotificationService)));
                (&["order-service"], vec![database("order"), broker, payment, notification])
            }
            Part::PaymentService => {
                let acquirer = Some(("--acquirer", url(Part::Acquirer)));
                (&["payment-service"], vec![database("payment"), broker, acquirer])
            }
            Part::NotificationService => {
                let mail = || ("--email-url", format!("file://{}", self.mail_dir().display()).into());
                // A mail server's URL may hold a password: it stays in the environment, which the child inherits.
                let mail = std::env::var_os("NOTIFICATION_EMAIL_URL").is_none().then(mail);
                (&["notification-service"], vec![database("notification"), broker, mail])
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
            .chain(flags.into_iter().flatten().flat_map(|(flag, value)| [flag.into(), value]))
            .collect()
    }

    fn broker_flags(&self, instance: Instance) -> Vec<Flag> {
        let topology = Some(("--topology", self.data_dir.join("topology.json").into()));
        if self.foundation.is_none() {
            return vec![Some(("--data-dir", self.data_dir.join("broker").into())), topology];
        }
        let copy = self.data_dir.join("fronts").join(instance.number.to_string());
        let engine = Some(("--engine", self.engine().into()));
        let replicas = Some(("--engine-replicas", NATS_SERVERS.to_string().into()));
        let own = Some(("--advertise", self.reach(instance).to_string().into()));
        vec![Some(("--data-dir", copy.into())), topology, engine, replicas, own]
    }

    /// The servers that keep the journal, as `--engine` takes them.
    pub(crate) fn engine(&self) -> String {
        let servers: Vec<String> = self.behind(Part::Nats).iter().map(SocketAddr::to_string).collect();
        format!("nats://{}", servers.join(","))
    }

    /// Where an instance shows its figures, if it is to show them and there is a port for it.
    pub(crate) fn metrics_page(&self, instance: Instance) -> Option<SocketAddr> {
        let is_ours = !matches!(instance.part, Part::Nats | Part::Postgres);
        metrics_address(self.listen(instance)).filter(|_| self.metrics && is_ours)
    }

    /// Where e-mail goes unless the environment names a mail server.
    pub(crate) fn mail_dir(&self) -> PathBuf {
        self.data_dir.join("mail")
    }

    /// Tries whether a part's address is free, so that a taken one is named before anything starts.
    pub(crate) fn check_address(&self, instance: Instance) -> Result<(), Error> {
        for address in self.addresses_of(instance) {
            TcpListener::bind(address).map(drop).map_err(|source| address_error(instance, address, source))?;
        }
        Ok(())
    }

    /// Every address on which an instance listens, those for figures apart.
    pub(crate) fn addresses_of(&self, instance: Instance) -> Vec<SocketAddr> {
        let own = self.listen(instance);
        if instance.part == Part::Nats { vec![own, route(own)] } else { vec![own] }
    }

    fn database_url(&self, name: &str) -> OsString {
        let path = self.data_dir.join(format!("{name}.db"));
        // In a URL these three would end the path or start an escape.
        let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        format!("sqlite://{escaped}").into()
    }
}

fn address_error(part: Instance, address: SocketAddr, source: io::Error) -> Error {
    let variable = part.part.listen_variable();
    let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
    Error::Address { part, address, flag, variable, source }
}

/// A wildcard address is a fine one to listen on, but none to connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Where the page of figures of whoever listens at an address is, if it has one.
pub(crate) fn metrics_address(address: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.ip(), address.port().checked_add(METRICS_ABOVE)?))
}
