//! What callers can ask for and what is done with an order. Knows the domain, and by traits what it needs of a store and
//! of an acquirer; nothing else.
//!
//! Queue and RPC charge on one path. Money moves at the acquirer, the order of charge and cancellation is decided there,
//! and what is written here follows it: ask first, then write, and after a crash ask again with the same key.

mod ports;

use std::sync::Arc;

use crate::domain::{
    Answer, Cancel, CancelAnswer, Charge, ChargeKey, OrderId, Payment, PaymentStatus, Step, TimestampUs, Turn,
};

pub(crate) use ports::{Acquirer, Asking, NoAnswer, Patience, Payments, StoreError};

/// How often a cancellation looks again because a new try came in between. Each time there is one try more, so that
/// once is much.
const CANCEL_ROUNDS_MAX: u32 = 8;

/// The use cases. Cheap to clone.
#[derive(Debug)]
pub(crate) struct App<S, A> {
    store: Arc<S>,
    acquirer: Arc<A>,
    now_us: fn() -> i64,
}

/// Where a payment stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// When it was first written down.
    pub(crate) created_at: TimestampUs,
    /// Whose it is; decides between payments of the same microsecond.
    pub(crate) order_id: OrderId,
}

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The order has no payment, or none yet.
    #[error("order `{0}` has no payment yet")]
    NotFound(OrderId),
    /// The order was cancelled: nothing is charged any more.
    #[error("order `{0}` was cancelled")]
    Closed(OrderId),
    /// Charging now could take money twice.
    #[error("attempt {attempt} of order `{order_id}` comes before the one before it was declined")]
    TooEarly {
        /// The order.
        order_id: OrderId,
        /// Which try.
        attempt: u32,
    },
    /// The order has a payment, and it is not the one that is asked for.
    #[error("order `{0}` has a payment of another amount or customer")]
    OtherPayment(OrderId),
    /// The acquirer gives no answer, and the caller can't wait for it.
    #[error("the acquirer is unavailable: {0}")]
    Unavailable(String),
    /// The acquirer works, but not with this.
    #[error("the acquirer cannot process the charge: {0}")]
    Refused(String),
    /// The service is stopping.
    #[error("the service is stopping")]
    Interrupted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An answer of the acquirer, and how it was got.
struct Heard {
    answer: Answer,
    first_at: TimestampUs,
    tries: u32,
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

    /// Charges an order and tells how its payment stands then: captured, declined, or what was known before.
    pub(crate) async fn charge(
        &self,
        message_id: Option<&str>,
        charge: Charge,
        patience: &impl Patience,
    ) -> Result<Payment, Error> {
        let order_id = charge.order_id;
        let known = self.known(order_id, patience).await?;
        match Turn::of(known.as_ref(), charge.attempt) {
            Turn::Ask => {}
            Turn::TooEarly => return Err(Error::TooEarly { order_id, attempt: charge.attempt }),
            Turn::Ended | Turn::Closed => return self.settled(known, charge, patience).await,
        }
        if known.as_ref().is_some_and(|payment| !payment.is_of(&charge)) {
            return Err(Error::OtherPayment(order_id));
        }
        let Heard { answer, first_at, tries } = self.ask(&charge, patience).await?;
        if answer == Answer::Cancelled {
            return Err(Error::Closed(order_id));
        }
        let step = Step::Answered { charge: charge.clone(), first_at, tries, answer };
        if let Some(payment) = self.apply(message_id, step, patience).await? {
            return Ok(payment);
        }
        // Somebody else was faster: the same charge on another way, or a cancellation.
        let known = self.known(order_id, patience).await?;
        self.settled(known, charge, patience).await
    }

    /// Sees to it that no money stays taken for an order, and tells what came of it.
    pub(crate) async fn cancel(
        &self,
        message_id: Option<&str>,
        cancel: Cancel,
        patience: &impl Patience,
    ) -> Result<(), Error> {
        let order_id = cancel.order_id;
        for _ in 0..CANCEL_ROUNDS_MAX {
            let known = self.known(order_id, patience).await?;
            if known.as_ref().is_some_and(|known| known.is_closed() && known.attempt >= cancel.attempt) {
                return Ok(());
            }
            // The try that the order told of, and ours, should they differ.
            let ours = known.map_or(cancel.attempt, |payment| payment.attempt);
            let mut answer = self.ask_cancel(ChargeKey { order_id, attempt: cancel.attempt }, patience).await?;
            if ours != cancel.attempt {
                let other = self.ask_cancel(ChargeKey { order_id, attempt: ours }, patience).await?;
                answer = if answer == CancelAnswer::NothingTaken { other } else { answer };
            }
            let step = Step::Cancelled { cancel: cancel.clone(), attempt_max: ours.max(cancel.attempt), answer };
            if self.apply(message_id, step, patience).await?.is_some() {
                return Ok(());
            }
            // Cancelled by somebody else, or a new try came in between: the next round finds out.
        }
        Err(Error::Refused("the payment changes faster than it can be cancelled".to_owned()))
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

    // The futures that go into `Patience::store` own what they need: with borrows in them, the compiler cannot prove
    // that the whole is `Send`.
    async fn known(&self, order_id: OrderId, patience: &impl Patience) -> Result<Option<Payment>, Error> {
        let store = Arc::clone(&self.store);
        let read = move || {
            let store = Arc::clone(&store);
            async move { store.payment(order_id).await }
        };
        patience.store(read).await
    }

    async fn apply(
        &self,
        message_id: Option<&str>,
        step: Step,
        patience: &impl Patience,
    ) -> Result<Option<Payment>, Error> {
        let (store, message_id, now) = (Arc::clone(&self.store), message_id.map(str::to_owned), self.now());
        let apply = move || {
            let (store, message_id, step) = (Arc::clone(&store), message_id.clone(), step.clone());
            async move { store.apply(message_id, step, now).await }
        };
        patience.store(apply).await
    }

    /// What a charge comes to whose order has its outcome.
    async fn settled(
        &self,
        known: Option<Payment>,
        charge: Charge,
        patience: &impl Patience,
    ) -> Result<Payment, Error> {
        let order_id = charge.order_id;
        let payment = known.ok_or(Error::NotFound(order_id))?;
        if !payment.is_closed() {
            return if payment.is_of(&charge) { Ok(payment) } else { Err(Error::OtherPayment(order_id)) };
        }
        if charge.attempt > payment.attempt {
            // This try may have reached the acquirer, now or before a crash, and the cancellation did not know of it.
            let Charge { customer_id, amount, attempt, .. } = charge;
            let cancel = Cancel { order_id, customer_id, amount: Some(amount), attempt };
            self.cancel(None, cancel, patience).await?;
        }
        Err(Error::Closed(order_id))
    }

    /// Asks the acquirer for a charge, as long as the caller can wait. Who looks at the payment meanwhile sees why it
    /// has no outcome; that is written once at first, and then once for each time that the acquirer is probed.
    async fn ask(&self, charge: &Charge, patience: &impl Patience) -> Result<Heard, Error> {
        let (first_at, mut tries, mut failures) = (self.now(), 0, 0);
        if patience.stopping().is_some() && !self.acquirer.answers() {
            self.note(charge, first_at, 0, "the acquirer does not answer").await;
        }
        loop {
            let asking = Asking { stopping: patience.stopping(), failures };
            match self.acquirer.charge(charge, asking).await {
                Ok(answer) => return Ok(Heard { answer, first_at, tries: tries + 1 }),
                Err(NoAnswer::Unavailable { reason, asked }) => {
                    tries += u32::from(asked);
                    failures += 1;
                    if asked && (failures == 1 || !self.acquirer.answers()) {
                        self.note(charge, first_at, tries, &reason).await;
                        tries = 0;
                    }
                    if !asked || !patience.has_time() {
                        return Err(Error::Unavailable(reason));
                    }
                }
                Err(NoAnswer::Refused(reason)) => return Err(Error::Refused(reason)),
                Err(NoAnswer::Interrupted) => return Err(Error::Interrupted),
            }
        }
    }

    async fn ask_cancel(&self, key: ChargeKey, patience: &impl Patience) -> Result<CancelAnswer, Error> {
        let mut failures = 0;
        loop {
            let asking = Asking { stopping: patience.stopping(), failures };
            match self.acquirer.cancel(key, asking).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Unavailable { asked, reason }) if !asked || !patience.has_time() => {
                    return Err(Error::Unavailable(reason));
                }
                Err(NoAnswer::Unavailable { .. }) => failures += 1,
                Err(NoAnswer::Refused(reason)) => return Err(Error::Refused(reason)),
                Err(NoAnswer::Interrupted) => return Err(Error::Interrupted),
            }
        }
    }

    /// Writes down that a charge waits. Best effort: nothing depends on it.
    async fn note(&self, charge: &Charge, first_at: TimestampUs, tries: u32, reason: &str) {
        let step = Step::Waiting { charge: charge.clone(), first_at, tries, reason: reason.to_owned() };
        drop(self.store.apply(None, step, self.now()).await);
    }

    fn now(&self) -> TimestampUs {
        TimestampUs((self.now_us)())
    }
}

impl Payment {
    /// Whether a charge is for this payment.
    fn is_of(&self, charge: &Charge) -> bool {
        self.amount.as_ref() == Some(&charge.amount) && self.customer_id == charge.customer_id
    }
}

impl From<&Payment> for Position {
    fn from(payment: &Payment) -> Self {
        Self { created_at: payment.created_at, order_id: payment.order_id }
    }
}
