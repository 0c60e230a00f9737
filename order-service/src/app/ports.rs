use std::time::Duration;

use super::checkout::Charge;
use crate::domain::{CustomerId, Effect, IdempotencyKey, Order, OrderId, OrderStatus, Refusal, TimestampUs};

/// What came of something that happened to an order.
pub(crate) type Happening = Result<Effect, Refusal>;

/// A store of orders. Whatever it returns from a change is on disk.
pub(crate) trait Orders: Send + Sync + 'static {
    /// Keeps a new order together with its event, unless the key was used before.
    fn place(
        &self,
        order: Order,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> impl Future<Output = Result<Placed, StoreError>> + Send;

    /// Lets `decide` change an order, once more if it has to be done again, and keeps the result, its events, its step and the mark that the message
    /// `message_id` was handled, all in one transaction. A message that was handled before changes nothing. An order
    /// that ends as PAYMENT_UNAVAILABLE gives its idempotency key back.
    fn change<F>(
        &self,
        message_id: Option<String>,
        id: OrderId,
        decide: F,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send
    where
        F: Fn(&mut Order) -> Happening + Send + Sync + 'static;

    /// One order.
    fn order(&self, id: OrderId) -> impl Future<Output = Result<Option<Order>, StoreError>> + Send;

    /// The steps of one order, oldest first; its acceptance, which the order itself tells, is not among them.
    fn steps(&self, id: OrderId) -> impl Future<Output = Result<Vec<Step>, StoreError>> + Send;

    /// Orders that were accepted before `before`, newest first.
    fn list(
        &self,
        filter: Filter,
        before: Option<OrderId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Order>, StoreError>> + Send;

    /// Orders that fall due next, with the time, the earliest first.
    fn due(&self, limit: u32) -> impl Future<Output = Result<Vec<(OrderId, TimestampUs)>, StoreError>> + Send;
}

/// Who charges orders.
pub(crate) trait Payments: Clone + Send + Sync + 'static {
    /// Charges the order's current try, and gives up after `timeout`.
    fn charge(&self, order: &Order, timeout: Duration) -> impl Future<Output = Charge> + Send;
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
    /// [`OrderStatus::Cancelled`]
    Cancelled,
    /// [`OrderStatus::Refunded`]
    Refunded,
}

/// One step of an order's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// When it was taken.
    pub(crate) at: TimestampUs,
    /// Which one.
    pub(crate) kind: StepKind,
    /// In which try of the payment; 0 where it does not matter.
    pub(crate) attempt: u32,
    /// More about it in words.
    pub(crate) detail: String,
}

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// The order was accepted.
    Accepted,
    /// The broker has the event that asks for the payment.
    Queued,
    /// payment-service asked the acquirer.
    PaymentAttempted,
    /// The acquirer took the money.
    Charged,
    /// The card was declined.
    Declined,
    /// Another card was given.
    Retried,
    /// The order is paid.
    Paid,
    /// The order was cancelled.
    Cancelled,
    /// The money is to go back.
    RefundRequested,
    /// The money went back.
    Refunded,
    /// Nothing was taken.
    Voided,
    /// The customer was told.
    Notified,
    /// The invoice is there.
    Invoiced,
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
    /// The message was handled before, or told nothing new: the order is this, as it was before.
    Nothing(Order),
    /// There is no such order.
    Unknown,
    /// The order cannot take it.
    Refused(Refusal),
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

impl From<&OrderStatus> for StatusKind {
    fn from(status: &OrderStatus) -> Self {
        match status {
            OrderStatus::PendingPayment => Self::PendingPayment,
            OrderStatus::Paid { .. } => Self::Paid,
            OrderStatus::PaymentDeclined { .. } => Self::PaymentDeclined,
            OrderStatus::Cancelled(_) => Self::Cancelled,
            OrderStatus::Refunded => Self::Refunded,
        }
    }
}
