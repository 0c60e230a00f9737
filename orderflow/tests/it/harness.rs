//! One stack of real processes in a folder of its own, ended with the test whatever happens.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orderflow::audit::Addresses;
use orderflow::{Part, queues};
use orderflow_proto::orderflow::broker::v1::SubscriptionStats;
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{self, Instant};
use tonic::transport::{Channel, Endpoint};

/// Whatever a test waits for has happened by then, or never will.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The same for the start and the end of a stack past one machine, in which stages follow each other that may each take
/// most of a minute.
const DEADLINE_SCALED: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// A command has ended by then. Some run a whole stack, or two.
const COMMAND_DEADLINE: Duration = Duration::from_secs(240);

/// A runner with its children.
pub(crate) struct Stack {
    folder: Arc<TempDir>,
    ports: BTreeMap<Part, u16>,
    flags: Vec<String>,
    runner: Child,
    output: Arc<Mutex<Vec<String>>>,
    /// How long its start and its end may take.
    deadline: Duration,
}

impl Stack {
    /// Starts a stack in a new folder and waits until it says that it is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a stack with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let ports = Part::ALL.into_iter().zip(free_ports()).collect();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_in(Arc::new(TempDir::new().unwrap()), ports, flags).await
    }

    /// Starts a stack with its folder, ports and flags.
    pub(crate) async fn start_in(folder: Arc<TempDir>, ports: BTreeMap<Part, u16>, flags: Vec<String>) -> Self {
        Self::start_amid(&[], folder, ports, flags).await
    }

    /// The same with more in the environment of the runner.
    pub(crate) async fn start_amid(
        environment: &[(&str, &str)],
        folder: Arc<TempDir>,
        ports: BTreeMap<Part, u16>,
        flags: Vec<String>,
    ) -> Self {
        let mut command = up(folder.path(), &ports);
        command.envs(environment.iter().copied());
        let mut runner = command.args(&flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        collect(runner.stdout.take().unwrap(), &output);
        collect(runner.stderr.take().unwrap(), &output);
        let deadline = if flags.iter().any(|flag| flag == "--scale") { DEADLINE_SCALED } else { DEADLINE };
        let mut stack = Self { folder, ports, flags, runner, output, deadline };
        stack.wait_for_line(|line| line.starts_with("ready after")).await;
        stack
    }

    /// Starts the stack again, in its folder and on its ports, after it has ended.
    pub(crate) async fn again(self) -> Self {
        let Self { folder, ports, flags, mut runner, .. } = self;
        assert!(runner.try_wait().unwrap().is_some(), "the runner still runs");
        Self::start_in(folder, ports, flags).await
    }

    /// Waits for a line of the runner's output.
    pub(crate) async fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) {
        let output = Arc::clone(&self.output);
        let deadline = Instant::now() + self.deadline;
        while !output.lock().unwrap().iter().any(|line| wanted(line)) {
            let ended = self.runner.try_wait().unwrap();
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "ended: {ended:?}, late: {late}, output: {:#?}", self.output());
            time::sleep(POLL).await;
        }
    }

    /// What the runner has said so far.
    pub(crate) fn output(&self) -> Vec<String> {
        self.output.lock().unwrap().clone()
    }

    /// Runs the program as another terminal would, with this stack's folder.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        output(command.args(arguments).env("ORDERFLOW_DATA_DIR", self.folder.path())).await
    }

    /// Runs a command that must succeed, and gives what it says.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{:#?}", self.output());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn kill(&self, part: Part) {
        self.succeed(&["kill", part.name()]).await;
    }

    pub(crate) async fn start_part(&self, part: Part) {
        self.succeed(&["start", part.name()]).await;
    }

    /// The process of every part that runs.
    pub(crate) async fn processes(&self) -> BTreeMap<Part, u32> {
        let status = self.succeed(&["status"]).await;
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let part = Part::ALL.into_iter().find(|part| words.clone().next() == Some(part.name()))?;
            Some((part, words.nth(2)?.parse().ok()?))
        };
        status.lines().filter_map(line).collect()
    }

    pub(crate) fn port(&self, part: Part) -> u16 {
        self.ports[&part]
    }

    pub(crate) fn url(&self, part: Part) -> String {
        format!("http://127.0.0.1:{}", self.port(part))
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            broker: self.url(Part::Broker),
            acquirer: self.url(Part::Acquirer),
            order_service: self.url(Part::OrderService),
            payment_service: self.url(Part::PaymentService),
            notification_service: self.url(Part::NotificationService),
        }
    }

    pub(crate) fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(Endpoint::from_shared(self.url(Part::OrderService)).unwrap().connect_lazy())
    }

    /// How the subscription of this name stands.
    pub(crate) async fn queue(&self, name: &str) -> SubscriptionStats {
        let queues = queues::ask(&self.url(Part::Broker)).await.unwrap();
        queues.into_iter().find(|queue| queue.subscription.rsplit('/').next() == Some(name)).unwrap()
    }

    /// Waits until a subscription stands as wanted.
    pub(crate) async fn wait_for_queue(&self, name: &str, wanted: impl Fn(&SubscriptionStats) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let queue = self.queue(name).await;
            if wanted(&queue) {
                return;
            }
            assert!(Instant::now() < deadline, "{queue:?}\n{:#?}", self.output());
            time::sleep(POLL).await;
        }
    }

    pub(crate) fn runner_pid(&self) -> u32 {
        self.runner.id().unwrap()
    }

    /// Sends a signal to the runner, and to nobody else.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(self.runner_pid(), signal);
    }

    /// Waits for the end of the runner.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        time::timeout(self.deadline, self.runner.wait()).await.expect("the runner ends").unwrap()
    }
}

/// Runs a command to its end, which must come in time.
pub(crate) async fn output(command: &mut Command) -> Output {
    output_within(COMMAND_DEADLINE, command).await
}

/// Runs a command to its end, which must come within the deadline.
pub(crate) async fn output_within(deadline: Duration, command: &mut Command) -> Output {
    let ended = time::timeout(deadline, command.output()).await;
    ended.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap()
}

/// The program that is tested.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderflow"));
    // The settings of whoever runs the tests are not ours.
    command.env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// `orderflow up` on a folder and on ports.
pub(crate) fn up(folder: &Path, ports: &BTreeMap<Part, u16>) -> Command {
    let mut command = program();
    // Stacks stand side by side: each has its ports, and none has a page unless its test asks for one.
    command.arg("up").arg("--data-dir").arg(folder).env("ORDERFLOW_DASHBOARD_LISTEN", "off");
    for (part, port) in ports {
        command.env(part.listen_variable(), format!("127.0.0.1:{port}"));
    }
    command
}

/// Ports that are left free behind each stack, for further instances of its parts.
const PORTS_SPARE: u16 = 20;

/// One port for each part. They lie below the range from which the system takes ports for outgoing connections: a part
/// that is down must find its port free when it comes back.
pub(crate) fn free_ports() -> [u16; Part::ALL.len()] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let parts = u16::try_from(Part::ALL.len()).unwrap();
    let base = 10_000 + u16::try_from(std::process::id() % 20).unwrap() * 1_000;
    loop {
        let first = base + NEXT.fetch_add(parts + PORTS_SPARE, Ordering::SeqCst);
        let ports = std::array::from_fn(|part| first + u16::try_from(part).unwrap());
        if ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return ports;
        }
    }
}

pub(crate) fn signal_process(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether a process runs; one that has ended and only waits to be collected does not.
pub(crate) fn runs(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The letter that the system has for the state of a process: `T` is frozen.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        time::sleep(POLL).await;
    }
}

pub(crate) fn collect(stream: impl AsyncRead + Unpin + Send + 'static, output: &Arc<Mutex<Vec<String>>>) {
    let output = Arc::clone(output);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            output.lock().unwrap().push(line);
        }
    });
}
