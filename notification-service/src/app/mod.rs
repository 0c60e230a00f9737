//! What callers can ask for and what is done with an event. Knows the domain, and by [`Notifications`] what it needs of a
//! store; nothing else.

mod bells;
mod emails;

use std::sync::Arc;
use std::time::Duration;

use bells::Bells;
pub(crate) use bells::WATCHES_MAX;
use bytes::Bytes;
pub(crate) use emails::{Emails, Settled};
use tokio::sync::Notify;

use crate::domain::{CustomerId, Draft, Invoice, KeptInvoice, Notification, TimestampUs};

/// Notifications that a watch reads from the store at once.
const WATCH_BATCH_NOTIFICATIONS: u32 = 100;

/// How long a watch waits for its bell before it looks all the same, in milliseconds: another instance on the same
/// database rings no bell here.
const WATCH_POLL_MS: u64 = 1_000;

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S> {
    store: Arc<S>,
    bells: Arc<Bells>,
    /// Rung when there may be e-mail to send.
    post: Arc<Notify>,
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

    /// Keeps an invoice and its notification, as [`Self::keep`] does.
    fn keep_invoice(
        &self,
        invoice: Invoice,
        pdf: Bytes,
        draft: Draft,
        now: TimestampUs,
    ) -> impl Future<Output = Result<InvoiceFate, StoreError>> + Send;

    /// The customer's notifications with a greater number than `after`, oldest first; of one order, if it is named.
    fn list(
        &self,
        customer_id: &CustomerId,
        order_id: Option<&str>,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Notification>, StoreError>> + Send;

    /// Remembers what the customer has seen and says how far that is now; `None` if there are not so many.
    fn acknowledge(
        &self,
        customer_id: CustomerId,
        number: i64,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send;

    /// The last number that the customer has said to have seen.
    fn acknowledged(&self, customer_id: &CustomerId) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// The invoice of an order with its page.
    fn invoice(
        &self,
        order_id: &str,
    ) -> impl Future<Output = Result<Option<(KeptInvoice, Vec<u8>)>, StoreError>> + Send;

    /// Invoices with a greater position than `after`, in the order of their arrival.
    fn invoices(&self, after: i64, limit: u32) -> impl Future<Output = Result<Vec<KeptInvoice>, StoreError>> + Send;
}

/// What became of an invoice that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InvoiceFate {
    /// It was kept, and this is its notification.
    Kept(Box<Notification>),
    /// It was there already.
    KnownAlready,
    /// Its number belongs to this other order.
    NumberTaken {
        /// Which order.
        order_id: String,
    },
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
    /// Nobody can have seen a notification that is not there.
    #[error("the customer has no notification {number}")]
    NoSuchNotification {
        /// Which one.
        number: i64,
    },
    /// The order has no invoice, or not yet.
    #[error("order `{order_id}` has no invoice yet")]
    NoInvoice {
        /// Which order.
        order_id: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            bells: Arc::clone(&self.bells),
            post: Arc::clone(&self.post),
            now_us: self.now_us,
        }
    }
}

impl<S: Notifications> App<S> {
    /// The use cases on a store; `now_us` tells the microseconds since 1970.
    pub(crate) fn new(store: S, now_us: fn() -> i64) -> Self {
        Self { store: Arc::new(store), bells: Arc::default(), post: Arc::default(), now_us }
    }

    /// Keeps a notification, once for each event, and wakes who watches for it.
    pub(crate) async fn notify(&self, draft: Draft) -> Result<Option<Notification>, StoreError> {
        let kept = self.store.keep(draft, self.now()).await?;
        if let Some(notification) = &kept {
            self.announce(notification);
        }
        Ok(kept)
    }

    /// Keeps an invoice with its notification, once for each order, and wakes who watches for it.
    pub(crate) async fn keep_invoice(
        &self,
        invoice: Invoice,
        pdf: Bytes,
        draft: Draft,
    ) -> Result<InvoiceFate, StoreError> {
        let fate = self.store.keep_invoice(invoice, pdf, draft, self.now()).await?;
        if let InvoiceFate::Kept(notification) = &fate {
            self.announce(notification);
        }
        Ok(fate)
    }

    fn announce(&self, notification: &Notification) {
        self.bells.ring(&notification.draft.customer_id);
        self.post.notify_one();
    }

    fn now(&self) -> TimestampUs {
        TimestampUs((self.now_us)())
    }

    /// The customer's notifications with a greater number than `after`, oldest first; of one order, if it is named.
    pub(crate) async fn list(
        &self,
        customer_id: &CustomerId,
        order_id: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Notification>, Error> {
        Ok(self.store.list(customer_id, order_id, after, limit).await?)
    }

    /// Remembers that the customer has seen everything up to `number`, and says how far that is now.
    pub(crate) async fn acknowledge(&self, customer_id: CustomerId, number: i64) -> Result<i64, Error> {
        self.store.acknowledge(customer_id, number).await?.ok_or(Error::NoSuchNotification { number })
    }

    /// The invoice of an order with its page.
    pub(crate) async fn invoice(&self, order_id: &str) -> Result<(KeptInvoice, Vec<u8>), Error> {
        let no_invoice = || Error::NoInvoice { order_id: order_id.to_owned() };
        self.store.invoice(order_id).await?.ok_or_else(no_invoice)
    }

    /// Invoices with a greater position than `after`, in the order of their arrival.
    pub(crate) async fn invoices(&self, after: i64, limit: u32) -> Result<Vec<KeptInvoice>, Error> {
        Ok(self.store.invoices(after, limit).await?)
    }

    /// Follows the customer's notifications from the first one on that was not acknowledged.
    pub(crate) async fn resume(&self, customer_id: CustomerId) -> Result<Watch<S>, Error> {
        let after = self.store.acknowledged(&customer_id).await?;
        self.watch(customer_id, after)
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
            let batch = self.store.list(&self.customer_id, None, self.seen_number, WATCH_BATCH_NOTIFICATIONS).await?;
            if let Some(last) = batch.last() {
                self.seen_number = last.number;
                return Ok(batch);
            }
            let _ = tokio::time::timeout(Duration::from_millis(WATCH_POLL_MS), self.bell.rung()).await;
        }
    }
}

#[cfg(test)]
mod tests;
