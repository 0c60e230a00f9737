//! What the use cases need of a store, of an acquirer, and of whoever calls them.

use tokio_util::sync::CancellationToken;

use super::{Error, Position};
use crate::domain::{Answer, CancelAnswer, Charge, ChargeKey, OrderId, Payment, PaymentStatus, Step, TimestampUs};

/// A store of payments. Whatever it returns from a change is on disk.
pub(crate) trait Payments: Send + Sync + 'static {
    /// Does a step in one transaction: the payment as the step leaves it, its event, and the mark that the message
    /// `message_id` was handled. `None` when the step changes nothing, or the message was handled before.
    fn apply(
        &self,
        message_id: Option<String>,
        step: Step,
        now: TimestampUs,
    ) -> impl Future<Output = Result<Option<Payment>, StoreError>> + Send;

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
    /// Asks once for a charge. The same charge again brings the first result.
    fn charge(&self, charge: &Charge, asking: Asking<'_>) -> impl Future<Output = Result<Answer, NoAnswer>> + Send;

    /// Asks once that no money stays taken under a key, now and later.
    fn cancel(&self, key: ChargeKey, asking: Asking<'_>)
    -> impl Future<Output = Result<CancelAnswer, NoAnswer>> + Send;

    /// Whether it answers, by what was heard of it last.
    fn answers(&self) -> bool;
}

/// How to ask somebody who may be unavailable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    /// Waits for as long as calls have to, until this is cancelled; without it, gives up instead of waiting.
    pub(crate) stopping: Option<&'a CancellationToken>,
    /// How often there was no answer to this request so far: the next one comes after a pause that grows with it.
    pub(crate) failures: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It was asked and nobody knows what came of it, or it was not asked because it is known to be away.
    #[error("the acquirer is unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
        /// Whether it was asked.
        asked: bool,
    },
    /// The acquirer did not understand the request, or its answer makes no sense: not an outage, and not the customer's
    /// fault.
    #[error("the acquirer cannot process the charge: {0}")]
    Refused(String),
    /// The service is stopping while the acquirer is unavailable.
    #[error("the service is stopping")]
    Interrupted,
}

/// How whoever calls a use case can wait: a message can for as long as it takes, a caller of an RPC cannot.
pub(crate) trait Patience: Send + Sync {
    /// Calls the store, again if it is unavailable and there is time.
    fn store<T, R>(&self, call: impl FnMut() -> R + Send) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Send,
        R: Future<Output = Result<T, StoreError>> + Send;

    /// What ends the waiting for the acquirer; `None` for a caller who does not wait for it to come back.
    fn stopping(&self) -> Option<&CancellationToken>;

    /// Whether the acquirer is asked once more after it was asked in vain.
    fn has_time(&self) -> bool;
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
