//! What callers can ask for. Knows the domain, and by [`Orders`] what it needs of a store; nothing else.

mod watchers;

use std::sync::Arc;

use uuid::Uuid;

pub(crate) use watchers::{WATCHES_MAX, Watch};

use crate::domain::{
    CustomerId, IdempotencyKey, NewOrder, Order, OrderEvent, OrderId, OrderStatus, OutcomeError, PaymentOutcome,
    TimestampUs,
};
use watchers::Watchers;

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S> {
    store: Arc<S>,
    watchers: Arc<Watchers>,
    now_us: fn() -> i64,
}

/// A store of orders. Whatever it returns from a change is on disk.
pub(crate) trait Orders: Send + Sync + 'static {
    /// Keeps a new order together with its event, unless the key was used before.
    fn place(
        &self,
        order: Order,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> impl Future<Output = Result<Placed, StoreError>> + Send;

    /// Lets `decide` change an order and keeps the result, its event and the mark that the message `message_id` was
    /// handled, all in one transaction. A message that was handled before changes nothing.
    fn change<F>(
        &self,
        message_id: String,
        id: OrderId,
        decide: F,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send
    where
        F: FnOnce(&mut Order) -> Result<Option<OrderEvent>, OutcomeError> + Send + 'static;

    /// One order.
    fn order(&self, id: OrderId) -> impl Future<Output = Result<Option<Order>, StoreError>> + Send;

    /// Orders that were accepted before `before`, newest first.
    fn list(
        &self,
        filter: Filter,
        before: Option<OrderId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Order>, StoreError>> + Send;
}

/// A digest of a request's body: equal bodies have equal digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) String);

/// Which orders to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only of this customer.
    pub(crate) customer_id: Option<CustomerId>,
    /// Only of this status.
    pub(crate) status: Option<StatusKind>,
}

/// A status without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusKind {
    /// [`OrderStatus::PendingPayment`]
    PendingPayment,
    /// [`OrderStatus::Paid`]
    Paid,
    /// [`OrderStatus::PaymentDeclined`]
    PaymentDeclined,
}

/// What came of keeping a new order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was kept.
    New(Order),
    /// The same request was answered before, with this order, as it stands now.
    Known(Order),
    /// The key belongs to a request with another body.
    KeyReused,
}

/// What came of changing an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// It was changed into this.
    To(Order),
    /// The message was handled before, or told nothing new.
    Nothing,
    /// There is no such order.
    Unknown,
    /// The order cannot take the outcome.
    Refused(OutcomeError),
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
    /// There is no such order.
    #[error("there is no order `{0}`")]
    NotFound(OrderId),
    /// The idempotency key belongs to a request with another body.
    #[error("the idempotency key was used before, with another body")]
    KeyReused,
    /// More watches are open than the service allows.
    #[error("more than {WATCHES_MAX} watches are open")]
    TooManyWatches,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), watchers: Arc::clone(&self.watchers), now_us: self.now_us }
    }
}

impl<S: Orders> App<S> {
    /// The use cases on a store; `now_us` tells the microseconds since 1970.
    pub(crate) fn new(store: S, now_us: fn() -> i64) -> Self {
        Self { store: Arc::new(store), watchers: Arc::default(), now_us }
    }

    /// Accepts an order, or finds the one that the same request made before.
    pub(crate) async fn place(
        &self,
        new: NewOrder,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> Result<Order, Error> {
        let order = Order::place(new, OrderId::from_uuid(Uuid::now_v7()), TimestampUs((self.now_us)()));
        match self.store.place(order, key, fingerprint).await? {
            Placed::New(order) | Placed::Known(order) => Ok(order),
            Placed::KeyReused => Err(Error::KeyReused),
        }
    }

    /// One order.
    pub(crate) async fn order(&self, id: OrderId) -> Result<Order, Error> {
        self.store.order(id).await?.ok_or(Error::NotFound(id))
    }

    /// Orders that were accepted before `before`, newest first.
    pub(crate) async fn list(&self, filter: Filter, before: Option<OrderId>, limit: u32) -> Result<Vec<Order>, Error> {
        Ok(self.store.list(filter, before, limit).await?)
    }

    /// Follows an order: its state now, then each change.
    pub(crate) async fn watch(&self, id: OrderId) -> Result<Watch<S>, Error> {
        // The subscription comes before the read, so that no change can fall between them.
        let subscription = self.watchers.subscribe(id).ok_or(Error::TooManyWatches)?;
        let order = self.order(id).await?;
        Ok(Watch::new(Arc::clone(&self.store), subscription, order))
    }

    /// Brings an order to its end by the outcome that the message `message_id` tells.
    pub(crate) async fn settle(
        &self,
        message_id: String,
        id: OrderId,
        outcome: PaymentOutcome,
    ) -> Result<Changed, StoreError> {
        let now = TimestampUs((self.now_us)());
        let changed = self.store.change(message_id, id, move |order| order.apply(outcome, now)).await?;
        if let Changed::To(order) = &changed {
            self.watchers.tell(order);
        }
        Ok(changed)
    }
}

impl From<&OrderStatus> for StatusKind {
    fn from(status: &OrderStatus) -> Self {
        match status {
            OrderStatus::PendingPayment => Self::PendingPayment,
            OrderStatus::Paid => Self::Paid,
            OrderStatus::PaymentDeclined { .. } => Self::PaymentDeclined,
        }
    }
}

#[cfg(test)]
mod tests;
