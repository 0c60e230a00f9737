//! `orderflow up`: the whole stack as child processes of one runner.

mod child;
mod control;
mod foundation;
pub(crate) mod layout;
mod stack;
mod welcome;

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use service_kit::CancellationToken;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use self::child::{Launch, Voice};
pub use self::control::{Error as AskError, PartStatus, Reply, Request, ask};
pub use self::foundation::Scale;
use self::foundation::{NATS_SERVERS, REPLICAS};
use self::layout::Layout;
pub(crate) use self::layout::metrics_address;
pub(crate) use self::stack::{Program, Stack};
use crate::dashboard::{self, Door, Listen, Site};
use crate::part::{INSTANCES_MAX, Instance, Part};
use crate::terminal;

/// The folder that is used when none is named.
pub(crate) const DATA_DIR_DEFAULT: &str = ".orderflow";

/// What `orderflow up` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Everything that the stack stores, its logs included
    #[arg(long, env = "ORDERFLOW_DATA_DIR", default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Where the broker listens (gRPC)
    #[arg(long, env = "BROKER_LISTEN", default_value = "127.0.0.1:8085")]
    pub broker_listen: SocketAddr,
    /// Where the simulated card acquirer listens (HTTP)
    #[arg(long, env = "ACQUIRER_LISTEN", default_value = "127.0.0.1:8070")]
    pub acquirer_listen: SocketAddr,
    /// Where order-service listens (gRPC)
    #[arg(long, env = "ORDER_LISTEN", default_value = "127.0.0.1:50051")]
    pub order_listen: SocketAddr,
    /// Where payment-service listens (gRPC)
    #[arg(long, env = "PAYMENT_LISTEN", default_value = "127.0.0.1:50052")]
    pub payment_listen: SocketAddr,
    /// Where notification-service listens (gRPC)
    #[arg(long, env = "NOTIFICATION_LISTEN", default_value = "127.0.0.1:50053")]
    pub notification_listen: SocketAddr,
    /// Where the first invoice-worker listens (gRPC, health only)
    #[arg(long, env = "INVOICE_LISTEN", default_value = "127.0.0.1:50054")]
    pub invoice_listen: SocketAddr,
    /// Run several of a part that share its queue, such as payment-service=2,invoice-worker=3: payment-service,
    /// notification-service and invoice-worker can; each listens ten ports above the one before
    #[arg(long, env = "ORDERFLOW_INSTANCES", value_name = "PART=COUNT", value_delimiter = ',', value_parser = several)]
    pub instances: Vec<(Part, u16)>,
    /// Whether it goes past one machine
    #[command(flatten)]
    pub scale: Scale,
    /// Where the first NATS server listens; each of the others ten ports above, and one port higher for each other
    #[arg(long, env = "NATS_LISTEN", default_value = "127.0.0.1:14222")]
    pub nats_listen: SocketAddr,
    /// Where the PostgreSQL server listens
    #[arg(long, env = "POSTGRES_LISTEN", default_value = "127.0.0.1:15432")]
    pub postgres_listen: SocketAddr,
    /// Open a page for Prometheus at /metrics beside each part, a thousand ports above the part's own
    #[arg(long, env = "ORDERFLOW_METRICS")]
    pub metrics: bool,
    /// Where the page is that shows the flow and lets you break it, on a loopback address; `off` for none
    #[arg(long, env = "ORDERFLOW_DASHBOARD_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub dashboard_listen: dashboard::Listen,
    /// Show every line of every log, not only what is worth a look
    #[arg(long, short)]
    pub verbose: bool,
}

impl Config {
    pub(crate) fn listen(&self, part: Part) -> SocketAddr {
        match part {
            Part::Nats => self.nats_listen,
            Part::Postgres => self.postgres_listen,
            Part::Broker => self.broker_listen,
            Part::Acquirer => self.acquirer_listen,
            Part::OrderService => self.order_listen,
            Part::PaymentService => self.payment_listen,
            Part::NotificationService => self.notification_listen,
            Part::InvoiceWorker => self.invoice_listen,
        }
    }
}

/// Every process of a stack.
pub(crate) fn instances(is_scaled: bool, told: &[(Part, u16)]) -> Vec<Instance> {
    let servers: &[Part] = if is_scaled { &[Part::Nats, Part::Postgres] } else { &[] };
    let of_part = |part| (1..=count(part, is_scaled, told)).map(move |number| Instance { part, number });
    servers.iter().copied().chain(Part::ALL).flat_map(of_part).collect()
}

/// How many there are of a part. `told` holds what was asked for.
fn count(part: Part, is_scaled: bool, told: &[(Part, u16)]) -> u16 {
    let usual = match part {
        Part::Nats => NATS_SERVERS,
        // Its ledger is in a file.
        Part::Acquirer | Part::Postgres => 1,
        _ if is_scaled => REPLICAS,
        _ => 1,
    };
    told.iter().rev().find(|(of, _)| *of == part).map_or(usual, |(_, count)| *count)
}

/// Why a stack or a part of it does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder can't be used.
    #[error("the data folder `{}` can't be used: {source}; choose another with --data-dir (ORDERFLOW_DATA_DIR)", path.display())]
    DataDir {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another runner has the folder.
    #[error("an `orderflow up` runs on `{}` already; choose another folder with --data-dir (ORDERFLOW_DATA_DIR)", path.display())]
    Locked {
        /// Which folder.
        path: PathBuf,
    },
    /// Its data are those of another kind of stack.
    #[error(
        "the data folder `{}` is that of a stack {} --scale; choose another with --data-dir (ORDERFLOW_DATA_DIR)",
        path.display(), if *is_scaled { "without" } else { "with" }
    )]
    OtherStack {
        /// Which folder.
        path: PathBuf,
        /// Whether the stack that was asked for goes past one machine.
        is_scaled: bool,
    },
    /// The servers of a stack past one machine are not to be had here.
    #[error("--scale (ORDERFLOW_SCALE): {0}")]
    Servers(#[from] local_servers::Error),
    /// The databases can't be made.
    #[error("the databases can't be made: {0}")]
    Databases(#[from] Box<sqlx::Error>),
    /// Nothing can listen on an address.
    #[error("{part} can't listen on {address}: {source}; choose another address with {flag} ({variable})")]
    Address {
        /// Whose address.
        part: Instance,
        /// Which address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: String,
        /// The environment variable that sets it.
        variable: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The process could not be made.
    #[error("{part} can't be started: {source}")]
    Spawn {
        /// Which part.
        part: Instance,
        /// What the system said.
        source: io::Error,
    },
    /// The process ended before it was ready.
    #[error("{part} ended before it was ready ({status}); its log is `{}`", log.display())]
    EndedEarly {
        /// Which part.
        part: Instance,
        /// How it ended.
        status: ExitStatus,
        /// Where it says why.
        log: PathBuf,
    },
    /// The process runs, but does not get ready.
    #[error("{part} was not ready within {within_s} s; its log is `{}`", log.display())]
    NotReady {
        /// Which part.
        part: Instance,
        /// How long it was given.
        within_s: u64,
        /// Where it says what it does.
        log: PathBuf,
    },
    /// A part that runs can't be started.
    #[error("{part} runs already, as process {pid}")]
    AlreadyRuns {
        /// Which part.
        part: Instance,
        /// Its process.
        pid: u32,
    },
    /// The ports end before it.
    #[error("there is no port for {part}: let the first one listen on a lower port")]
    NoPort {
        /// Which one.
        part: Instance,
    },
    /// The stack was started without it.
    #[error("this stack has no {part}: start it with --instances to have more of a part")]
    NotPlanned {
        /// Which one.
        part: Instance,
    },
    /// A part that doesn't run can't be ended.
    #[error("{part} does not run")]
    NotRunning {
        /// Which part.
        part: Instance,
    },
    /// A part takes too long to stop.
    #[error("{part} (process {pid}) has not ended within {within_s} s")]
    StillRuns {
        /// Which part.
        part: Instance,
        /// Its process.
        pid: u32,
        /// How long it was given.
        within_s: u64,
    },
    /// The runner is stopping.
    #[error("the stack is being stopped")]
    Ending,
    /// The page can't be served.
    #[error(transparent)]
    Dashboard(#[from] dashboard::Error),
    /// Something of the runner's own failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Runs the stack until ctrl-c or SIGTERM, then lets it drain. A second signal ends everything at once.
pub async fn run(config: Config) -> Result<(), Error> {
    let started = Instant::now();
    let mut signals = Signals::new().map_err(Error::io("signals can't be caught"))?;
    Layout::check_kind(&config)?;
    let _lock = lock(&config.data_dir)?;
    let layout = Layout::create(&config)?;
    for instance in layout.instances() {
        layout.check_address(instance)?;
    }
    let door = match config.dashboard_listen {
        Listen::On(address) => Some(Door::on_loopback(address).await?),
        Listen::Off => None,
    };
    let control = control::listen(&config.data_dir).map_err(Error::io(
        "the control socket can't be opened (a shorter --data-dir or ORDERFLOW_DATA_DIR may help)",
    ))?;
    let launch = Launch {
        executable: std::env::current_exe().map_err(Error::io("the program's own file can't be found"))?,
        voice: if config.verbose { Voice::Verbose } else { Voice::Warnings },
    };
    let page = door.as_ref().map(Door::address);
    let doors = layout.open_doors().await?;
    let stack = Stack::new(layout, doors, program(&config.data_dir), launch, page);

    let outcome = tokio::select! {
        started = start_all(&stack) => started,
        () = signals.next() => Err(Error::Ending),
    };
    let token = CancellationToken::new();
    let mut dashboard = None;
    let outcome = match outcome {
        Ok(()) => {
            terminal::say(&stack.welcome(started.elapsed()));
            dashboard = door.map(|door| {
                let (site, token) = (Site::owned(Arc::clone(&stack)), token.clone());
                tokio::spawn(door.serve(site, Vec::new(), token))
            });
            tokio::select! {
                () = serve_control(&stack, control) => {}
                () = signals.next() => {}
            }
            Ok(())
        }
        Err(Error::Ending) => Ok(()),
        Err(error) => Err(error),
    };

    let last = if stack.layout().is_scaled() { ", PostgreSQL and NATS" } else { "" };
    terminal::say(&format!("stopping: services, acquirer, broker{last} (once more to end them at once)"));
    // The page ends first, its load with it; it has its limits, so that nobody waits for it in vain.
    token.cancel();
    let drain = async {
        if let Some(dashboard) = dashboard {
            let _ = dashboard.await;
        }
        stack.drain().await;
    };
    tokio::pin!(drain);
    tokio::select! {
        () = &mut drain => {}
        () = signals.next() => {
            stack.kill_all();
            drain.await;
        }
    }
    // Only tidiness: the next runner replaces a socket that is left behind.
    let _ = std::fs::remove_file(control::socket(&config.data_dir));
    outcome
}

/// Starts everything: the servers below first, then the broker, then all others together, who stand any order.
pub(crate) async fn start_all(stack: &Arc<Stack>) -> Result<(), Error> {
    for step in Part::START_STEPS {
        let mut starts = tokio::task::JoinSet::new();
        for instance in stack.instances().filter(|instance| step.contains(&instance.part)) {
            let stack = Arc::clone(stack);
            starts.spawn(async move { stack.start(instance).await });
        }
        while let Some(started) = starts.join_next().await {
            started
                .map_err(|error| Error::Io { what: "a start was broken off", source: io::Error::other(error) })??;
        }
        if step.contains(&Part::Postgres) {
            stack.layout().lay_foundation().await?;
        }
    }
    Ok(())
}

/// Answers other terminals, each connection in its own task, for a part may take a while to stop.
async fn serve_control(stack: &Arc<Stack>, listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(Arc::clone(stack), stream));
    }
    terminal::say("the control socket broke: other terminals can't reach this stack any more");
    std::future::pending::<()>().await;
}

async fn answer(stack: Arc<Stack>, stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    let reply = match control::accept(&mut stream).await {
        Ok(request) => stack.handle(request).await,
        Err(error) => Reply::Refused { message: format!("the request can't be read: {error}") },
    };
    // Whoever asked may have gone; what was asked for is done all the same.
    let _ = control::send(&mut stream, &reply).await;
}

/// `payment-service=2`
pub(crate) fn several(text: &str) -> Result<(Part, u16), String> {
    let (part, count) = text.split_once('=').ok_or_else(|| format!("`{text}` is not such as payment-service=2"))?;
    let part = <Part as clap::ValueEnum>::from_str(part, false).map_err(|_| format!("`{part}` is no part"))?;
    if !part.shares_work() {
        return Err(format!("there is one {part} only: it has no queue that several could share"));
    }
    let count = count.parse().ok().filter(|count| (1..=INSTANCES_MAX).contains(count));
    Ok((part, count.ok_or_else(|| format!("a part can run 1 to {INSTANCES_MAX} times"))?))
}

/// Keeps a second runner out of the folder, which is made if it is not there, for as long as the file is open.
fn lock(data_dir: &Path) -> Result<File, Error> {
    let unusable = |source| Error::DataDir { path: data_dir.to_owned(), source };
    std::fs::create_dir_all(data_dir).map_err(unusable)?;
    let file = File::create(data_dir.join("runner.lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// How this program was called, for commands that people can paste.
pub(crate) fn program(data_dir: &Path) -> Program {
    let executable = std::env::args().next().unwrap_or_else(|| "orderflow".to_owned());
    let default = data_dir == Path::new(DATA_DIR_DEFAULT);
    let flags = if default { String::new() } else { format!(" --data-dir {}", quoted(&data_dir.to_string_lossy())) };
    Program { executable, flags }
}

/// A word as a shell takes it for one.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// ctrl-c and SIGTERM. Once there is one of these, neither ends the process by itself any more.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one. One that came since the last is not missed.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_that_share_a_queue_can_run_several_times() {
        assert_eq!(several("payment-service=2"), Ok((Part::PaymentService, 2)));
        for (text, why) in [
            ("payment-service", "such as"),
            ("nobody=2", "no part"),
            ("broker=2", "one broker only"),
            ("order-service=2", "one order-service only"),
            ("invoice-worker=0", "1 to 16 times"),
            ("invoice-worker=17", "1 to 16 times"),
            ("invoice-worker=many", "1 to 16 times"),
        ] {
            let error = several(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_folder_with_odd_characters_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("/data/of_1/a.b-c"), "/data/of_1/a.b-c");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
