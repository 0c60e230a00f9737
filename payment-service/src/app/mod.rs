//! What callers can ask for and what is done with an order. Knows the domain, and by traits what it needs of a store and
//! of an acquirer; nothing else.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::{Answer, Charge, OrderId, Payment, PaymentStatus, TimestampUs};

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S, A> {
    store: Arc<S>,
    acquirer: Arc<A>,
    now_us: fn() -> i64,
}

/// A store of payments. Whatever it returns from a change is on disk.
pub(crate) trait Payments: Send + Sync + 'static {
    /// Keeps a payment, its event and the mark that the message `message_id` was handled, in one transaction.
    /// The payment of an order that already has one is not kept, and its event is not sent.
    fn record(&self, message_id: String, payment: Payment)
    -> impl Future<Output = Result<Recorded, StoreError>> + Send;

    /// The payment of one order.
    fn payment(&self, order_id: OrderId) -> impl Future<Output = Result<Option<Payment>, StoreError>> + Send;

    /// Payments before `before`, newest first.
    fn list(
        &self,
        status: Option<PaymentStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Payment>, StoreError>> + Send;
}

/// Somebody who charges cards.
pub(crate) trait Acquirer: Send + Sync + 'static {
    /// Charges once for each order, however often it is asked. Waits for as long as the acquirer is unavailable, unless
    /// `stopping` is cancelled.
    fn charge(
        &self,
        charge: &Charge,
        stopping: &CancellationToken,
    ) -> impl Future<Output = Result<Answer, NoAnswer>> + Send;
}

/// Why there is no answer to a charge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The acquirer did not understand the request, or its answer makes no sense: not an outage, and not the customer's
    /// fault.
    #[error("the acquirer cannot process the charge: {0}")]
    Refused(String),
    /// The service is stopping while the acquirer is unavailable.
    #[error("the service is stopping")]
    Interrupted,
}

/// Where a payment stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// When it ended.
    pub(crate) created_at: TimestampUs,
    /// Whose it is; decides between payments of the same microsecond.
    pub(crate) order_id: OrderId,
}

/// What came of keeping a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It was kept.
    Kept,
    /// The order had its payment already, or the message was handled before.
    Known,
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
    /// The order has no payment, or none yet.
    #[error("order `{0}` has no payment that has reached its end")]
    NotFound(OrderId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S, A> Clone for App<S, A> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), acquirer: Arc::clone(&self.acquirer), now_us: self.now_us }
    }
}

impl<S: Payments, A: Acquirer> App<S, A> {
    /// The use cases on a store and an acquirer; `now_us` tells the microseconds since 1970.
    pub(crate) fn new(store: S, acquirer: A, now_us: fn() -> i64) -> Self {
        Self { store: Arc::new(store), acquirer: Arc::new(acquirer), now_us }
    }

    /// The payment that an order has already, if it has: it must not wait for the acquirer again.
    pub(crate) async fn known(&self, order_id: OrderId) -> Result<Option<Payment>, StoreError> {
        self.store.payment(order_id).await
    }

    /// Asks the acquirer. Nothing is kept yet: the same charge again brings the same answer.
    pub(crate) async fn charge(&self, charge: Charge, stopping: &CancellationToken) -> Result<Payment, NoAnswer> {
        let answer = self.acquirer.charge(&charge, stopping).await?;
        Ok(Payment::new(charge, answer, TimestampUs((self.now_us)())))
    }

    /// Keeps what came of a charge that the message `message_id` asked for, and tells it; both once for each order.
    pub(crate) async fn record(&self, message_id: String, payment: Payment) -> Result<Recorded, StoreError> {
        self.store.record(message_id, payment).await
    }

    /// The payment of one order.
    pub(crate) async fn payment(&self, order_id: OrderId) -> Result<Payment, Error> {
        self.store.payment(order_id).await?.ok_or(Error::NotFound(order_id))
    }

    /// Payments before `before`, newest first.
    pub(crate) async fn list(
        &self,
        status: Option<PaymentStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Payment>, Error> {
        Ok(self.store.list(status, before, limit).await?)
    }
}

impl From<&Payment> for Position {
    fn from(payment: &Payment) -> Self {
        Self { created_at: payment.created_at, order_id: payment.order_id }
    }
}
