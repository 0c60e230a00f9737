//! Where everything of one stack lies: its folder, its addresses, and the arguments that each part is started with.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Config, Error};
use crate::part::Part;

/// The topology that the suite needs: compiled in, so that the binary alone is enough.
const TOPOLOGY: &str = include_str!("../../../topology.json");

/// The folder and the addresses of one stack.
#[derive(Debug)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    listen: [SocketAddr; Part::ALL.len()],
}

impl Layout {
    /// Creates the folders of the stack and writes the topology into them.
    pub(crate) fn create(config: &Config) -> Result<Self, Error> {
        let prepare = || -> io::Result<PathBuf> {
            fs::create_dir_all(config.data_dir.join("logs"))?;
            // Parts get absolute paths: what they are told stays right whatever folder they work in.
            let data_dir = config.data_dir.canonicalize()?;
            fs::write(data_dir.join("topology.json"), TOPOLOGY)?;
            Ok(data_dir)
        };
        let data_dir = prepare().map_err(|source| Error::DataDir { path: config.data_dir.clone(), source })?;
        Ok(Self { data_dir, listen: Part::ALL.map(|part| config.listen(part)) })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn listen(&self, part: Part) -> SocketAddr {
        self.listen[part as usize]
    }

    /// Where the others reach a part: a wildcard address is a fine one to listen on, but none to connect to.
    pub(crate) fn reach(&self, part: Part) -> SocketAddr {
        let mut address = self.listen(part);
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    pub(crate) fn log_file(&self, part: Part) -> PathBuf {
        self.data_dir.join("logs").join(format!("{part}.log"))
    }

    /// The arguments that make this executable run as the part.
    pub(crate) fn arguments(&self, part: Part) -> Vec<OsString> {
        let url = |part| OsString::from(format!("http://{}", self.reach(part)));
        let database = |name| ("--database-url", self.database_url(name));
        let broker = ("--broker", url(Part::Broker));
        let (command, flags): (&[&str], Vec<(&str, OsString)>) = match part {
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
            Part::NotificationService => (&["notification-service"], vec![database("notification"), broker]),
        };
        let listen = [OsString::from("--listen"), self.listen(part).to_string().into()];
        [OsString::from("--exit-with-parent")]
            .into_iter()
            .chain(command.iter().map(OsString::from))
            .chain(listen)
            .chain(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]))
            .collect()
    }

    /// Tries whether a part's address is free, so that a taken one is named before anything starts.
    pub(crate) fn check_address(&self, part: Part) -> Result<(), Error> {
        let address = self.listen(part);
        TcpListener::bind(address).map(drop).map_err(|source| Error::Address {
            part,
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
