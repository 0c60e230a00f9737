//! All that a load has shown, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Kind, Plan, Spread, Tally};
use crate::audit::Verdict;

/// What is known of the orders that were paid.
#[derive(Debug, Default)]
pub(crate) struct Paid {
    pub(crate) spread: Spread,
    pub(crate) per_s: f64,
}

/// What `orderflow load` tells. Units are in the names.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    rate_per_s: f64,
    duration_s: f64,
    customers: u32,
    mix: String,
    seed: u64,
    synchronous: bool,
    offered: u64,
    offered_for_s: f64,
    accepted: u64,
    accepted_per_s: f64,
    repeated: u64,
    accepted_kinds: BTreeMap<Kind, u64>,
    refused: u64,
    refused_reasons: BTreeMap<&'static str, u64>,
    cancels_failed: u64,
    accept: Spread,
    placed_to_paid: Spread,
    /// From when the first of them was due until the last one was paid. For scripts that look for the most that goes.
    paid_per_s: f64,
    generator_late: Spread,
    /// From the last answer until nothing waited any more; absent when that did not happen in time.
    drain_s: Option<f64>,
    audit: serde_json::Value,
    #[serde(skip)]
    verdict: Result<Verdict, String>,
}

impl Summary {
    pub(crate) fn new(
        plan: &Plan,
        tally: &Tally,
        paid: Paid,
        drain: Option<Duration>,
        verdict: Result<Verdict, String>,
    ) -> Self {
        let offered_for_s = tally.offered_for.as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let accepted_per_s = if offered_for_s > 0.0 { tally.accepted as f64 / offered_for_s } else { 0.0 };
        let audit = match &verdict {
            Ok(verdict) => verdict.json(),
            Err(error) => serde_json::json!({ "balanced": false, "error": error }),
        };
        Self {
            rate_per_s: plan.rate_per_s,
            duration_s: plan.duration.unwrap_or_default().as_secs_f64(),
            customers: plan.customers,
            mix: plan.mix.to_string(),
            seed: plan.seed,
            synchronous: plan.synchronous,
            offered: tally.offered,
            offered_for_s,
            accepted: tally.accepted,
            accepted_per_s,
            repeated: tally.repeated,
            accepted_kinds: tally.kinds.clone(),
            refused: tally.refusals(),
            refused_reasons: tally.refused.clone(),
            cancels_failed: tally.cancels_failed,
            accept: tally.accept.spread(),
            placed_to_paid: paid.spread,
            paid_per_s: paid.per_s,
            generator_late: tally.late.spread(),
            drain_s: drain.map(|drain| drain.as_secs_f64()),
            audit,
            verdict,
        }
    }

    /// Whether the books of the stack balance.
    pub(crate) fn is_balanced(&self) -> bool {
        self.verdict.as_ref().is_ok_and(Verdict::is_balanced)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let Self { rate_per_s, duration_s, customers, mix, seed, .. } = self;
        let mode = if self.synchronous { ", synchronous" } else { "" };
        let _ = writeln!(
            text,
            "{rate_per_s} orders per second for {duration_s:.0} s, {customers} customers, {mix}, seed {seed}{mode}\n"
        );
        let _ = writeln!(text, "{:<20}{:>9}", "orders offered", self.offered);
        let _ = writeln!(text, "{:<20}{:>9}  {:.1} per second", "  accepted", self.accepted, self.accepted_per_s);
        let _ = writeln!(text, "{:<20}{:>9}", "  refused", self.refused);
        for (reason, count) in &self.refused_reasons {
            let _ = writeln!(text, "{:<20}{count:>9}", format!("    {reason}"));
        }
        if self.cancels_failed > 0 {
            let _ = writeln!(text, "{:<20}{:>9}", "cancels in vain", self.cancels_failed);
        }
        let _ = writeln!(
            text,
            "\n{:<20}{:>9}{:>10}{:>10}{:>10}{:>10}",
            "milliseconds", "p50", "p90", "p99", "p99.9", "max"
        );
        for (what, spread) in [
            ("accept", &self.accept),
            ("placed to paid", &self.placed_to_paid),
            ("generator late", &self.generator_late),
        ] {
            let _ = writeln!(text, "{what:<20}{}", figures(spread));
        }
        match self.drain_s {
            Some(drain_s) => {
                let _ = writeln!(text, "\nnothing waited any more {drain_s:.1} s after the last answer");
            }
            None => text.push_str("\nwork still waits: give it longer with --wait\n"),
        }
        if self.repeated > 0 {
            let _ = writeln!(
                text,
                "{} orders were there before, from a load of the same seed: they were found, not made again",
                self.repeated
            );
        }
        match &self.verdict {
            Ok(verdict) => {
                let _ = write!(text, "\nthe books of the whole stack:\n\n{}", verdict.table());
            }
            Err(error) => {
                let _ = write!(text, "\nthe books can't be read: {error}");
            }
        }
        text
    }
}

fn figures(spread: &Spread) -> String {
    if spread.count == 0 {
        return format!("{:>9}{:>10}{:>10}{:>10}{:>10}", "-", "-", "-", "-", "-");
    }
    let Spread { p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms, .. } = spread;
    format!("{p50_ms:>9.1}{p90_ms:>10.1}{p99_ms:>10.1}{p99_9_ms:>10.1}{max_ms:>10.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Mismatch;
    use crate::load::{Mix, Outcome, Refusal};

    fn plan() -> Plan {
        Plan {
            rate_per_s: 500.0,
            duration: Some(Duration::from_secs(30)),
            customers: 1_000,
            mix: Mix::default(),
            seed: 42,
            synchronous: false,
            patience: Duration::ZERO,
        }
    }

    fn tally() -> Tally {
        let mut tally = Tally { offered_for: Duration::from_secs(2), ..Tally::default() };
        let (order, refusal) = (Default::default(), Refusal::InFlight);
        for number in 0..10 {
            tally.add(&Outcome {
                number,
                kind: Kind::Paid,
                intended: std::time::SystemTime::UNIX_EPOCH,
                late: Duration::from_millis(1),
                took: Duration::from_millis(20),
                repeated: number == 0,
                result: if number < 8 { Ok(&order) } else { Err(&refusal) },
            });
        }
        tally
    }

    #[test]
    fn the_table_and_the_json_tell_the_same() {
        let spread = Spread { count: 8, p50_ms: 120.0, p90_ms: 130.0, p99_ms: 140.0, p99_9_ms: 150.0, max_ms: 160.0 };
        let drain = Some(Duration::from_millis(1_250));
        let summary = Summary::new(&plan(), &tally(), Paid { spread, per_s: 2.5 }, drain, Ok(Verdict::default()));
        let table = summary.table();
        for line in [
            "500 orders per second for 30 s, 1000 customers, paid=90,declined=5,cancelled=5, seed 42",
            "orders offered             10",
            "  accepted                  8  4.0 per second",
            "  refused                   2",
            "    not_sent                2",
            "placed to paid          120.0     130.0     140.0     150.0     160.0",
            "nothing waited any more 1.2 s after the last answer",
            "1 orders were there before, from a load of the same seed: they were found, not made again",
            "the books balance",
        ] {
            assert!(table.lines().any(|found| found == line), "{line:?} is not in\n{table}");
        }
        let json = summary.json();
        assert_eq!((&json["offered"], &json["accepted"], &json["refused"]), (&10.into(), &8.into(), &2.into()));
        assert_eq!(json["refused_reasons"]["not_sent"], 2);
        assert_eq!((&json["placed_to_paid"]["p99_9_ms"], &json["paid_per_s"]), (&150.0.into(), &2.5.into()));
        assert_eq!((&json["drain_s"], &json["audit"]["balanced"]), (&1.25.into(), &true.into()));
        assert_eq!((&json["seed"], &json["accepted_kinds"]["paid"]), (&42.into(), &8.into()));
        assert!(summary.is_balanced());
    }

    #[test]
    fn books_that_do_not_balance_or_cannot_be_read_are_no_balance() {
        let verdict = Verdict {
            mismatches: vec![Mismatch::Queued { queue: "payment-service.order-events".to_owned(), messages: 3 }],
            ..Verdict::default()
        };
        let wrong = Summary::new(&plan(), &tally(), Paid::default(), None, Ok(verdict));
        assert!(!wrong.is_balanced());
        assert!(wrong.table().contains("3 message(s) wait") && wrong.table().contains("--wait"), "{}", wrong.table());
        assert_eq!(wrong.json()["audit"]["balanced"], false);
        let unread = Summary::new(&plan(), &tally(), Paid::default(), None, Err("nobody is there".to_owned()));
        assert!(!unread.is_balanced() && unread.table().contains("can't be read: nobody is there"));
        assert_eq!((&unread.json()["drain_s"], &unread.json()["audit"]["balanced"]), (&().into(), &false.into()));
    }
}
