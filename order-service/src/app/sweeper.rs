//! Cancels orders whose time is over.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{App, Changed, Orders, StoreError};
use crate::domain::{OrderId, TimestampUs};

/// How many orders are looked at in one go.
const SWEEP_ORDERS_MAX: u32 = 100;

/// How long the sweeper sleeps at most, in milliseconds: orders of another instance that has died are found then.
const SWEEP_IDLE_MS: u64 = 10_000;

/// How long the sweeper waits when the database did not let it, in milliseconds.
const SWEEP_RETRY_MS: u64 = 500;

/// Cancels orders at their deadlines: at start what fell due meanwhile, then each in its time. Two sweepers on one
/// database are no harm, because a cancellation is one guarded transaction.
#[derive(Debug)]
pub(crate) struct Sweeper<S> {
    app: App<S>,
}

/// Wakes the sweeper when an order falls due before anything that it knew of.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Until when the sweeper sleeps, in microseconds since 1970.
    wakes_at_us: AtomicI64,
    earlier: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { wakes_at_us: AtomicI64::new(i64::MIN), earlier: Notify::new() }
    }
}

impl Alarm {
    /// Something falls due at `at`.
    pub(super) fn set(&self, at: TimestampUs) {
        if at.0 < self.wakes_at_us.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }
}

impl<S: Orders> Sweeper<S> {
    pub(crate) fn new(app: App<S>) -> Self {
        Self { app }
    }

    /// Sweeps until the token is cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut failing = false;
        while !token.is_cancelled() {
            // From here on every new deadline leaves a note, so that none falls between the read and the sleep.
            self.app.alarm.wakes_at_us.store(i64::MAX, Ordering::SeqCst);
            let sleep = match self.sweep().await {
                Ok(sleep) => {
                    failing = false;
                    sleep
                }
                Err(error) => {
                    if !failing {
                        warn!(
                            reason = error.to_string(),
                            "orders cannot be cancelled at their deadline; it is tried again"
                        );
                    }
                    failing = true;
                    Duration::from_millis(SWEEP_RETRY_MS)
                }
            };
            let sleep_us = i64::try_from(sleep.as_micros()).unwrap_or(i64::MAX);
            self.app.alarm.wakes_at_us.store(self.app.now().after_us(sleep_us).0, Ordering::SeqCst);
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(sleep) => {}
                () = self.app.alarm.earlier.notified() => {}
            }
        }
    }

    /// Cancels what is due now, and tells how long nothing else is.
    async fn sweep(&self) -> Result<Duration, StoreError> {
        let idle = Duration::from_millis(SWEEP_IDLE_MS);
        let due = self.app.store.due(SWEEP_ORDERS_MAX).await?;
        let all_due = if due.len() == SWEEP_ORDERS_MAX as usize { Duration::ZERO } else { idle };
        let mut failed = None;
        for (id, at) in due {
            let left_us = at.0.saturating_sub(self.app.now().0);
            if let Some(left_us) = u64::try_from(left_us).ok().filter(|us| *us > 0) {
                let left = Duration::from_micros(left_us).min(idle);
                return failed.map_or(Ok(left), Err);
            }
            // One order that cannot be cancelled holds up no other.
            if let Err(error) = self.expire(id).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(all_due), Err)
    }

    async fn expire(&self, id: OrderId) -> Result<(), StoreError> {
        if let Changed::To(order) = self.app.change(None, id, |order, now| Ok(order.expire(now))).await? {
            info!(order_id = %order.id, reason = ?order.cancel_reason(), "an order was cancelled: its time was over");
        }
        Ok(())
    }
}
