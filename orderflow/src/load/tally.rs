//! What came of a load, added up.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Kind, Outcome};

/// The longest time that is told apart, in microseconds; a longer one counts as this.
const MICROS_MAX: u64 = 3_600_000_000;
/// Digits of a time that are kept.
const DIGITS: u8 = 3;

/// Times, of which any share can be asked. Takes the same memory however many they are.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// How times are spread, in milliseconds; zero where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many times it tells of.
    pub count: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// Nine of ten took no longer.
    pub p90_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// 999 of 1000 took no longer.
    pub p99_9_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What came of a load. Every order that was offered is in `accepted` or in `refused`.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Orders that were to be placed.
    pub offered: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Of these, made by an earlier load of the same seed.
    pub repeated: u64,
    /// The others, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Accepted orders by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Cancellations that were asked for in vain.
    pub cancels_failed: u64,
    /// From the time at which an order was to be placed to its acceptance.
    pub accept: Latencies,
    /// How much later than intended orders were sent: what the generator itself adds.
    pub late: Latencies,
    /// For how long orders were placed.
    pub offered_for: Duration,
}

impl Tally {
    /// Orders that were not accepted.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    pub(super) fn add(&mut self, outcome: &Outcome<'_>) {
        self.offered += 1;
        self.late.record(outcome.late);
        match outcome.result {
            Ok(_) => {
                self.accepted += 1;
                self.repeated += u64::from(outcome.repeated);
                *self.kinds.entry(outcome.kind).or_default() += 1;
                self.accept.record(outcome.took);
            }
            Err(refusal) => *self.refused.entry(refusal.reason()).or_default() += 1,
        }
    }
}

impl Latencies {
    /// Adds one time.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How they are spread.
    pub fn spread(&self) -> Spread {
        Spread {
            count: self.0.len(),
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p99_ms: self.quantile_ms(0.99),
            p99_9_ms: self.quantile_ms(0.999),
            max_ms: self.quantile_ms(1.0),
        }
    }

    /// The time that a share of them does not exceed, in milliseconds; zero when there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        // Microseconds up to an hour are exact in a float.
        #[allow(clippy::cast_precision_loss)]
        let micros = self.0.value_at_quantile(share).min(self.0.max()) as f64;
        micros / 1_000.0
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are in order and the digits few"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times_are_told_within_a_thousandth() {
        let mut times = Latencies::default();
        assert_eq!(times.spread(), Spread::default());
        for ms in 1..=1_000 {
            times.record(Duration::from_millis(ms));
        }
        let Spread { count, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms } = times.spread();
        assert_eq!(count, 1_000);
        for (told, right) in [(p50_ms, 500.0), (p90_ms, 900.0), (p99_ms, 990.0), (p99_9_ms, 999.0), (max_ms, 1_000.0)] {
            assert!((told - right).abs() <= right / 1_000.0, "{told} instead of {right}");
        }
    }

    #[test]
    fn a_time_beyond_the_longest_counts_as_the_longest() {
        let mut times = Latencies::default();
        times.record(Duration::from_secs(86_400));
        let max_s = times.spread().max_ms / 1_000.0;
        assert!((3_590.0..3_610.0).contains(&max_s), "{max_s} s");
    }
}
