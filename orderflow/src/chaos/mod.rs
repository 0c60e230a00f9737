//! `orderflow chaos`: a stack of its own under load, in which everything goes wrong that a seed says, and a verdict.
//!
//! - [`Schedule`] says what goes wrong: a pure function of the seed.
//! - The torture does it, a witness listens to every event, the diary keeps what happens.
//! - After the last fault everything has to come to its end: the books balance, every order that a customer was told
//!   is accepted is there, every event was told, in order, and not again after its ack, every unreadable message was set
//!   aside by everybody who got it, and no process ended without being asked to.

mod account;
mod diary;
mod poison;
mod run;
mod schedule;
mod settle;
mod torture;
mod witness;

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use self::account::Account;
pub use self::diary::{Happening, Sample};
use self::run::Task;
pub use self::schedule::{Fault, Role, Schedule, Settings, What};
use crate::lab::LAB_INSTANCES_MAX;
use crate::part::Part;
use crate::terminal::say;
use crate::up::{Scale, Signals};
use crate::{audit, report, up};

/// The shortest run: in a shorter one there is no time to kill every part.
const DURATION_MIN: Duration = Duration::from_secs(3);
/// The longest run.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// More orders per second than a part that was down for seconds can catch up with.
const RATE_PER_S_MAX: f64 = 200.0;

/// What `orderflow chaos` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The same seed, duration and instances give the same schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run many seeds in turn, such as 1..=50, and print a line for each
    #[arg(long, value_name = "FIRST..=LAST", value_parser = seeds, conflicts_with_all = ["seed", "report", "print_schedule"])]
    seeds: Option<RangeInclusive<u64>>,
    /// How long orders come in and things go wrong
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Orders per second, on average
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    rate: f64,
    /// Run several of a part, such as payment-service=2
    #[arg(long, value_name = "PART=COUNT", value_delimiter = ',', value_parser = instances)]
    instances: Vec<(Part, u16)>,
    /// Whether it goes past one machine
    #[command(flatten)]
    scale: Scale,
    /// Write a page with charts, the history and the verdict
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep the folder with data and logs, whatever the verdict
    #[arg(long)]
    keep: bool,
    /// Print what would go wrong, and do nothing
    #[arg(long)]
    print_schedule: bool,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stack does not start.
    #[error(transparent)]
    Up(#[from] up::Error),
    /// The broker takes no witness.
    #[error(transparent)]
    Witness(#[from] audit::Error),
    /// Signals can't be listened to.
    #[error("ctrl-c can't be caught: {0}")]
    Signals(#[source] io::Error),
    /// Somebody ended it.
    #[error("the run was broken off")]
    Interrupted,
    /// The folder of the stack can't be removed.
    #[error("the stack's folder can't be removed: {0}")]
    Folder(#[source] io::Error),
    /// The report can't be written.
    #[error(transparent)]
    Report(#[from] report::Error),
    /// Something is wrong.
    #[error("{0} of {1} run(s) ended badly")]
    Bad(usize, usize),
}

/// Runs what the configuration says. An error also means that a run ended badly.
pub async fn execute(config: Config, json: bool) -> Result<(), Error> {
    if config.print_schedule {
        say(&config.task(config.seed).schedule().to_string());
        return Ok(());
    }
    let seeds = config.seeds.clone().unwrap_or(config.seed..=config.seed);
    let is_one = config.seeds.is_none();
    config.report.as_deref().map_or(Ok(()), report::check)?;
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let mut accounts = Vec::new();
    for seed in seeds {
        let account = config.task(seed).run(&mut signals).await?;
        if json {
            say(&serde_json::json!(account).to_string());
        } else {
            say(&if is_one { account.text() } else { account.line() });
        }
        if let Some(path) = &config.report {
            report::write(path, &format!("Chaos, seed {seed}"), include_str!("report.js"), &account)?;
        }
        if let Some(folder) = &account.folder {
            eprintln!("the data and logs of seed {seed} are in {}", folder.display());
        }
        accounts.push(account);
    }
    let bad = accounts.iter().filter(|account| !account.is_good()).count();
    if !is_one && !json {
        say(&sum(&accounts));
    }
    if bad == 0 { Ok(()) } else { Err(Error::Bad(bad, accounts.len())) }
}

fn sum(accounts: &[Account]) -> String {
    let total = |count: fn(&Account) -> usize| accounts.iter().map(count).sum::<usize>();
    format!(
        "{} runs, {} good: {} faults, {} kills, {} orders accepted, {} paid",
        accounts.len(),
        total(|account| usize::from(account.is_good())),
        total(|account| account.faults),
        total(|account| account.kills),
        total(|account| account.accepted),
        total(|account| account.sums.paid),
    )
}

impl Config {
    fn task(&self, seed: u64) -> Task {
        Task {
            seed,
            duration: self.duration,
            rate_per_s: self.rate,
            instances: self.instances.clone(),
            scale: self.scale.clone(),
            keep: self.keep,
        }
    }
}

impl Task {
    /// The command that repeats the run.
    fn command(&self) -> String {
        let duration = humantime::format_duration(self.duration);
        let mut command =
            format!("orderflow chaos --seed {} --duration '{duration}' --rate {}", self.seed, self.rate_per_s);
        for (part, count) in &self.instances {
            command += &format!(" --instances {part}={count}");
        }
        if self.scale.scale {
            command += " --scale";
        }
        command
    }
}

/// `1..=50`
fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let range = text.split_once("..=").and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    range.filter(|range| !range.is_empty()).ok_or_else(|| format!("`{text}` is not such as 1..=50"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_within = (DURATION_MIN..=DURATION_MAX).contains(&duration);
    is_within.then_some(duration).ok_or_else(|| {
        format!(
            "a run takes {} to {}",
            humantime::format_duration(DURATION_MIN),
            humantime::format_duration(DURATION_MAX)
        )
    })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1.0..=RATE_PER_S_MAX).contains(rate));
    rate.ok_or_else(|| format!("1 to {RATE_PER_S_MAX} orders per second"))
}

fn instances(text: &str) -> Result<(Part, u16), String> {
    let (part, count) = up::several(text)?;
    if count > LAB_INSTANCES_MAX {
        return Err(format!("a part can run 1 to {LAB_INSTANCES_MAX} times here"));
    }
    Ok((part, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_has_both_ends() {
        assert_eq!(seeds("1..=50"), Ok(1..=50));
        for text in ["", "1", "1..50", "5..=1", "a..=b"] {
            assert!(seeds(text).unwrap_err().contains("1..=50"), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_limits_is_refused() {
        assert_eq!(duration("3s"), Ok(DURATION_MIN));
        for text in ["2999ms", "3601s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(rate("200"), Ok(200.0));
        for text in ["0.9", "201", "NaN", "many"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(instances("payment-service=5"), Ok((Part::PaymentService, 5)));
        for text in ["payment-service=6", "broker=2"] {
            assert!(instances(text).is_err(), "{text}");
        }
    }
}
