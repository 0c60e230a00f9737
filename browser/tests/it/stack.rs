//! `orderflow up` in a folder of its own, on free ports, ended with the test whatever happens.

use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Whatever a test waits for has happened by then, or never will.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A run of `chaos` or `compare` has its own limits, and ends by itself long before this.
const RUN_WITHIN: Duration = Duration::from_secs(600);

/// The variables that say where the parts listen, and that of the page.
const LISTEN: [&str; 7] = [
    "BROKER_LISTEN",
    "ACQUIRER_LISTEN",
    "ORDER_LISTEN",
    "PAYMENT_LISTEN",
    "NOTIFICATION_LISTEN",
    "INVOICE_LISTEN",
    "ORDERFLOW_DASHBOARD_LISTEN",
];

/// The ports of the stacks of these tests. Nothing of the suite listens there by itself, and no other test.
const PORTS: Range<u16> = 9_100..9_980;
const POLL: Duration = Duration::from_millis(50);

/// A running stack with its page.
pub(crate) struct Stack {
    folder: TempDir,
    ports: Vec<u16>,
    runner: Child,
    /// The page, where the runner has none.
    _dashboard: Option<Child>,
}

impl Stack {
    /// Starts a stack and waits until it says that it is ready.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let ports = free_ports();
        let runner = up(&folder, &ports, true).await;
        Self { folder, ports, runner, _dashboard: None }
    }

    /// Starts a stack without a page, and a page beside it as Compose has it: one that owns no processes.
    pub(crate) async fn beside() -> Self {
        let folder = TempDir::new().unwrap();
        let ports = free_ports();
        let runner = up(&folder, &ports, false).await;
        let listen = format!("127.0.0.1:{}", ports[LISTEN.len() - 1]);
        let mut command = Command::new(program());
        command.args(["dashboard", "--commands", "compose", "--listen", &listen, "--data-dir"]).arg(folder.path());
        let dashboard = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let answers = async {
            while TcpStream::connect(&listen).await.is_err() {
                sleep(POLL).await;
            }
        };
        timeout(DEADLINE, answers).await.expect("the page is served in time");
        Self { folder, ports, runner, _dashboard: Some(dashboard) }
    }

    /// Kills a part, as somebody in a terminal does.
    pub(crate) async fn kill(&self, part: &str) {
        run(&["kill", part, "--data-dir", &self.folder.path().display().to_string()]).await;
    }

    /// Where the page is.
    pub(crate) fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.ports[LISTEN.len() - 1])
    }

    /// Ends the runner, and with it every part, by SIGKILL: the hardest way to go. Waits until the parts, too, are gone.
    pub(crate) async fn end(&mut self) {
        timeout(DEADLINE, self.runner.kill()).await.expect("the runner ends").unwrap();
        let deadline = Instant::now() + DEADLINE;
        while !are_free(&self.ports) {
            assert!(Instant::now() < deadline, "somebody still listens on one of {:?}", self.ports);
            sleep(POLL).await;
        }
    }

    /// Starts again, in the same folder and on the same ports.
    pub(crate) async fn again(&mut self) {
        self.runner = up(&self.folder, &self.ports, true).await;
    }
}

/// Runs a command of the program to its end, which must be a good one.
pub(crate) async fn run(arguments: &[&str]) {
    let mut command = Command::new(program());
    let ended = command.args(arguments).kill_on_drop(true).output();
    let output = timeout(RUN_WITHIN, ended).await.expect("the command ends in time").unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn program() -> PathBuf {
    let named = std::env::var_os("ORDERFLOW_BIN").expect(
        "ORDERFLOW_BIN must name the program: cargo build -p orderflow, then ORDERFLOW_BIN=target/debug/orderflow",
    );
    let path = PathBuf::from(named);
    // Tests run in this package's folder; a relative path is one of whoever started them, most likely the repository's.
    let from_root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(&path);
    [path, from_root].into_iter().find_map(|path| path.canonicalize().ok()).expect("ORDERFLOW_BIN names no file")
}

async fn up(folder: &TempDir, ports: &[u16], with_page: bool) -> Child {
    let mut command = Command::new(program());
    command.arg("up").arg("--data-dir").arg(folder.path()).kill_on_drop(true);
    for (variable, port) in LISTEN.into_iter().zip(ports) {
        command.env(variable, format!("127.0.0.1:{port}"));
    }
    if !with_page {
        command.env(LISTEN[LISTEN.len() - 1], "off");
    }
    let mut runner = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("ready after") {
                return;
            }
        }
        panic!("the stack ended before it was ready");
    };
    timeout(DEADLINE, ready).await.expect("the stack is not ready in time");
    // Somebody has to read on, or the runner waits for room in its pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    runner
}

/// One port for each part and for the page. They lie below the range from which the system takes ports for outgoing
/// connections: a part that is down must find its port free when it comes back.
fn free_ports() -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let stacks = PORTS.len() / LISTEN.len();
    let begin = usize::try_from(std::process::id()).unwrap() + usize::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let ports = |step| PORTS.skip((begin + step) % stacks * LISTEN.len()).take(LISTEN.len()).collect::<Vec<u16>>();
    (0..stacks).map(ports).find(|ports| are_free(ports)).expect("no ports are free")
}

fn are_free(ports: &[u16]) -> bool {
    ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}
