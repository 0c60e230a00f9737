//! How many requests may be open, and for how long there shall be none: slow start, and backoff after failures.

use std::time::Duration;

/// Requests that are open at first.
const REQUESTS_FIRST: u32 = 4;
/// The most requests of one subscription that are open at a time.
pub(super) const REQUESTS_MAX: u32 = 100;
/// The pause after a first failure, in milliseconds, as the public service has it.
const PAUSE_MS_MIN: u64 = 100;
/// The longest pause, in milliseconds, as the public service has it.
pub(super) const PAUSE_MS_MAX: u64 = 60_000;

/// Grows by one with each success, which doubles it with each round of requests, and halves with each round that fails.
#[derive(Debug)]
pub(super) struct Window {
    requests: u32,
    pause_ms: u64,
    /// The pauses so far: requests that were open together fail together, and count as one failure.
    round: u64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { requests: REQUESTS_FIRST, pause_ms: 0, round: 0 }
    }

    /// How many requests may be open.
    pub(super) fn requests(&self) -> u32 {
        self.requests
    }

    /// What a request that begins now is a part of.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn succeeded(&mut self) {
        self.requests = (self.requests + 1).min(REQUESTS_MAX);
        self.pause_ms = 0;
    }

    /// How long to pause after a failure in `round`; none if that round has had its pause. `least` is what the endpoint
    /// asked for.
    pub(super) fn failed(&mut self, round: u64, least: Option<Duration>) -> Option<Duration> {
        if round < self.round {
            return None;
        }
        self.round += 1;
        self.requests = (self.requests / 2).max(1);
        self.pause_ms = (2 * self.pause_ms).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        let longest = Duration::from_millis(PAUSE_MS_MAX);
        Some(Duration::from_millis(self.pause_ms).max(least.unwrap_or_default()).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_with_each_round_up_to_its_limit() {
        let mut window = Window::new();
        let mut sizes = vec![window.requests()];
        for _ in 0..6 {
            (0..window.requests()).for_each(|_| window.succeeded());
            sizes.push(window.requests());
        }
        assert_eq!(sizes, [4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn a_round_that_fails_halves_the_window_once_and_the_pause_doubles_up_to_its_limit() {
        let mut window = Window::new();
        let first = window.round();
        assert_eq!(window.failed(first, None), Some(Duration::from_millis(100)));
        assert_eq!(window.failed(first, None), None, "it was open together with the first one");
        assert_eq!(window.requests(), 2);
        let pauses: Vec<u64> =
            (0..11).map(|_| u64::try_from(window.failed(window.round(), None).unwrap().as_millis()).unwrap()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(window.requests(), 1);
        window.succeeded();
        assert_eq!(window.failed(window.round(), None), Some(Duration::from_millis(100)), "a success forgets it all");
    }

    #[test]
    fn an_endpoint_may_ask_for_a_longer_pause_within_the_limit() {
        let mut window = Window::new();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(window.failed(0, seconds(7)), seconds(7));
        assert_eq!(window.failed(1, seconds(3_600)), seconds(60));
    }
}
