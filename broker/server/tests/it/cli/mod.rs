//! The command line, as people and scripts use it: a broker, and each command as a process.

mod admin;
mod inside;
mod messages;
mod tail;
mod usage;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::harness::{PATIENCE, TestBroker};

/// The command line of somebody whose environment names a broker and a project.
pub(super) struct Cli {
    address: String,
}

/// What a command has answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) errors: String,
}

/// A command that goes on until it is told to end.
pub(super) struct Running {
    child: Child,
    errors: mpsc::Receiver<String>,
}

impl Cli {
    pub(super) fn of(broker: &TestBroker) -> Self {
        Self::at(&broker.url)
    }

    pub(super) fn at(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(arguments).env("BROKER_ADDRESS", &self.address).env("PUBSUB_PROJECT_ID", "p");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Answer {
        self.run_with_input(arguments, b"")
    }

    pub(super) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that ends before it has read its input is judged by its answer.
        child.stdin.take().unwrap().write_all(input).ok();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code(), out: text(output.stdout), errors: text(output.stderr) }
    }

    /// Runs a command that succeeds; answers what it printed.
    pub(super) fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {answer:?}");
        answer.out
    }

    /// Runs a command that succeeds with one JSON document.
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// Runs a command that fails; answers what it complained about.
    pub(super) fn fails(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, Some(1), "{arguments:?}: {answer:?}");
        assert!(answer.errors.starts_with("broker: "), "{arguments:?}: {answer:?}");
        answer.errors
    }

    /// Starts a command that goes on.
    pub(super) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (line, errors) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|text| line.send(text)));
        Running { child, errors }
    }
}

impl Running {
    /// Waits for a line on the standard error that contains a text.
    pub(super) fn says(&self, text: &str) {
        while !self.errors.recv_timeout(PATIENCE).expect("the command goes on and says it").contains(text) {}
    }

    pub(super) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Ends the pipe that the command prints into.
    pub(super) fn stop_reading(&mut self) {
        drop(self.child.stdout.take());
    }

    /// Waits for the end.
    pub(super) fn end(mut self) -> Answer {
        let mut out = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        let status = self.child.wait().unwrap();
        Answer { code: status.code(), out, errors: self.errors.iter().collect::<Vec<_>>().join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A broker with the topic `orders` and the subscription `payment`, and its command line.
pub(super) async fn shop() -> (TestBroker, Cli) {
    let broker = TestBroker::start().await;
    let cli = Cli::of(&broker);
    cli.ok(&["topic", "create", "orders"]);
    cli.ok(&["subscription", "create", "payment", "--topic", "orders"]);
    (broker, cli)
}

/// The texts of messages in JSON.
pub(super) fn texts(received: &Value) -> Vec<&str> {
    received.as_array().unwrap().iter().map(|received| received["message"]["text"].as_str().unwrap()).collect()
}
