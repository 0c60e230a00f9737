//! What callers can ask for. Knows the domain, and by [`Orders`] and [`Payments`] what it needs of others; nothing else.

mod checkout;
mod ports;
mod sweeper;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use checkout::{CALL_GRACE_MS, Charge};
pub(crate) use ports::{
    Changed, Filter, Fingerprint, Happening, Orders, Payments, Placed, StatusKind, Step, StepKind, StoreError,
};
pub(crate) use sweeper::Sweeper;
pub(crate) use watchers::{WATCHES_MAX, Watch};

use crate::domain::{
    CancelReason, IdempotencyKey, NewOrder, Order, OrderId, PaymentOutcome, PaymentToken, Refusal, TimestampUs,
};
use sweeper::Alarm;
use watchers::Watchers;

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S> {
    store: Arc<S>,
    watchers: Arc<Watchers>,
    alarm: Arc<Alarm>,
    terms: Terms,
    now_us: fn() -> i64,
}

/// How long orders may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long a synchronous checkout waits for payment-service.
    pub(crate) payment_timeout: Duration,
    /// How long an order may wait for its payment when its request does not say; `None` for ever.
    pub(crate) payment_deadline_us: Option<i64>,
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
    /// A synchronous checkout got no answer about its payment.
    #[error("payment gave no answer in time: order `{0}` is cancelled, and nothing stays charged")]
    PaymentUnavailable(OrderId),
    /// More watches are open than the service allows.
    #[error("more than {WATCHES_MAX} watches are open")]
    TooManyWatches,
    /// The order's state does not allow it.
    #[error(transparent)]
    Refused(Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            watchers: Arc::clone(&self.watchers),
            alarm: Arc::clone(&self.alarm),
            terms: self.terms,
            now_us: self.now_us,
        }
    }
}

impl<S: Orders> App<S> {
    /// The use cases on a store; `now_us` tells the microseconds since 1970.
    pub(crate) fn new(store: S, terms: Terms, now_us: fn() -> i64) -> Self {
        Self { store: Arc::new(store), watchers: Arc::default(), alarm: Arc::default(), terms, now_us }
    }

    /// Accepts an order, or finds the one that the same request made before. In a synchronous checkout it is charged by
    /// `payments`, and the order comes back as it stands then.
    pub(crate) async fn place<P: Payments>(
        &self,
        mut new: NewOrder,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        payments: &P,
    ) -> Result<Order, Error> {
        new.payment_deadline_us = new.payment_deadline_us.or(self.terms.payment_deadline_us);
        let order = Order::place(new, OrderId::from_uuid(Uuid::now_v7()), self.now(), self.call_us());
        let order = match self.store.place(order, key, fingerprint).await? {
            Placed::New(order) | Placed::Known(order) => order,
            Placed::KeyReused => return Err(Error::KeyReused),
        };
        if let Some((at, _)) = order.due() {
            self.alarm.set(at);
        }
        // Also for an order that is known: its first request may have died halfway.
        match order.call_deadline {
            Some(_) => checkout::charge(self, order, payments).await,
            None => Ok(order),
        }
    }

    /// One order.
    pub(crate) async fn order(&self, id: OrderId) -> Result<Order, Error> {
        self.store.order(id).await?.ok_or(Error::NotFound(id))
    }

    /// What the store knows of an order's life, oldest first.
    pub(crate) async fn steps(&self, id: OrderId) -> Result<Vec<Step>, Error> {
        Ok(self.store.steps(id).await?)
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

    /// Cancels an order for its customer, or asks for its money back.
    pub(crate) async fn cancel(&self, id: OrderId) -> Result<Order, Error> {
        self.ask(id, |order, now| Ok(order.cancel(CancelReason::Customer, now))).await
    }

    /// Tries another card.
    pub(crate) async fn retry(&self, id: OrderId, token: PaymentToken) -> Result<Order, Error> {
        let order = self.ask(id, move |order, now| order.retry(token.clone(), now)).await?;
        if let Some((at, _)) = order.due() {
            self.alarm.set(at);
        }
        Ok(order)
    }

    /// Takes the outcome of a payment that the message `message_id` tells.
    pub(crate) async fn settle(
        &self,
        message_id: String,
        id: OrderId,
        outcome: PaymentOutcome,
    ) -> Result<Changed, StoreError> {
        self.change(Some(message_id), id, move |order, now| order.settle(outcome.clone(), now)).await
    }

    /// Changes an order that a caller asks for.
    async fn ask(&self, id: OrderId, decide: impl Decide) -> Result<Order, Error> {
        match self.change(None, id, decide).await? {
            Changed::To(order) | Changed::Nothing(order) => Ok(order),
            Changed::Unknown => Err(Error::NotFound(id)),
            Changed::Refused(refusal) => Err(Error::Refused(refusal)),
        }
    }

    async fn change(
        &self,
        message_id: Option<String>,
        id: OrderId,
        decide: impl Decide,
    ) -> Result<Changed, StoreError> {
        let now = self.now();
        let changed = self.store.change(message_id, id, move |order| decide(order, now)).await?;
        if let Changed::To(order) = &changed {
            self.watchers.tell(order);
        }
        Ok(changed)
    }

    fn now(&self) -> TimestampUs {
        TimestampUs((self.now_us)())
    }

    /// After this many microseconds the call that charges an order is over for certain.
    fn call_us(&self) -> i64 {
        let call = self.terms.payment_timeout + Duration::from_millis(CALL_GRACE_MS);
        i64::try_from(call.as_micros()).unwrap_or(i64::MAX)
    }
}

/// What is decided about an order at a time.
trait Decide: Fn(&mut Order, TimestampUs) -> Happening + Send + Sync + 'static {}

impl<F: Fn(&mut Order, TimestampUs) -> Happening + Send + Sync + 'static> Decide for F {}

#[cfg(test)]
mod tests;
