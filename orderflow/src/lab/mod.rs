//! A whole stack in a folder and on ports of its own, to be tortured: parts are killed, frozen and started again, and the
//! lines between them are cut.

mod ports;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use broker::{EngineAddress, EngineName, JournalState};
use rustix::process::Signal;

use crate::audit::Addresses;
use crate::part::{Instance, Part};
pub use crate::proxy::{Mode, Proxy};
use crate::up::layout::Layout;
use crate::up::{self, Error, Launch, Program, Scale, Stack, Voice};

/// How many instances of a part fit into a lab's ports.
pub const LAB_INSTANCES_MAX: u16 = 5;

/// What kind of lab.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where everything lies; a new temporary folder if it isn't said.
    pub data_dir: Option<PathBuf>,
    /// How many of a part, at most [`LAB_INSTANCES_MAX`]; one if it isn't said.
    pub instances: Vec<(Part, u16)>,
    /// Whether it goes past one machine.
    pub scale: Scale,
    /// Whether the lines between parts go through proxies, so that they can be cut.
    pub proxied: bool,
    /// What runs as a part; this program itself if it isn't said.
    pub executable: Option<PathBuf>,
}

/// A line from a client to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// Customers place orders on it.
    Entrance,
    /// From all instances of a part to another part.
    Between(Part, Part),
}

/// A running stack. It is ended with its drop at the latest, and its folder removed unless it is kept.
pub struct Lab {
    stack: Arc<Stack>,
    proxies: BTreeMap<Line, Proxy>,
    /// Keeps other labs off these ports.
    _ports: ports::Block,
    temporary: Temporary,
}

/// A folder that goes with the lab, unless it is kept.
struct Temporary(Mutex<Option<PathBuf>>);

impl Line {
    /// Every line that each lab can cut.
    pub const ALL: [Self; 8] = [
        Self::Entrance,
        Self::Between(Part::OrderService, Part::Broker),
        Self::Between(Part::OrderService, Part::PaymentService),
        Self::Between(Part::OrderService, Part::NotificationService),
        Self::Between(Part::PaymentService, Part::Broker),
        Self::Between(Part::PaymentService, Part::Acquirer),
        Self::Between(Part::NotificationService, Part::Broker),
        Self::Between(Part::InvoiceWorker, Part::Broker),
    ];

    /// The lines more of a lab past one machine. NATS clients find their servers themselves, past any proxy.
    pub const SCALED: [Self; 3] = [
        Self::Between(Part::OrderService, Part::Postgres),
        Self::Between(Part::PaymentService, Part::Postgres),
        Self::Between(Part::NotificationService, Part::Postgres),
    ];

    fn server(self) -> Part {
        match self {
            Self::Entrance => Part::OrderService,
            Self::Between(_, server) => server,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entrance => f.pad("customers to order-service"),
            Self::Between(client, server) => f.pad(&format!("{client} to {server}")),
        }
    }
}

impl Lab {
    /// Starts a stack and waits until all of it is ready.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (data_dir, temporary) = match options.data_dir {
            Some(data_dir) => (data_dir, None),
            None => {
                let folder = std::env::temp_dir().join(format!("orderflow-lab-{}", uuid::Uuid::now_v7().simple()));
                (folder.clone(), Some(folder))
            }
        };
        let temporary = Temporary(Mutex::new(temporary));
        let ports = ports::Block::claim().map_err(Error::io("there are no free ports for a lab"))?;
        let is_scaled = options.scale.scale;
        let config = ports.config(data_dir, options.instances, options.scale);
        // Making the files of a PostgreSQL server takes seconds.
        let layout = tokio::task::spawn_blocking(move || Layout::create(&config)).await;
        let mut layout = layout.map_err(|error| Error::io("the lab can't be laid out")(io::Error::other(error)))??;
        let mut proxies = BTreeMap::new();
        if options.proxied {
            let more = if is_scaled { &Line::SCALED[..] } else { &[] };
            for &line in Line::ALL.iter().chain(more) {
                let proxy = Proxy::start(layout.behind(line.server())).await;
                let proxy = proxy.map_err(Error::io("a proxy can't be started"))?;
                if let Line::Between(client, server) = line {
                    layout.detour(client, server, proxy.address());
                }
                proxies.insert(line, proxy);
            }
        }
        let executable = match options.executable {
            Some(executable) => executable,
            None => std::env::current_exe().map_err(Error::io("the program's own file can't be found"))?,
        };
        let program = Program { executable: "orderflow".to_owned(), flags: String::new() };
        let doors = layout.open_doors().await?;
        let stack = Stack::new(layout, doors, program, Launch { executable, voice: Voice::Quiet }, None);
        let lab = Self { stack, proxies, _ports: ports, temporary };
        // The error names a log: it stays.
        up::start_all(&lab.stack).await.inspect_err(|_| lab.keep())?;
        Ok(lab)
    }

    /// Every process of the stack, in the order in which they start.
    pub fn instances(&self) -> Vec<Instance> {
        self.stack.instances().collect()
    }

    /// Where everybody is called, past all proxies that can be cut.
    pub fn addresses(&self) -> Addresses {
        self.stack.layout().addresses()
    }

    /// Where an instance listens.
    pub fn address(&self, instance: impl Into<Instance>) -> SocketAddr {
        self.stack.layout().reach(instance)
    }

    /// Where customers call order-service: through its proxy, if there is one.
    pub fn entrance(&self) -> String {
        let proxy = self.proxies.get(&Line::Entrance).map(Proxy::address);
        format!("http://{}", proxy.unwrap_or_else(|| self.stack.layout().call(Part::OrderService)))
    }

    /// The proxy on a line, if the lab has proxies.
    pub fn line(&self, line: Line) -> Option<&Proxy> {
        self.proxies.get(&line)
    }

    /// The folder with all data and logs.
    pub fn folder(&self) -> &Path {
        self.stack.layout().data_dir()
    }

    /// Where an instance writes its log.
    pub fn log_file(&self, instance: impl Into<Instance>) -> PathBuf {
        self.stack.layout().log_file(instance.into())
    }

    /// The process of an instance, while it runs.
    pub fn process(&self, instance: impl Into<Instance>) -> Option<u32> {
        self.stack.running(instance.into()).map(|running| running.pid)
    }

    /// Ends an instance at once.
    pub async fn kill(&self, instance: impl Into<Instance>) -> Result<(), Error> {
        self.stack.end(instance.into(), Signal::KILL).await
    }

    /// Lets an instance finish its work, and waits until it has ended.
    pub async fn stop(&self, instance: impl Into<Instance>) -> Result<(), Error> {
        let instance = instance.into();
        self.stack.end(instance, instance.part.stop_signal()).await
    }

    /// Starts an instance that has ended, and waits until it is ready.
    pub async fn start_part(&self, instance: impl Into<Instance>) -> Result<u32, Error> {
        self.stack.start(instance.into()).await
    }

    /// Starts an instance with more in its environment, and waits until it is ready.
    pub async fn start_with(&self, instance: impl Into<Instance>, env: &[(String, String)]) -> Result<u32, Error> {
        self.stack.start_with(instance.into(), env).await
    }

    /// Freezes an instance where it stands.
    pub fn pause(&self, instance: impl Into<Instance>) -> Result<(), Error> {
        self.stack.signal(instance.into(), Signal::STOP)
    }

    /// Lets a frozen instance go on.
    pub fn resume(&self, instance: impl Into<Instance>) -> Result<(), Error> {
        self.stack.signal(instance.into(), Signal::CONT)
    }

    /// Waits until an instance has ended by itself; nothing if it does not run.
    pub async fn ended(&self, instance: impl Into<Instance>) -> Option<ExitStatus> {
        let running = self.stack.running(instance.into())?;
        Some(running.exited().await)
    }

    /// How the journal stands that the brokers share, in a lab past one machine.
    pub async fn journal(&self) -> Result<JournalState, broker::Error> {
        let servers = self.stack.layout().engine().parse();
        let servers: EngineAddress = servers.expect("the addresses of servers are an engine");
        JournalState::look(&servers, &EngineName::default()).await
    }

    /// Leaves the folder where it is when the lab ends.
    pub fn keep(&self) {
        self.temporary.take();
    }

    /// Ends everything at once, waits for it, and removes the folder unless it is kept.
    pub async fn end(&self) -> io::Result<()> {
        self.stack.kill_all();
        self.stack.all_ended().await;
        match self.temporary.take() {
            Some(folder) => std::fs::remove_dir_all(folder),
            None => Ok(()),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stack.kill_all();
    }
}

impl Temporary {
    fn take(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what still runs for a moment may write once more.
        if let Some(folder) = self.take() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
