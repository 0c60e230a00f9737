//! What callers can ask for and what is done with an event. Knows the domain, and by [`Notifications`] what it needs of a
//! store; nothing else.

mod bells;

use std::sync::Arc;

use bells::Bells;
pub(crate) use bells::WATCHES_MAX;

use crate::domain::{CustomerId, Draft, Notification, TimestampUs};

/// Notifications that a watch reads from the store at once.
const WATCH_BATCH_NOTIFICATIONS: u32 = 100;

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S> {
    store: Arc<S>,
    bells: Arc<Bells>,
    now_us: fn() -> i64,
}

/// A store of notifications. Whatever it returns from a change is on disk.
pub(crate) trait Notifications: Send + Sync + 'static {
    /// Keeps a notification under the customer's next number, together with the mark that its event was handled, in one
    /// transaction. `None` if the event was handled before.
    fn keep(
        &self,
        draft: Draft,
        now: TimestampUs,
    ) -> impl Future<Output = Result<Option<Notification>, StoreError>> + Send;

    /// The customer's notifications with a greater number than `after`, oldest first.
    fn list(
        &self,
        customer_id: &CustomerId,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Notification>, StoreError>> + Send;
}

/// Follows a customer's notifications, without a gap and without a double.
#[derive(Debug)]
pub(crate) struct Watch<S> {
    store: Arc<S>,
    customer_id: CustomerId,
    bell: bells::Bell,
    seen_number: i64,
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database does not work now. It is nobody's fault, and the same again may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database works, but not with this: what it holds makes no sense, or a constraint is in the way.
    #[error("the database holds something unexpected")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// More watches are open than the service allows.
    #[error("more than {WATCHES_MAX} watches are open")]
    TooManyWatches,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), bells: Arc::clone(&self.bells), now_us: self.now_us }
    }
}

impl<S: Notifications> App<S> {
    /// The use cases on a store; `now_us` tells the microseconds since 1970.
    pub(crate) fn new(store: S, now_us: fn() -> i64) -> Self {
        Self { store: Arc::new(store), bells: Arc::default(), now_us }
    }

    /// Keeps a notification, once for each event, and wakes who watches for it.
    pub(crate) async fn notify(&self, draft: Draft) -> Result<Option<Notification>, StoreError> {
        let kept = self.store.keep(draft, TimestampUs((self.now_us)())).await?;
        if let Some(notification) = &kept {
            self.bells.ring(&notification.draft.customer_id);
        }
        Ok(kept)
    }

    /// The customer's notifications with a greater number than `after`, oldest first.
    pub(crate) async fn list(
        &self,
        customer_id: &CustomerId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Notification>, Error> {
        Ok(self.store.list(customer_id, after, limit).await?)
    }

    /// Follows the customer's notifications with a greater number than `after`.
    pub(crate) fn watch(&self, customer_id: CustomerId, after: i64) -> Result<Watch<S>, Error> {
        let bell = self.bells.hear(&customer_id).ok_or(Error::TooManyWatches)?;
        Ok(Watch { store: Arc::clone(&self.store), customer_id, bell, seen_number: after })
    }
}

impl<S: Notifications> Watch<S> {
    /// The next notifications, as many as there are, at least one: waits for it.
    pub(crate) async fn next(&mut self) -> Result<Vec<Notification>, Error> {
        loop {
            // Silenced before the read: what is kept afterwards rings again. The numbers have no gaps, so reading on
            // from the last one seen can neither miss nor repeat one.
            self.bell.silence();
            let batch = self.store.list(&self.customer_id, self.seen_number, WATCH_BATCH_NOTIFICATIONS).await?;
            if let Some(last) = batch.last() {
                self.seen_number = last.number;
                return Ok(batch);
            }
            self.bell.rung().await;
        }
    }
}

#[cfg(test)]
mod tests;
