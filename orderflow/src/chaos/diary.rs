//! What happens during a run, written down as it happens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::poison::Poison;
use crate::audit::Money;
use crate::load::Outcome;

/// One thing that happened. Times are milliseconds from the start of the load.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// When it began.
    pub from_ms: u64,
    /// When it was over.
    pub until_ms: u64,
    /// What it was.
    pub what: String,
    /// How it ended.
    pub ended: String,
    /// Whether nobody had asked for it.
    pub unexpected: bool,
}

/// One second of a run. Counts are of that second, the rest is as it stood then.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// In milliseconds from the start of the load.
    pub time_ms: u64,
    /// Orders that were accepted.
    pub accepted: usize,
    /// Orders of which it was told that they are paid.
    pub paid: usize,
    /// Messages that wait in the queues of the suite; nothing while the broker does not answer.
    pub queued: Option<u64>,
    /// Half of the answers took no longer, in milliseconds from when the order was due.
    pub latency_p50_ms: Option<f64>,
    /// 99 of 100 took no longer.
    pub latency_p99_ms: Option<f64>,
}

/// An order that a customer was told is accepted.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) total: Money,
}

/// Where everybody writes.
#[derive(Debug)]
pub(super) struct Diary {
    begun: Instant,
    pages: Mutex<Pages>,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) history: Vec<Happening>,
    pub(super) samples: Vec<Sample>,
    pub(super) accepted: Vec<Accepted>,
    pub(super) refused: usize,
    pub(super) kills: usize,
    pub(super) poison: Vec<Poison>,
    /// How long the answers of this second took, in milliseconds.
    latencies_ms: Vec<f64>,
    sampled_accepted: usize,
    sampled_paid: usize,
}

impl Diary {
    /// A diary that begins now.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), pages: Mutex::default() }
    }

    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this many milliseconds have passed.
    pub(super) fn at(&self, ms: u64) -> tokio::time::Instant {
        (self.begun + Duration::from_millis(ms)).into()
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something that was asked for began at this time and is over now.
    pub(super) fn happened(&self, from_ms: u64, what: impl ToString, ended: impl Into<String>) {
        self.write(from_ms, what, ended, false);
    }

    /// Something that nobody asked for is over now.
    pub(super) fn surprised(&self, from_ms: u64, what: impl ToString, ended: impl Into<String>) {
        self.write(from_ms, what, ended, true);
    }

    fn write(&self, from_ms: u64, what: impl ToString, ended: impl Into<String>, unexpected: bool) {
        let (what, ended, until_ms) = (what.to_string(), ended.into(), self.now_ms());
        self.pages().history.push(Happening { from_ms, until_ms, what, ended, unexpected });
    }

    /// A customer has an answer.
    pub(super) fn answered(&self, outcome: &Outcome<'_>) {
        let mut pages = self.pages();
        match outcome.result {
            Ok(order) => {
                let total = order.total.clone().unwrap_or_default();
                let total = Money { currency: total.currency_code, amount_minor: total.amount_minor };
                pages.accepted.push(Accepted { id: order.order_id.clone(), total });
                pages.latencies_ms.push(outcome.took.as_secs_f64() * 1_000.0);
            }
            Err(_) => pages.refused += 1,
        }
    }

    /// A second is over. `paid` counts from the start.
    pub(super) fn sample(&self, paid: usize, queued: Option<u64>) {
        let time_ms = self.now_ms();
        let mut pages = self.pages();
        let mut latencies_ms = std::mem::take(&mut pages.latencies_ms);
        latencies_ms.sort_by(f64::total_cmp);
        let sample = Sample {
            time_ms,
            accepted: pages.accepted.len() - pages.sampled_accepted,
            paid: paid.saturating_sub(pages.sampled_paid),
            queued,
            latency_p50_ms: quantile(&latencies_ms, 50),
            latency_p99_ms: quantile(&latencies_ms, 99),
        };
        (pages.sampled_accepted, pages.sampled_paid) = (pages.accepted.len(), paid);
        pages.samples.push(sample);
    }
}

/// Of sorted values the one that so many of a hundred do not exceed.
fn quantile(sorted: &[f64], of_100: usize) -> Option<f64> {
    sorted.get((sorted.len() * of_100).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(quantile(&[], 50), None);
        assert_eq!(quantile(&[7.0], 99), Some(7.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&hundred, 50), quantile(&hundred, 99)), (Some(50.0), Some(99.0)));
    }
}
