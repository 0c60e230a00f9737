//! The time that the core is told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_core::Time;
use tokio::time::Instant;

/// Milliseconds since the Unix epoch that never go back: the wall clock is read once, at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: millis(since_epoch) }
    }

    /// The same clock, set forward to `time` if it is behind: messages that are there must not be younger than those that
    /// will follow.
    pub(super) fn not_before(self, time: Time) -> Self {
        let behind_ms = time.0.saturating_sub(self.now().0);
        Self { started_ms: self.started_ms + behind_ms, ..self }
    }

    /// A clock that begins at a time of the test's choice.
    #[cfg(test)]
    pub(super) fn start_at(time: Time) -> Self {
        Self { started: Instant::now(), started_ms: time.0 }
    }

    pub(super) fn now(&self) -> Time {
        Time(self.started_ms + millis(self.started.elapsed()))
    }

    /// When it will be `time`, rounded up so that the time has come by then.
    pub(super) fn instant_of(&self, time: Time) -> Instant {
        self.started + Duration::from_millis(time.0.saturating_sub(self.started_ms) + 1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
