//! The order flow as a whole: what a stack accepts, gets paid and has in its books when more orders come than it can take.
//!
//! The stack and the load are those of the `orderflow` program, run as its users run it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::chart::short;
use crate::error::{Error, Outcome};
use crate::process::{Server, program};
use crate::stats::Summary;

/// How a choice on the command line names all of this.
pub(crate) const NAME: &str = "orders";
/// How long a stack may take to get ready.
const READY_PATIENCE: Duration = Duration::from_secs(90);
/// How often it is asked.
const READY_PERIOD: Duration = Duration::from_millis(250);
/// How long all that was ordered may take, in seconds.
const DRAIN_S: u64 = 120;
/// Ports of a stack: further instances of a part listen ten above the one before.
const PORTS: u16 = 60;
/// Where blocks of ports are looked for: below those that systems give to clients.
const PORTS_FROM: u16 = 20_000;
/// How many blocks are tried.
const BLOCKS: u16 = 100;

// Systems give ports from there on to clients.
const _: () = assert!(PORTS_FROM + BLOCKS * PORTS < 32_768);

/// A stack that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setup {
    /// One broker with its own journal, one of each service, SQLite.
    Machine,
    /// Three NATS servers, two brokers, PostgreSQL, one of each service.
    One,
    /// The same with two of each service.
    Two,
}

/// All of them, in the order in which they take turns.
pub(crate) const SETUPS: [Setup; 3] = [Setup::Machine, Setup::One, Setup::Two];

/// How many orders come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rush {
    per_s: u32,
    duration_s: u32,
}

impl Rush {
    /// More than two cores can take.
    pub(crate) const FULL: Self = Self { per_s: 3_000, duration_s: 8 };
    /// For a first look.
    pub(crate) const QUICK: Self = Self { per_s: 1_000, duration_s: 2 };
}

/// What one run has shown, in orders a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// While orders came.
    pub(crate) accepted_per_s: f64,
    /// Until the last one was paid.
    pub(crate) paid_per_s: f64,
    /// Until nothing waited any more: paid, told, invoiced, and the books balance.
    pub(crate) balanced_per_s: f64,
}

/// What `orderflow load` tells, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Load {
    accepted: u64,
    accepted_per_s: f64,
    offered_for_s: f64,
    paid_per_s: f64,
    drain_s: Option<f64>,
}

/// What all runs have shown.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<Setup, Vec<Sample>>,
    failures: BTreeMap<Setup, String>,
}

impl Results {
    /// Takes the outcome of one run.
    pub(crate) fn add(&mut self, setup: Setup, outcome: Outcome<Sample>) {
        match outcome {
            Ok(sample) => self.samples.entry(setup).or_default().push(sample),
            Err(error) => drop(self.failures.insert(setup, error.to_string())),
        }
    }

    /// Whether another round would show nothing new.
    pub(crate) fn is_hopeless(&self, setup: Setup) -> bool {
        self.failures.contains_key(&setup)
    }

    /// A Markdown table, empty if nothing was measured.
    pub(crate) fn table(&self) -> String {
        if self.samples.is_empty() {
            return String::new();
        }
        let rows = self.samples.iter().map(|(setup, samples)| {
            let cell = |value: fn(&Sample) -> f64| {
                let summary = Summary::of(samples.iter().map(value));
                summary.map_or_else(String::new, |summary| {
                    format!(" {} ±{:.0}% |", short(summary.median), summary.spread_percent())
                })
            };
            let cells = [|of: &Sample| of.accepted_per_s, |of: &Sample| of.paid_per_s, |of: &Sample| of.balanced_per_s];
            format!("| {setup} |{}\n", cells.map(cell).concat())
        });
        let head = "| orders a second | accepted | paid | books balanced |\n| --- | ---: | ---: | ---: |\n";
        head.to_owned() + &rows.collect::<String>() + "\n"
    }

    /// Why there are no figures where there are none.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(setup, why)| format!("{NAME}, {setup}: {why}"))
    }

    /// For programs.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let of = |(setup, samples): (&Setup, &Vec<Sample>)| serde_json::json!({ "setup": setup.to_string(), "what": setup.title(), "samples": samples });
        self.samples.iter().map(of).collect()
    }
}

impl Setup {
    /// What it is, for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Machine => "one of each service on SQLite, one broker with its own journal",
            Self::One => "one of each service on PostgreSQL, two brokers on three NATS servers",
            Self::Two => "two of each service on PostgreSQL, two brokers on three NATS servers",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Machine => &[],
            Self::One => &["--scale", "--instances", "payment-service=1,notification-service=1,invoice-worker=1"],
            Self::Two => &["--scale"],
        }
    }

    /// Starts the stack, puts the load on it, and waits until the books balance.
    pub(crate) async fn run(self, rush: Rush) -> Outcome<Sample> {
        let program = orderflow()?;
        let first = free_block()?;
        let mut folder = PathBuf::new();
        let stack = Server::start_at(address(first, ORDER_AT), |dir, _| {
            folder = dir.join("stack");
            // PostgreSQL has a user of its own, who has to get to his data.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
            let mut command = Command::new(&program);
            command.arg("up").args(self.arguments()).arg("--data-dir").arg(&folder);
            command.env("ORDERFLOW_DASHBOARD_LISTEN", "off");
            if let Some(server) = std::env::var_os("NATS_SERVER") {
                command.env("ORDERFLOW_NATS_SERVER", server);
            }
            for (at, variable) in (0..).zip(VARIABLES) {
                command.env(variable, address(first, at).to_string());
            }
            Ok(command)
        });
        let stack = stack.await?;
        let result = self.measure(&program, &folder, rush).await;
        stack.stop().await;
        result
    }

    async fn measure(self, program: &Path, folder: &Path, rush: Rush) -> Outcome<Sample> {
        let begun = Instant::now();
        while !ask(program, folder, &["audit"]).await?.status.success() {
            if begun.elapsed() > READY_PATIENCE {
                return Err(Error::TimeOut(READY_PATIENCE.as_secs()));
            }
            tokio::time::sleep(READY_PERIOD).await;
        }
        if self == Self::One {
            // A stack past one machine has always two of them.
            let stopped = ask(program, folder, &["stop", "order-service-2"]).await?;
            if !stopped.status.success() {
                return Err(Error::Server(end_of(&stopped.stderr)));
            }
        }
        let (rate, duration, wait) = (rush.per_s.to_string(), format!("{}s", rush.duration_s), format!("{DRAIN_S}s"));
        let load = ["load", "--rate", &rate, "--duration", &duration, "--wait", &wait];
        let output = ask(program, folder, &[&load[..], &["--mix", "paid=100", "--output", "json"]].concat()).await?;
        if !output.status.success() {
            return Err(Error::Server(format!("the books do not balance: {}", end_of(&output.stderr))));
        }
        sample(&output.stdout)
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Machine => "machine",
            Self::One => "scaled-1",
            Self::Two => "scaled-2",
        })
    }
}

/// What tells a stack where to listen, each a port above the one before. The servers below a stack past one machine need
/// more than one port, and come last.
const VARIABLES: [&str; 8] = [
    "BROKER_LISTEN",
    "ACQUIRER_LISTEN",
    "ORDER_LISTEN",
    "PAYMENT_LISTEN",
    "NOTIFICATION_LISTEN",
    "INVOICE_LISTEN",
    "POSTGRES_LISTEN",
    "NATS_LISTEN",
];
/// Which of them is order-service's: the part that starts after those that it needs.
const ORDER_AT: u16 = 2;

fn address(first: u16, at: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, first + at))
}

/// The first of so many ports that nobody listens on.
fn free_block() -> Outcome<u16> {
    let blocks = (0..BLOCKS).map(|block| PORTS_FROM + block * PORTS);
    let is_free = |first: &u16| (0..PORTS).all(|at| TcpListener::bind(address(*first, at)).is_ok());
    blocks.into_iter().find(is_free).ok_or_else(|| Error::Start("no free ports for a stack".to_owned()))
}

/// The program: the one that `BENCH_ORDERFLOW` names, the release build of this repository, or one in `PATH`.
fn orderflow() -> Outcome<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/orderflow");
    if std::env::var_os("BENCH_ORDERFLOW").is_none() && built.is_file() {
        return Ok(built);
    }
    program("orderflow", "BENCH_ORDERFLOW", "cargo build --release; BENCH_ORDERFLOW names the file")
}

async fn ask(program: &Path, folder: &Path, arguments: &[&str]) -> Outcome<Output> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--data-dir").arg(folder).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.map_err(Error::server)?.map_err(Error::from)
}

fn sample(json: &[u8]) -> Outcome<Sample> {
    let load: Load = serde_json::from_slice(json).map_err(Error::server)?;
    let drain_s = load.drain_s.ok_or(Error::TimeOut(DRAIN_S))?;
    let Load { accepted_per_s, paid_per_s, offered_for_s, .. } = load;
    Ok(Sample { accepted_per_s, paid_per_s, balanced_per_s: load.accepted as f64 / (offered_for_s + drain_s) })
}

fn end_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_when_nothing_waits_any_more() {
        let json =
            br#"{"accepted": 900, "accepted_per_s": 300.0, "offered_for_s": 3.0, "paid_per_s": 200.0, "drain_s": 6.0,
            "refused": 0}"#;
        let expected = Sample { accepted_per_s: 300.0, paid_per_s: 200.0, balanced_per_s: 100.0 };
        assert_eq!(sample(json).unwrap(), expected);
    }

    #[test]
    fn a_stack_that_does_not_get_done_has_no_figures() {
        let json =
            br#"{"accepted": 9, "accepted_per_s": 3.0, "offered_for_s": 3.0, "paid_per_s": 1.0, "drain_s": null}"#;
        assert!(matches!(sample(json), Err(Error::TimeOut(DRAIN_S))));
    }

    #[test]
    fn a_table_has_a_row_for_each_stack_and_failures_are_told() {
        let sample = |rate: f64| Sample { accepted_per_s: rate, paid_per_s: rate / 2.0, balanced_per_s: rate / 4.0 };
        let mut results = Results::default();
        assert_eq!(results.table(), "");
        results.add(Setup::One, Ok(sample(900.0)));
        results.add(Setup::One, Ok(sample(1_100.0)));
        results.add(Setup::Two, Err(Error::TimeOut(9)));
        assert!(
            results.table().ends_with("| scaled-1 | 1.00 k ±10% | 500 ±10% | 250 ±10% |\n\n"),
            "{}",
            results.table()
        );
        assert_eq!(results.failures().collect::<Vec<_>>(), ["orders, scaled-2: not done within 9 s"]);
        assert!(results.is_hopeless(Setup::Two) && !results.is_hopeless(Setup::One));
    }

    #[test]
    fn instances_of_parts_do_not_meet_in_a_block_of_ports() {
        let last = u16::try_from(VARIABLES.len()).unwrap();
        assert!(last < 10, "instances are ten ports apart");
    }
}
