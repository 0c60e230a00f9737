//! What follows from a run: figures for each phase, what was lost, how long it took to catch up. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Mode;
use super::measure::{Answer, Recording};
use crate::audit::Sums;
use crate::load::{Spread, after};

/// What a run has shown. Units are in the names.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// How orders were paid for.
    pub mode: Mode,
    /// Before, during and after the outage.
    pub phases: [Phase; 3],
    /// How long payment-service was really away: from its end until it was ready again.
    pub outage_s: f64,
    /// From then until the last of the orders that had waited was paid; zero when none had.
    pub drain_s: f64,
    /// Orders that were accepted before payment was back, and paid after that.
    pub waited: usize,
    /// What refused customers would have bought.
    pub lost: Lost,
    /// Whether the books balance.
    pub balanced: bool,
    /// What the books add up to.
    pub sums: Sums,
    /// What does not fit in them.
    pub mismatches: Vec<String>,
}

/// Sales that were not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Orders that were refused.
    pub orders: usize,
    /// What they would have brought in, in cents.
    pub eur_minor: i64,
}

/// A span of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// Until payment-service was killed.
    Before,
    /// Until it was ready again.
    During,
    /// From then on.
    After,
}

/// What customers who came in one phase got.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Which phase.
    pub phase: PhaseName,
    /// Orders that were to be placed.
    pub offered: usize,
    /// Of these, accepted.
    pub accepted: usize,
    /// Of these, refused.
    pub refused: usize,
    /// The refusals by reason.
    pub refused_reasons: BTreeMap<&'static str, usize>,
    /// From when the order was to be placed to its answer, be it a refusal.
    pub answer: Spread,
    /// From when the order was to be placed until it was paid.
    pub placed_to_paid: Spread,
}

impl PhaseName {
    /// All, as they follow each other.
    pub const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }

    fn of(at: Duration, recording: &Recording) -> Self {
        if at < recording.killed {
            Self::Before
        } else if at < recording.restarted {
            Self::During
        } else {
            Self::After
        }
    }
}

impl Outcome {
    pub(super) fn of(recording: &Recording) -> Self {
        let Recording { mode, killed, restarted, verdict, .. } = recording;
        let refused: Vec<&Answer> = recording.answers.iter().filter(|answer| answer.refused.is_some()).collect();
        let waited = || {
            let paid = recording.paid.iter().map(|(at, took)| (*at, *at + *took));
            paid.filter(|(at, paid)| at < restarted && paid > restarted).map(|(_, paid)| paid)
        };
        Self {
            mode: *mode,
            phases: PhaseName::ALL.map(|phase| Phase::of(phase, recording)),
            outage_s: restarted.saturating_sub(*killed).as_secs_f64(),
            drain_s: waited().max().map_or(0.0, |last| last.saturating_sub(*restarted).as_secs_f64()),
            waited: waited().count(),
            lost: Lost { orders: refused.len(), eur_minor: refused.iter().map(|answer| answer.total_minor).sum() },
            balanced: verdict.is_balanced(),
            sums: verdict.sums.clone(),
            mismatches: verdict.mismatches.iter().map(ToString::to_string).collect(),
        }
    }

    /// One of its phases.
    pub fn phase(&self, name: PhaseName) -> &Phase {
        let [before, during, after] = &self.phases;
        match name {
            PhaseName::Before => before,
            PhaseName::During => during,
            PhaseName::After => after,
        }
    }
}

impl Phase {
    fn of(phase: PhaseName, recording: &Recording) -> Self {
        let answers: Vec<&Answer> =
            recording.answers.iter().filter(|answer| PhaseName::of(answer.at, recording) == phase).collect();
        let mut refused_reasons = BTreeMap::new();
        for reason in answers.iter().filter_map(|answer| answer.refused) {
            *refused_reasons.entry(reason).or_default() += 1;
        }
        let refused = refused_reasons.values().sum();
        let paid = recording.paid.iter().filter(|(at, _)| PhaseName::of(*at, recording) == phase);
        Self {
            phase,
            offered: answers.len(),
            accepted: answers.len() - refused,
            refused,
            refused_reasons,
            answer: after::latencies(answers.iter().map(|answer| answer.took)).spread(),
            placed_to_paid: after::latencies(paid.map(|(_, took)| *took)).spread(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::audit::Verdict;

    /// Ten orders a second for six seconds; payment is away from 2 s to 4 s. What comes then is refused after 100 ms
    /// when it is synchronous, and waits until 4.5 s when it is not.
    pub(in crate::compare) fn recording(mode: Mode) -> Recording {
        let (killed, restarted) = (Duration::from_secs(2), Duration::from_secs(4));
        let mut recording = Recording {
            mode,
            killed,
            restarted,
            answers: Vec::new(),
            paid: Vec::new(),
            queue: vec![(killed, 0), (restarted, 20), (Duration::from_secs(5), 0)],
            verdict: Verdict::default(),
        };
        for order in 0..60 {
            let at = Duration::from_millis(order * 100);
            let is_down = killed <= at && at < restarted;
            let (took_ms, refused, paid) = match (mode, is_down) {
                (Mode::Synchronous, true) => (100, Some("unavailable"), None),
                (Mode::Synchronous, false) => (20, None, Some(Duration::from_millis(20))),
                (Mode::Asynchronous, true) => (5, None, Some(Duration::from_millis(4_500) - at)),
                (Mode::Asynchronous, false) => (5, None, Some(Duration::from_millis(50))),
            };
            recording.answers.push(Answer { at, took: Duration::from_millis(took_ms), refused, total_minor: 1_050 });
            recording.paid.extend(paid.map(|took| (at, took)));
        }
        recording
    }

    #[test]
    fn each_order_is_told_in_the_phase_in_which_it_came() {
        let told =
            |mode| Outcome::of(&recording(mode)).phases.map(|phase| (phase.offered, phase.accepted, phase.refused));
        assert_eq!(told(Mode::Synchronous), [(20, 20, 0), (20, 0, 20), (20, 20, 0)]);
        assert_eq!(told(Mode::Asynchronous), [(20, 20, 0); 3]);
        let outcome = Outcome::of(&recording(Mode::Synchronous));
        assert_eq!(outcome.phase(PhaseName::During).refused_reasons["unavailable"], 20);
        assert_eq!(outcome.phase(PhaseName::During).answer.p50_ms.round(), 100.0);
        assert_eq!(outcome.phase(PhaseName::During).placed_to_paid.count, 0);
        assert_eq!(outcome.phase(PhaseName::After).answer.max_ms.round(), 20.0);
    }

    #[test]
    fn lost_sales_are_what_the_refused_would_have_bought() {
        let lost = |mode| Outcome::of(&recording(mode)).lost;
        assert_eq!(lost(Mode::Synchronous), Lost { orders: 20, eur_minor: 20 * 1_050 });
        assert_eq!(lost(Mode::Asynchronous), Lost::default());
    }

    #[test]
    fn the_drain_ends_when_the_last_order_that_had_waited_is_paid() {
        let asynchronous = Outcome::of(&recording(Mode::Asynchronous));
        assert_eq!((asynchronous.waited, asynchronous.drain_s, asynchronous.outage_s), (20, 0.5, 2.0));
        let synchronous = Outcome::of(&recording(Mode::Synchronous));
        assert_eq!((synchronous.waited, synchronous.drain_s), (0, 0.0));
    }
}
