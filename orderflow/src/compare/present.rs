//! The comparison for people: a table, three sentences, and a report with the curves.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::measure::Recording;
use super::{Comparison, Mode, Outcome, Phase, PhaseName};
use crate::load::after;
use crate::report;

const SCRIPT: &str = include_str!("report.js");
const TITLE: &str = "The same outage, with and without a queue";
/// How wide one step of a curve is, in milliseconds.
const STEP_MS: u64 = 1_000;

/// A row of the table: its name, and what it tells of a phase.
type Row = (&'static str, fn(&Phase) -> String);

const ROWS: [Row; 9] = [
    ("orders offered", |phase| phase.offered.to_string()),
    ("accepted", |phase| phase.accepted.to_string()),
    ("refused", |phase| phase.refused.to_string()),
    ("answer p50 ms", |phase| ms(phase.answer.count, phase.answer.p50_ms)),
    ("answer p99 ms", |phase| ms(phase.answer.count, phase.answer.p99_ms)),
    ("answer max ms", |phase| ms(phase.answer.count, phase.answer.max_ms)),
    ("paid after p50 ms", |phase| ms(phase.placed_to_paid.count, phase.placed_to_paid.p50_ms)),
    ("paid after p99 ms", |phase| ms(phase.placed_to_paid.count, phase.placed_to_paid.p99_ms)),
    ("paid after max ms", |phase| ms(phase.placed_to_paid.count, phase.placed_to_paid.max_ms)),
];

/// A row of the table about a whole run.
type Sum = (&'static str, fn(&Outcome) -> String);

const SUMS: [Sum; 4] = [
    ("lost sales", |outcome| format!("{} orders, {}", outcome.lost.orders, euro(outcome.lost.eur_minor))),
    ("payment was away", |outcome| format!("{:.1} s", outcome.outage_s)),
    ("caught up after", |outcome| match outcome.waited {
        0 => "nothing had waited".to_owned(),
        waited => format!("{:.1} s ({waited} orders)", outcome.drain_s),
    }),
    ("books", |outcome| match outcome.mismatches.len() {
        0 => "balance".to_owned(),
        count => format!("{count} mismatch(es)"),
    }),
];

impl Comparison {
    /// Both runs side by side, and what is to be seen in them.
    pub fn table(&self) -> String {
        let mut text = format!("{:<19}", "");
        for mode in Mode::ALL {
            let _ = write!(text, "  {:^29}", mode.name());
        }
        let _ = write!(text, "\n{:<19}", "");
        for phase in Mode::ALL.iter().flat_map(|_| PhaseName::ALL) {
            let _ = write!(text, "{:>10}", phase.name());
            if phase == PhaseName::After {
                text.push(' ');
            }
        }
        for (name, tell) in ROWS {
            let _ = write!(text, "\n{name:<19}");
            for outcome in &self.outcomes {
                for phase in &outcome.phases {
                    let _ = write!(text, "{:>10}", tell(phase));
                }
                text.push(' ');
            }
        }
        text.push('\n');
        for (name, tell) in SUMS {
            let [synchronous, asynchronous] = &self.outcomes;
            let _ = write!(text, "\n{name:<19}{:>30} {:>30}", tell(synchronous), tell(asynchronous));
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        format!("{}\n\n{}", lines.join("\n"), self.sentences().join("\n"))
    }

    /// All figures, and what is to be seen in them.
    pub fn json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        json["sentences"] = self.sentences().to_vec().into();
        json["balanced"] = self.is_balanced().into();
        json
    }

    /// What is to be seen, in three sentences.
    pub fn sentences(&self) -> [String; 3] {
        let [synchronous, asynchronous] = &self.outcomes;
        let during = |outcome: &Outcome| outcome.phase(PhaseName::During).clone();
        let (alone, queued) = (during(synchronous), during(asynchronous));
        let sales = format!(
            "While payment was away, orders that are charged within the request were refused {} times out of {}, and sales \
             of {} were lost in the whole run; with a queue {} of {} were accepted, and {} was lost.",
            alone.refused,
            alone.offered,
            euro(synchronous.lost.eur_minor),
            queued.accepted,
            queued.offered,
            if asynchronous.lost.orders == 0 { "nothing".to_owned() } else { euro(asynchronous.lost.eur_minor) },
        );
        let p99 = |outcome: &Outcome, phase| outcome.phase(phase).answer.p99_ms;
        let answers = format!(
            "Before the outage, 99 of 100 customers had their answer within {:.0} ms when it waits for the card and within \
             {:.0} ms when it does not; during the outage, 99 of 100 of the former were refused within {:.0} ms, and \
             99 of 100 of the latter were accepted within {:.0} ms.",
            p99(synchronous, PhaseName::Before),
            p99(asynchronous, PhaseName::Before),
            p99(synchronous, PhaseName::During),
            p99(asynchronous, PhaseName::During),
        );
        let books = if self.is_balanced() {
            "the books of both runs balance: no order was lost, and nobody was charged twice"
        } else {
            "the books do not balance, which they must"
        };
        let caught_up = format!(
            "What the queue costs is time: {} orders were paid only when payment was back, the last of them {:.1} s after \
             that; and {books}.",
            asynchronous.waited, asynchronous.drain_s,
        );
        [sales, answers, caught_up]
    }
}

/// Writes the report.
pub(super) fn report(path: &Path, comparison: &Comparison, recordings: [&Recording; 2]) -> Result<(), report::Error> {
    let data = Data {
        sentences: comparison.sentences(),
        balanced: comparison.is_balanced(),
        setting: format!(
            "{} orders per second on average, seed {}; payment-service killed and started again after {:.0} s. A customer \
             who is refused does not come back.",
            comparison.rate_per_s, comparison.seed, comparison.outage_s
        ),
        modes: Mode::ALL.map(Mode::name),
        phases: PhaseName::ALL.map(PhaseName::name),
        rows: ROWS.map(|(name, tell)| (name, comparison.outcomes.each_ref().map(|o| o.phases.each_ref().map(tell)))),
        sums: SUMS.map(|(name, tell)| (name, comparison.outcomes.each_ref().map(tell))),
        curves: recordings.map(Curves::of),
    };
    report::write(path, TITLE, SCRIPT, &data)
}

/// What the report's script gets.
#[derive(Serialize)]
struct Data {
    sentences: [String; 3],
    balanced: bool,
    setting: String,
    modes: [&'static str; 2],
    phases: [&'static str; 3],
    rows: [(&'static str, [[String; 3]; 2]); 9],
    sums: [(&'static str, [String; 2]); 4],
    curves: [Curves; 2],
}

/// A point of a curve: milliseconds from the start, and the value if there is one.
type Point = (u64, Option<f64>);

/// The curves of one run.
#[derive(Debug, PartialEq, Serialize)]
struct Curves {
    killed_ms: u64,
    restarted_ms: u64,
    accepted_per_s: Vec<Point>,
    paid_per_s: Vec<Point>,
    answer_p99_ms: Vec<Point>,
    queue: Vec<Point>,
}

impl Curves {
    fn of(recording: &Recording) -> Self {
        let paid: Vec<Duration> = recording.paid.iter().map(|(at, took)| *at + *took).collect();
        let last = recording.answers.iter().map(|answer| answer.at).chain(paid.iter().copied()).max();
        let steps = 0..=last.unwrap_or_default().as_secs();
        let count = |of: &dyn Fn(u64) -> usize| {
            // Orders of one second: far fewer than a float counts exactly.
            #[allow(clippy::cast_precision_loss)]
            steps.clone().map(|step| (step * STEP_MS, Some(of(step) as f64))).collect()
        };
        let answers_of = |step: u64| recording.answers.iter().filter(move |answer| answer.at.as_secs() == step);
        #[allow(clippy::cast_precision_loss)]
        let queue = recording.queue.iter().map(|(at, depth)| (millis(*at), Some(*depth as f64)));
        Self {
            killed_ms: millis(recording.killed),
            restarted_ms: millis(recording.restarted),
            accepted_per_s: count(&|step| answers_of(step).filter(|answer| answer.refused.is_none()).count()),
            paid_per_s: count(&|step| paid.iter().filter(|at| at.as_secs() == step).count()),
            answer_p99_ms: steps
                .clone()
                .map(|step| {
                    let times = after::latencies(answers_of(step).map(|answer| answer.took));
                    let any = times.spread().count > 0;
                    (step * STEP_MS, any.then(|| times.quantile_ms(0.99)))
                })
                .collect(),
            queue: queue.collect(),
        }
    }
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

fn ms(count: u64, value: f64) -> String {
    if count == 0 { "-".to_owned() } else { format!("{value:.1}") }
}

/// Cents as euro.
fn euro(minor: i64) -> String {
    format!("{}.{:02} EUR", minor / 100, minor.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::recording;
    use super::*;

    fn comparison() -> Comparison {
        let outcomes = Mode::ALL.map(|mode| Outcome::of(&recording(mode)));
        Comparison { rate_per_s: 10.0, seed: 42, outage_s: 2.0, outcomes }
    }

    #[test]
    fn both_runs_stand_side_by_side() {
        let table = comparison().table();
        for line in [
            "                       before    during     after     before    during     after",
            "accepted                   20         0        20         20        20        20",
            "answer p50 ms            20.0     100.0      20.0        5.0       5.0       5.0",
            "lost sales                  20 orders, 210.00 EUR             0 orders, 0.00 EUR",
            "caught up after                nothing had waited              0.5 s (20 orders)",
            "books                                     balance                        balance",
        ] {
            assert!(table.lines().any(|found| found == line), "{line:?} is not in\n{table}");
        }
    }

    #[test]
    fn the_sentences_are_written_from_the_figures() {
        let [sales, answers, caught_up] = comparison().sentences();
        assert!(sales.contains("refused 20 times out of 20") && sales.contains("210.00 EUR"), "{sales}");
        assert!(sales.contains("20 of 20 were accepted, and nothing was lost"), "{sales}");
        assert!(answers.contains("within 20 ms") && answers.contains("refused within 100 ms"), "{answers}");
        assert!(caught_up.contains("20 orders") && caught_up.contains("0.5 s after that"), "{caught_up}");
        let mut wrong = comparison();
        wrong.outcomes[1].balanced = false;
        assert!(!wrong.is_balanced() && wrong.sentences()[2].contains("do not balance"));
        assert_eq!(
            (&wrong.json()["balanced"], &wrong.json()["outcomes"][0]["lost"]["eur_minor"]),
            (&false.into(), &21_000.into())
        );
    }

    #[test]
    fn curves_count_by_second_and_have_gaps_where_nobody_came() {
        let curves = Curves::of(&recording(Mode::Synchronous));
        let values = |points: &[Point]| points.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(values(&curves.accepted_per_s), [10.0, 10.0, 0.0, 0.0, 10.0, 10.0].map(Some));
        assert_eq!((curves.killed_ms, curves.restarted_ms), (2_000, 4_000));
        let queued = Curves::of(&recording(Mode::Asynchronous));
        assert_eq!(queued.paid_per_s[4], (4_000, Some(30.0)), "what had waited comes on top");
        assert_eq!(queued.queue[1], (4_000, Some(20.0)));
        let mut late = recording(Mode::Asynchronous);
        late.paid.push((Duration::from_secs(5), Duration::from_secs(2)));
        assert_eq!(Curves::of(&late).answer_p99_ms.last(), Some(&(7_000, None)));
    }

    #[test]
    fn amounts_are_told_in_euro() {
        assert_eq!([0, 5, 12_345].map(euro), ["0.00 EUR", "0.05 EUR", "123.45 EUR"]);
    }
}
