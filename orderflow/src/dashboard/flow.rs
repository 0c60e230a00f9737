//! What happened second by second, for the charts. Told the time; asks no clock.

use std::collections::{BTreeMap, VecDeque};

use super::wire::{OrdersState, Sample};

/// How far back the charts go, in seconds.
pub(super) const HISTORY_S: usize = 600;
/// How long after its end a second is told: events arrive a moment after they happened.
pub(super) const SETTLE_MS: i64 = 500;
/// Over how many whole seconds rates and latencies are reckoned.
const RATE_S: usize = 5;

const SECOND_MS: i64 = 1_000;

/// The last minutes, and the counts since the start.
#[derive(Debug, Default)]
pub(super) struct Flow {
    seconds: VecDeque<Second>,
    accepted: u64,
    paid: u64,
    /// The time that it was told last.
    now_ms: i64,
    /// Counts the changes of seconds that had settled already.
    revision: u64,
}

#[derive(Debug, Default)]
struct Second {
    time_ms: i64,
    /// The revision in which it was changed last; 0 if it was not changed after it had settled.
    revision: u64,
    accepted: u64,
    paid: u64,
    queued: u64,
    latency: Histogram,
}

impl Flow {
    /// Makes room up to now. The depth of the queues stays what it was until it is told anew.
    pub(super) fn advance(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        let now_ms = floor(now_ms);
        let queued = self.seconds.back().map_or(0, |last| last.queued);
        let first_ms = match self.seconds.back() {
            Some(last) if now_ms - last.time_ms > SECOND_MS * history_s() => {
                // The machine slept, or its clock was set.
                self.seconds.clear();
                now_ms
            }
            Some(last) => last.time_ms + SECOND_MS,
            None => now_ms,
        };
        let mut time_ms = first_ms;
        while time_ms <= now_ms {
            self.seconds.push_back(Second { time_ms, queued, ..Second::default() });
            time_ms += SECOND_MS;
        }
        while self.seconds.len() > HISTORY_S {
            self.seconds.pop_front();
        }
    }

    /// An order was accepted at a time, which may be a while ago.
    pub(super) fn accepted(&mut self, at_ms: i64) {
        self.accepted += 1;
        if let Some(second) = self.second(at_ms) {
            second.accepted += 1;
        }
    }

    /// An order was paid at a time, so long after it was accepted.
    pub(super) fn paid(&mut self, at_ms: i64, latency_ms: u64) {
        self.paid += 1;
        if let Some(second) = self.second(at_ms) {
            second.paid += 1;
            second.latency.record(latency_ms);
        }
    }

    /// So many messages wait now.
    pub(super) fn queued(&mut self, queued: u64) {
        if let Some(second) = self.seconds.back_mut() {
            second.queued = queued;
        }
    }

    /// Counts, rates and latencies as of now.
    pub(super) fn orders(&self, now_ms: i64) -> OrdersState {
        let now_ms = floor(now_ms);
        let whole = || self.seconds.iter().rev().skip_while(|second| second.time_ms >= now_ms).take(RATE_S);
        let mut latency = Histogram::default();
        // The second under way has the newest latencies; its counts are not whole yet.
        for second in whole().chain(self.seconds.back()) {
            latency.add(&second.latency);
        }
        #[allow(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let per_s = |count: u64| count as f64 / RATE_S as f64;
        OrdersState {
            accepted: self.accepted,
            paid: self.paid,
            accepted_per_s: per_s(whole().map(|second| second.accepted).sum()),
            paid_per_s: per_s(whole().map(|second| second.paid).sum()),
            latency_p50_ms: latency.percentile(50),
            latency_p99_ms: latency.percentile(99),
        }
    }

    /// The whole seconds after a time, oldest first.
    pub(super) fn samples(&self, after_ms: i64) -> Vec<Sample> {
        let newer = self.seconds.iter().rev().take_while(|second| second.time_ms > after_ms);
        let settled = newer.filter(|second| has_settled(second, self.now_ms));
        let mut samples: Vec<Sample> = settled.map(Second::sample).collect();
        samples.reverse();
        samples
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The whole seconds that were changed since a revision, because events came late.
    pub(super) fn revised(&self, since: u64) -> Vec<Sample> {
        let changed = self.seconds.iter().filter(|second| second.revision > since);
        changed.map(Second::sample).collect()
    }

    fn second(&mut self, at_ms: i64) -> Option<&mut Second> {
        let first_ms = self.seconds.front()?.time_ms;
        let index =
            usize::try_from(floor(at_ms).checked_sub(first_ms)? / SECOND_MS).ok().filter(|_| at_ms >= first_ms)?;
        // A clock of somebody else may be ahead of ours.
        let last = self.seconds.len() - 1;
        let second = self.seconds.get_mut(index.min(last))?;
        if has_settled(second, self.now_ms) {
            self.revision += 1;
            second.revision = self.revision;
        }
        Some(second)
    }
}

impl Second {
    fn sample(&self) -> Sample {
        Sample {
            time_ms: self.time_ms,
            accepted: self.accepted,
            paid: self.paid,
            queued: self.queued,
            latency_p50_ms: self.latency.percentile(50),
            latency_p99_ms: self.latency.percentile(99),
        }
    }
}

fn has_settled(second: &Second, now_ms: i64) -> bool {
    second.time_ms + SECOND_MS + SETTLE_MS <= now_ms
}

fn floor(time_ms: i64) -> i64 {
    time_ms.saturating_sub(time_ms.rem_euclid(SECOND_MS))
}

fn history_s() -> i64 {
    i64::try_from(HISTORY_S).unwrap_or(i64::MAX)
}

/// Times in milliseconds, kept to within a sixteenth of their size.
#[derive(Debug, Default)]
struct Histogram {
    /// How many times fell into each bucket, by the bucket's greatest time.
    counts: BTreeMap<u64, u64>,
}

/// Times of so many significant bits are kept as they are; of longer ones the rest is rounded up.
const SIGNIFICANT_BITS: u32 = 5;

impl Histogram {
    fn record(&mut self, time_ms: u64) {
        let dropped = (u64::BITS - time_ms.leading_zeros()).saturating_sub(SIGNIFICANT_BITS);
        let greatest = time_ms | ((1 << dropped) - 1);
        *self.counts.entry(greatest).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (greatest, count) in &other.counts {
            *self.counts.entry(*greatest).or_default() += count;
        }
    }

    /// The time that so many of a hundred did not exceed.
    fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.counts.values().sum();
        let rank = (total * percent).div_ceil(100);
        let mut passed = 0;
        let reached = |(_, count): &(&u64, &u64)| {
            passed += **count;
            passed >= rank
        };
        self.counts.iter().find(reached).map(|(greatest, _)| *greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_700_000_000_000;

    fn at(second: i64) -> i64 {
        START_MS + second * SECOND_MS
    }

    /// When the sample of a second may be told.
    fn settled(second: i64) -> i64 {
        at(second + 1) + SETTLE_MS
    }

    fn told(flow: &mut Flow, after_ms: i64, now_ms: i64) -> Vec<Sample> {
        flow.advance(now_ms);
        flow.samples(after_ms)
    }

    #[test]
    fn a_late_event_falls_into_the_second_in_which_it_happened() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        flow.advance(at(9));
        flow.accepted(at(2) + 999);
        flow.paid(at(3), 20);
        let samples = told(&mut flow, 0, settled(9));
        let counts: Vec<_> = samples.iter().map(|sample| (sample.accepted, sample.paid)).collect();
        assert_eq!(counts[2..5], [(1, 0), (0, 1), (0, 0)]);
        assert_eq!(samples[3].latency_p50_ms, Some(20));
        assert_eq!((samples[2].time_ms, samples.len()), (at(2), 10));
    }

    #[test]
    fn events_from_before_the_history_and_from_ahead_of_the_clock_are_counted() {
        let mut flow = Flow::default();
        flow.accepted(at(0));
        flow.advance(at(5));
        flow.accepted(at(4));
        flow.paid(at(60), 1);
        let orders = flow.orders(at(6));
        assert_eq!((orders.accepted, orders.paid), (2, 1));
        let samples = told(&mut flow, 0, settled(5));
        assert_eq!(samples.len(), 1);
        assert_eq!((samples[0].accepted, samples[0].paid), (0, 1), "the last second takes what is ahead");
    }

    #[test]
    fn a_second_is_told_once_it_has_settled_and_only_to_who_has_not_had_it() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        flow.advance(at(2));
        assert_eq!(told(&mut flow, 0, settled(1) - 1).len(), 1);
        assert_eq!(told(&mut flow, 0, settled(1)).len(), 2);
        assert_eq!(told(&mut flow, at(0), settled(1)).len(), 1);
        assert_eq!(told(&mut flow, at(1), settled(1)).len(), 0);
    }

    #[test]
    fn a_second_that_changes_after_it_was_told_is_told_again() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        flow.accepted(at(0));
        assert_eq!((flow.revision(), told(&mut flow, 0, settled(0)).len()), (0, 1), "in time");
        flow.advance(settled(5));
        let before = flow.revision();
        flow.accepted(at(2));
        flow.accepted(at(2));
        let revised = flow.revised(before);
        assert_eq!((revised.len(), revised[0].time_ms, revised[0].accepted), (1, at(2), 2));
        assert_eq!(flow.revised(flow.revision()), [], "told once");
    }

    #[test]
    fn the_history_is_limited_and_a_sleep_starts_it_anew() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        for second in 1..700 {
            flow.advance(at(second));
        }
        let samples = told(&mut flow, 0, settled(699));
        assert_eq!((samples.len(), samples[0].time_ms), (HISTORY_S - 1, at(101)), "one more is under way");
        flow.queued(7);
        flow.advance(at(100_000));
        let samples = told(&mut flow, 0, settled(100_000));
        assert_eq!((samples.len(), samples[0].queued), (1, 7));
        flow.advance(at(5));
        assert_eq!(told(&mut flow, 0, settled(100_000)).len(), 1, "a clock that is set back changes nothing");
    }

    #[test]
    fn depth_is_carried_until_it_is_told_anew() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        flow.queued(40);
        flow.advance(at(2));
        flow.queued(0);
        let queued: Vec<_> = told(&mut flow, 0, settled(2)).iter().map(|sample| sample.queued).collect();
        assert_eq!(queued, [40, 40, 0]);
    }

    #[test]
    fn rates_are_those_of_the_last_whole_seconds() {
        let mut flow = Flow::default();
        flow.advance(at(0));
        flow.advance(at(10));
        for second in 0..=10 {
            for _ in 0..10 {
                flow.accepted(at(second));
            }
        }
        flow.paid(at(10), 30);
        let orders = flow.orders(at(10) + 100);
        assert!((orders.accepted_per_s - 10.0).abs() < 1e-9, "{orders:?}");
        assert!(orders.paid_per_s.abs() < 1e-9, "the second under way is not whole: {orders:?}");
        assert_eq!(orders.latency_p99_ms, Some(30), "but its latencies count");
        flow.advance(at(20));
        let orders = flow.orders(at(20));
        assert!(orders.accepted_per_s.abs() < 1e-9, "{orders:?}");
        assert_eq!(orders.latency_p50_ms, None);
    }

    #[test]
    fn percentiles_are_exact_for_short_times_and_near_for_long_ones() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        for time_ms in 1..=31 {
            histogram.record(time_ms);
        }
        assert_eq!((histogram.percentile(50), histogram.percentile(99)), (Some(16), Some(31)));
        for time_ms in [0, 1, 31, 32, 33, 1_000, 86_400_000, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.record(time_ms);
            let told = histogram.percentile(50).unwrap();
            assert!(told >= time_ms && told - time_ms <= time_ms / 16, "{time_ms}: {told}");
        }
    }
}
