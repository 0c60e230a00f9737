//! Pauses that grow while something is away.

use std::time::Duration;

use tokio::time;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);

pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// It was there: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    pub(super) async fn pause(&mut self) {
        time::sleep(self.next).await;
        self.next = LONGEST.min(self.next * 2);
    }
}
