//! How much happens in a second.

use crate::ids::Time;
use crate::limits::RATE_WINDOW_MS;

/// A second, in milliseconds: what one count covers.
const COUNT_MS: u64 = 1_000;
/// The window, and the second that has begun.
const COUNTS: usize = (RATE_WINDOW_MS / COUNT_MS) as usize + 1;

/// Counts of the last seconds, however much happens in them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Those of second `s` stand at `s % COUNTS`.
    counts: [u32; COUNTS],
    /// The last second in which something was counted.
    second: u64,
}

impl Meter {
    pub(crate) fn add(&mut self, now: Time, count: u64) {
        let second = now.0 / COUNT_MS;
        // What lies between is empty.
        let passed = second.saturating_sub(self.second).min(COUNTS as u64);
        for later in 1..=passed {
            *self.count_mut(self.second + later) = 0;
        }
        if passed == COUNTS as u64 {
            self.counts = [0; COUNTS];
        }
        self.second = self.second.max(second);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let of_second = self.count_mut(second);
        *of_second = of_second.saturating_add(count);
    }

    /// The average over the last whole seconds.
    pub(crate) fn per_second(&self, now: Time) -> f64 {
        let second = now.0 / COUNT_MS;
        let window = second.saturating_sub(COUNTS as u64 - 1)..second;
        // What is older than the counts that are kept is empty, and so is what comes after the last one.
        let kept = (self.second + 1).saturating_sub(COUNTS as u64)..=self.second;
        let of_window = window.filter(|second| kept.contains(second)).map(|second| u64::from(self.count(second)));
        of_window.sum::<u64>() as f64 / (COUNTS - 1) as f64
    }

    fn count(&self, second: u64) -> u32 {
        self.counts[index(second)]
    }

    fn count_mut(&mut self, second: u64) -> &mut u32 {
        &mut self.counts[index(second)]
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder is small")]
fn index(second: u64) -> usize {
    (second % COUNTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_over_the_last_whole_seconds() {
        let mut meter = Meter::default();
        meter.add(Time(100_000), 30);
        meter.add(Time(100_999), 20);
        assert_eq!(meter.per_second(Time(100_999)), 0.0, "the second is not over");
        assert_eq!(meter.per_second(Time(101_000)), 5.0);
        assert_eq!(meter.per_second(Time(110_999)), 5.0);
        assert_eq!(meter.per_second(Time(111_000)), 0.0, "it has left the window");
    }

    #[test]
    fn a_rate_agrees_with_a_list_of_all_that_happened() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut meter, mut all, mut now) = (Meter::default(), Vec::new(), 50_000);
        for _ in 0..5_000 {
            now += if rng.u8(..) == 0 { rng.u64(0..40_000) } else { rng.u64(0..900) };
            let count = rng.u64(0..100);
            meter.add(Time(now), count);
            all.push((now, count));
            let asked = now + rng.u64(0..3_000);
            let end = asked / 1_000 * 1_000;
            let within = all.iter().filter(|(at, _)| (end - RATE_WINDOW_MS..end).contains(at));
            let expected = within.map(|(_, count)| count).sum::<u64>() as f64 / 10.0;
            assert_eq!(meter.per_second(Time(asked)), expected);
        }
    }
}
