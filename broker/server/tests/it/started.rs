//! The `broker` binary in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::engine;
use crate::harness::PATIENCE;

/// What the log says before the address of a broker that serves.
pub(crate) const SERVES: &str = "The broker serves. address=";
/// A broker in a process of its own, which ends with this value.
pub(crate) struct BrokerProcess {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// The lines of its log; they end when the process does.
    pub(crate) log: mpsc::Receiver<String>,
}

pub(crate) fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The command that serves a directory.
pub(crate) fn serve(dir: &Path, listen: &str, more: &[&str]) -> Command {
    let mut arguments = vec!["serve", "--listen", listen, "--data-dir", dir.to_str().unwrap()];
    let flags = engine::flags(dir);
    arguments.extend(flags.iter().map(String::as_str));
    arguments.extend(more);
    broker(&arguments)
}

impl BrokerProcess {
    /// Starts a broker and waits until it serves.
    pub(crate) fn start(dir: &Path, listen: &str) -> Self {
        Self::start_with(dir, listen, &[])
    }

    pub(crate) fn start_with(dir: &Path, listen: &str, more: &[&str]) -> Self {
        Self::spawn(serve(dir, listen, more), SERVES)
    }

    /// Starts a broker and waits until its log says where it is.
    pub(crate) fn spawn(mut command: Command, says: &'static str) -> Self {
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (found, address) = mpsc::channel();
        let (log_line, log) = mpsc::channel();
        // Reads on, so that the broker never waits for somebody to read its log.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
                if let Some((_, address)) = line.split_once(says) {
                    found.send(address.trim().parse().unwrap()).ok();
                }
                log_line.send(line).ok();
            }
        });
        let address = address.recv_timeout(PATIENCE).expect("the broker serves");
        Self { child, address, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the log says something.
    pub(crate) fn until_logged(&self, text: &str) {
        self.until_logged_within(text, PATIENCE);
    }

    pub(crate) fn until_logged_within(&self, text: &str, patience: Duration) {
        let begun = Instant::now();
        loop {
            let line = self.log.recv_timeout(patience).expect("the broker goes on");
            if line.contains(text) {
                return;
            }
            assert!(begun.elapsed() < patience, "it never says `{text}`");
        }
    }

    /// SIGKILL, for a broker that has not ended by itself.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the broker has ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; answers the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the broker does not stop");
            std::thread::yield_now();
        }
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
