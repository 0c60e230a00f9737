//! `orderflow compare`: the same customers and the same outage of payment, once with orders that are charged within the
//! request and once with orders that wait in a queue.
//!
//! A customer who is refused goes away, in both.

mod measure;
mod present;
mod result;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use self::result::{Lost, Outcome, Phase, PhaseName};
use crate::load::{self, Kind, Mix, Plan};
use crate::terminal::Progress;
use crate::up::Signals;
use crate::{audit, report, up};

/// The shortest span of a comparison, in milliseconds.
pub const SPAN_MS_MIN: u64 = 1_000;
/// The longest span of a comparison, in milliseconds.
pub const SPAN_MS_MAX: u64 = 600_000;
/// The most orders of one run.
pub const ORDERS_MAX: f64 = 100_000.0;
/// Over how many customers the orders are spread.
const CUSTOMERS: u32 = 1_000;

/// Which outage, and which load.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// How long payment-service is down
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub outage: Duration,
    /// How long everything works before that
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub before: Duration,
    /// How long orders go on coming after it
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub after: Duration,
    /// Orders per second on average
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// What the orders and their times follow from
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Write a report with charts into this file, as HTML
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// How an order is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Within the request.
    Synchronous,
    /// Through a queue.
    Asynchronous,
}

/// What both runs have shown.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Orders per second that were to be placed.
    pub rate_per_s: f64,
    /// What the orders follow from.
    pub seed: u64,
    /// How long payment-service was to be down, in seconds.
    pub outage_s: f64,
    /// The synchronous run, then the asynchronous one.
    pub outcomes: [Outcome; 2],
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A span is out of its limits.
    #[error("{flag} is not within {SPAN_MS_MIN} to {SPAN_MS_MAX} ms")]
    Span {
        /// Which one.
        flag: &'static str,
    },
    /// More orders than a run may have.
    #[error("{0:.0} orders are more than {ORDERS_MAX:.0}: lower --rate, or shorten the run")]
    Orders(f64),
    /// The load is none.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// A stack could not be started, or not be hurt.
    #[error(transparent)]
    Lab(#[from] up::Error),
    /// A stack could not be asked.
    #[error(transparent)]
    Ask(#[from] audit::Error),
    /// Signals can't be listened to.
    #[error("ctrl-c can't be caught: {0}")]
    Signals(#[source] io::Error),
    /// Somebody ended it.
    #[error("the comparison was broken off")]
    Interrupted,
    /// A stack's folder could not be removed.
    #[error("the folder of a stack can't be removed: {0}")]
    Folder(#[source] io::Error),
    /// The report can't be written.
    #[error(transparent)]
    Report(#[from] report::Error),
}

impl Config {
    fn plan(&self, mode: Mode) -> Result<Plan, Error> {
        for (flag, span) in [("--outage", self.outage), ("--before", self.before), ("--after", self.after)] {
            if !(Duration::from_millis(SPAN_MS_MIN)..=Duration::from_millis(SPAN_MS_MAX)).contains(&span) {
                return Err(Error::Span { flag });
            }
        }
        let duration = self.before + self.outage + self.after;
        let plan = Plan {
            rate_per_s: self.rate,
            duration: Some(duration),
            customers: CUSTOMERS,
            mix: Mix::only(Kind::Paid),
            seed: self.seed,
            synchronous: mode == Mode::Synchronous,
            patience: Duration::ZERO,
        };
        plan.check()?;
        let orders = self.rate * duration.as_secs_f64();
        if orders > ORDERS_MAX { Err(Error::Orders(orders)) } else { Ok(plan) }
    }
}

impl Mode {
    /// Both, in the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Synchronous, Self::Asynchronous];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Asynchronous => "asynchronous",
        }
    }
}

impl Comparison {
    /// Whether the books of both runs balance.
    pub fn is_balanced(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.balanced)
    }
}

/// Runs both, each in a stack of its own, and writes the report if one is wanted. Whether that could be written comes
/// second: what was found is told all the same. ctrl-c ends everything, the stack that runs included.
pub async fn run(config: &Config) -> Result<(Comparison, Result<(), report::Error>), Error> {
    let plans = [config.plan(Mode::Synchronous)?, config.plan(Mode::Asynchronous)?];
    config.report.as_deref().map_or(Ok(()), report::check)?;
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let progress = Progress::new(None);
    let [synchronous, asynchronous] = plans;
    let synchronous = measure::run(Mode::Synchronous, &synchronous, config, &progress, &mut signals).await?;
    let asynchronous = measure::run(Mode::Asynchronous, &asynchronous, config, &progress, &mut signals).await?;
    progress.done();
    let comparison = Comparison {
        rate_per_s: config.rate,
        seed: config.seed,
        outage_s: config.outage.as_secs_f64(),
        outcomes: [Outcome::of(&synchronous), Outcome::of(&asynchronous)],
    };
    let written = match &config.report {
        Some(path) => present::report(path, &comparison, [&synchronous, &asynchronous]),
        None => Ok(()),
    };
    Ok((comparison, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let second = Duration::from_secs(1);
        Config { outage: second, before: second, after: second, rate: 50.0, seed: 42, report: None }
    }

    #[test]
    fn both_runs_get_the_same_orders_at_the_same_times() {
        let [synchronous, asynchronous] = Mode::ALL.map(|mode| config().plan(mode).unwrap());
        let [synchronous, asynchronous] = [synchronous, asynchronous].map(|plan| plan.arrivals().collect::<Vec<_>>());
        assert_eq!(synchronous.len(), asynchronous.len());
        for (one, other) in synchronous.iter().zip(&asynchronous) {
            assert_eq!((one.at, &one.request.lines), (other.at, &other.request.lines));
        }
    }

    #[test]
    fn spans_and_orders_have_limits() {
        let (least, most) = (Duration::from_millis(SPAN_MS_MIN), Duration::from_millis(SPAN_MS_MAX));
        let millisecond = Duration::from_millis(1);
        let plan = |config: Config| config.plan(Mode::Synchronous);
        assert!(plan(Config { outage: least, ..config() }).is_ok());
        assert!(plan(Config { after: most, ..config() }).is_ok());
        for (bad, flag) in [
            (Config { outage: least - millisecond, ..config() }, "--outage"),
            (Config { before: most + millisecond, ..config() }, "--before"),
            (Config { after: Duration::ZERO, ..config() }, "--after"),
        ] {
            assert!(plan(bad).unwrap_err().to_string().starts_with(flag));
        }
        assert!(matches!(plan(Config { after: most, rate: 500.0, ..config() }), Err(Error::Orders(_))));
        assert!(matches!(plan(Config { rate: 0.0, ..config() }), Err(Error::Load(_))));
    }
}
