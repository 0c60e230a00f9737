//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::aims;
use crate::cases::{BYTES_DEFAULT, CASES, Case};
use crate::chart::{self, Bar, Group};
use crate::error::{Error, Outcome};
use crate::markdown;
use crate::orders::{self, SETUPS};
use crate::run::{Backlog, Sample};
use crate::sides::{SIDES, Side};
use crate::stats::Summary;

/// What the chart shows of a whole run; all cases would make it too long for a page.
const DRAWN: [Case; 4] = [
    Case::Publish { batch: 1, bytes: BYTES_DEFAULT },
    Case::Publish { batch: 100, bytes: BYTES_DEFAULT },
    Case::Deliver,
    Case::Together,
];

/// All samples, and why there are none where there are none.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Case, Side), Vec<Sample>>,
    failures: BTreeMap<(Case, Side), String>,
    missing: BTreeMap<Side, String>,
    /// Those of the order flow.
    pub(crate) orders: orders::Results,
}

/// Names all cases and sides.
pub(crate) fn list() {
    println!("cases:");
    CASES.iter().for_each(|case| println!("  {:<20} {}", case.to_string(), case.title()));
    println!("sides, and what an acknowledged message has survived:");
    SIDES.iter().for_each(|side| println!("  {side:<20} {}", side.promise()));
    println!("{}, a case of its own, by stack:", orders::NAME);
    SETUPS.iter().for_each(|setup| println!("  {setup:<20} {}", setup.title()));
}

impl Results {
    /// Takes the outcome of one run.
    pub(crate) fn add(&mut self, case: Case, side: Side, outcome: Outcome<Sample>) {
        match outcome {
            Ok(sample) => self.samples.entry((case, side)).or_default().push(sample),
            Err(error @ Error::Missing { .. }) => drop(self.missing.insert(side, error.to_string())),
            Err(error) => drop(self.failures.insert((case, side), error.to_string())),
        }
    }

    /// Whether another round would show nothing new.
    pub(crate) fn is_hopeless(&self, case: Case, side: Side) -> bool {
        self.missing.contains_key(&side) || self.failures.contains_key(&(case, side))
    }

    /// Whether anything was measured of it.
    pub(crate) fn has(&self, case: Case) -> bool {
        self.samples.keys().any(|(of, _)| *of == case)
    }

    /// Of a side in a case, what `value` finds in its samples.
    pub(crate) fn summary(&self, case: Case, side: Side, value: impl Fn(&Sample) -> Option<f64>) -> Option<Summary> {
        Summary::of(self.samples.get(&(case, side))?.iter().filter_map(value))
    }

    /// Prints a table for each case.
    pub(crate) fn print(&self) {
        for case in CASES {
            if !self.samples.keys().chain(self.failures.keys()).any(|(of, _)| *of == case) {
                continue;
            }
            println!("\n{case}: {}", case.title());
            if case.is_latency() {
                println!("  {:<16} {:>9} {:>9} {:>9}   µs; {CPU_TITLE}", "side", "p50", "p99", "p99.9");
            } else {
                println!("  {:<16} {:>11} {:>7} {:>9}   {CPU_TITLE}", "side", "messages/s", "spread", "of broker");
            }
            SIDES.iter().for_each(|side| self.print_line(case, *side));
        }
        if self.has(Case::Backlog) {
            println!("\nthe deep queue:");
            SIDES.iter().for_each(|side| self.print_backlog(*side));
        }
        let aims = aims::reached(self);
        if !aims.is_empty() {
            println!("\naims:");
            aims.iter().for_each(|aim| println!("  {aim}"));
        }
        println!("\nwhat an acknowledged message has survived:");
        SIDES.iter().for_each(|side| println!("  {side:<16} {}", side.promise()));
        self.missing.iter().for_each(|(side, why)| println!("missing: {side}: {why}"));
        self.orders.failures().for_each(|failure| println!("failed: {failure}"));
    }

    fn print_line(&self, case: Case, side: Side) {
        if let Some(why) = self.failures.get(&(case, side)) {
            println!("  {side:<16} - {why}");
        }
        let Some(rate) = self.summary(case, side, |sample| Some(sample.per_s)) else { return };
        let of = |value: fn(&Sample) -> f64| {
            self.summary(case, side, |sample| Some(value(sample))).map_or(0.0, |summary| summary.median)
        };
        let (server, client) = (of(|sample| sample.server_cpu_us), of(|sample| sample.client_cpu_us));
        let peak = of(|sample| sample.server_peak_bytes as f64) / f64::from(1 << 20);
        let usage = format!("{server:>8.2} {client:>8.2} {peak:>7.0}");
        if case.is_latency() {
            let at = |value: fn(&crate::run::Latency) -> u64| {
                let of = |sample: &Sample| sample.latency.as_ref().map(|latency| value(latency) as f64);
                self.summary(case, side, of).map_or(0.0, |summary| summary.median)
            };
            let (p50, p99, p999) =
                (at(|latency| latency.p50_us), at(|latency| latency.p99_us), at(|latency| latency.p999_us));
            println!("  {side:<16} {p50:>9.0} {p99:>9.0} {p999:>9.0}       {usage}");
            return;
        }
        let broker = self.summary(case, Side::Broker, |sample| Some(sample.per_s));
        let ratio = broker.map_or("-".to_owned(), |broker| format!("{:.2}", rate.median / broker.median));
        println!("  {side:<16} {:>11.0} {:>6.0}% {ratio:>9}   {usage}", rate.median, rate.spread_percent());
    }

    fn print_backlog(&self, side: Side) {
        let of = |value: fn(&Backlog) -> u64| {
            let of = |sample: &Sample| sample.backlog.as_ref().map(|backlog| value(backlog) as f64);
            self.summary(Case::Backlog, side, of).map(|summary| summary.median)
        };
        let (messages, restart_ms) = (of(|backlog| backlog.messages), of(|backlog| backlog.restart_ms));
        if let (Some(messages), Some(restart_ms)) = (messages, restart_ms) {
            println!("  {side:<16} {messages:>11.0} messages waited; accepts again {restart_ms:.0} ms after a kill");
        }
    }

    /// Writes the samples into a folder.
    pub(crate) fn write(&self, dir: &Path) -> Outcome {
        fs::create_dir_all(dir)?;
        let samples: Vec<_> = self
            .samples
            .iter()
            .map(|((case, side), samples)| {
                let rate = Summary::of(samples.iter().map(|sample| sample.per_s));
                json!({ "case": case.to_string(), "side": side.to_string(), "messages_per_s": rate, "samples": samples })
            })
            .collect();
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|((case, side), why)| json!({ "case": case.to_string(), "side": side.to_string(), "why": why }))
            .collect();
        let promises: BTreeMap<_, _> = SIDES.iter().map(|side| (side.to_string(), side.promise())).collect();
        let missing: BTreeMap<_, _> = self.missing.iter().map(|(side, why)| (side.to_string(), why)).collect();
        let all = json!({ "results": samples, "failures": failures, "missing": missing, "promises": promises,
            "orders": self.orders.json() });
        let text = serde_json::to_string_pretty(&all).map_err(std::io::Error::from)?;
        fs::write(dir.join("bench.json"), text + "\n")?;
        fs::write(dir.join("bench.md"), markdown::tables(self))?;
        Ok(fs::write(dir.join("bench.svg"), chart::draw(&self.groups()))?)
    }

    /// What is drawn: the rates.
    fn groups(&self) -> Vec<Group> {
        let bar = |case: Case, side: Side| {
            let Summary { median, least, most } = self.summary(case, side, |sample| Some(sample.per_s))?;
            Some(Bar { name: side.to_string(), kind: side.kind(), median, least, most })
        };
        let group = |case: Case| {
            let bars: Vec<Bar> = SIDES.iter().filter_map(|side| bar(case, *side)).collect();
            (!bars.is_empty()).then(|| Group { title: format!("{case}: {}", case.title()), bars })
        };
        let drawn = if DRAWN.iter().any(|case| self.has(*case)) { &DRAWN[..] } else { &CASES[..] };
        drawn.iter().copied().filter(|case| !case.is_latency()).filter_map(group).collect()
    }
}

/// The columns that are the same for all cases.
const CPU_TITLE: &str = "CPU µs/message: server, client; peak MiB";
