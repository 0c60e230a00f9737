//! The state machine of an order: what may happen to it, and what the world is told then. Its diagram stands in
//! docs/order-saga.md.

use super::{CancelReason, Money, Order, OrderStatus, PaymentToken, TimestampUs};

/// Cards that may be tried for one order.
pub(crate) const PAYMENT_ATTEMPTS_MAX: u32 = 20;

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PaymentOutcome {
    /// Of which try of the order, from 1.
    pub(crate) attempt: u32,
    /// How it went.
    pub(crate) outcome: Outcome,
}

/// How a try to be paid went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The acquirer took this amount.
    Captured(Money),
    /// The acquirer said no.
    Declined {
        /// Its reason.
        reason: String,
    },
    /// The acquirer gave this amount back.
    Refunded(Money),
    /// Nothing was taken, and nothing can be any more.
    Voided,
}

/// What the world is told about an order. Each event is also a step of its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderEvent {
    /// It was accepted.
    Placed,
    /// Another card is to be tried.
    PaymentRetried,
    /// It was paid.
    Paid,
    /// Its card was declined.
    Declined,
    /// It ended before it was paid.
    Cancelled,
    /// It is paid, and its money is to go back.
    RefundRequested,
    /// Its money went back.
    Refunded,
}

/// What is kept in the timeline of a cancelled order, which does not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// What was charged all the same went back.
    Refunded,
    /// Nothing was charged.
    Voided,
}

/// What came of something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It was known already, or belongs to a try that does not count any more.
    Nothing,
    /// The order stays as it is; the timeline gets a step.
    Noted(Note),
    /// The order changed, which is to be told.
    Told(OrderEvent),
}

/// Why an order cannot take what happened. If it was an outcome, somebody has to look at it: money may be in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The amount is not the order's total.
    #[error("the amount of the outcome is not the total of the order")]
    WrongAmount,
    /// The order says otherwise.
    #[error("the outcome contradicts the state that the order has already reached")]
    Contradiction,
    /// There is nothing to retry.
    #[error("only an order whose card was declined can be paid with another one")]
    NotDeclined,
    /// Too many cards were tried.
    #[error("{PAYMENT_ATTEMPTS_MAX} cards were tried, and no more are allowed")]
    AttemptsExhausted,
}

impl Order {
    /// Takes what became of a payment. Whatever comes late, twice or of an older try changes nothing.
    pub(crate) fn settle(&mut self, outcome: PaymentOutcome, now: TimestampUs) -> Result<Effect, Refusal> {
        use Outcome::{Captured, Declined, Refunded, Voided};
        let PaymentOutcome { attempt, outcome } = outcome;
        if matches!(outcome, Captured(amount) | Refunded(amount) if amount != self.total()) {
            return Err(Refusal::WrongAmount);
        }
        let (status, event) = match (&self.status, outcome) {
            // Whatever its try: the acquirer has closed the order's charges.
            (OrderStatus::Cancelled(_), Refunded(_)) => return Ok(Effect::Noted(Note::Refunded)),
            (OrderStatus::Cancelled(_), Voided) => return Ok(Effect::Noted(Note::Voided)),
            // A charge that crossed the cancellation: it goes back, which is told later.
            (OrderStatus::Cancelled(_) | OrderStatus::Refunded, _) => return Ok(Effect::Nothing),
            _ if attempt != self.attempt => return Ok(Effect::Nothing),
            (OrderStatus::PendingPayment, Captured(_)) => {
                (OrderStatus::Paid { refund_pending: false }, OrderEvent::Paid)
            }
            (OrderStatus::PendingPayment, Declined { reason }) => {
                (OrderStatus::PaymentDeclined { reason }, OrderEvent::Declined)
            }
            (OrderStatus::Paid { refund_pending: true }, Refunded(_)) => (OrderStatus::Refunded, OrderEvent::Refunded),
            (OrderStatus::Paid { .. }, Captured(_)) | (OrderStatus::PaymentDeclined { .. }, Declined { .. }) => {
                return Ok(Effect::Nothing);
            }
            // Nobody asked for it.
            (OrderStatus::PendingPayment, Refunded(_) | Voided)
            | (OrderStatus::Paid { .. }, Declined { .. } | Refunded(_) | Voided)
            | (OrderStatus::PaymentDeclined { .. }, Captured(_) | Refunded(_) | Voided) => {
                return Err(Refusal::Contradiction);
            }
        };
        Ok(self.turn_into(status, event, now))
    }

    /// Ends the order, or asks for its money back if it was paid. What has ended stays as it is.
    pub(crate) fn cancel(&mut self, reason: CancelReason, now: TimestampUs) -> Effect {
        match self.status {
            OrderStatus::PendingPayment | OrderStatus::PaymentDeclined { .. } => {
                self.turn_into(OrderStatus::Cancelled(reason), OrderEvent::Cancelled, now)
            }
            OrderStatus::Paid { refund_pending: false } if reason == CancelReason::Customer => {
                self.turn_into(OrderStatus::Paid { refund_pending: true }, OrderEvent::RefundRequested, now)
            }
            OrderStatus::Paid { .. } | OrderStatus::Cancelled(_) | OrderStatus::Refunded => Effect::Nothing,
        }
    }

    /// Ends a synchronous checkout that got no answer about its payment; not if an answer came another way.
    pub(crate) fn give_up(&mut self, now: TimestampUs) -> Effect {
        // Without its deadline the call has had its answer: what is pending now is another try.
        match (&self.status, self.call_deadline) {
            (OrderStatus::PendingPayment, Some(_)) => self.cancel(CancelReason::PaymentUnavailable, now),
            _ => Effect::Nothing,
        }
    }

    /// Cancels the order if its time is over.
    pub(crate) fn expire(&mut self, now: TimestampUs) -> Effect {
        match self.due() {
            Some((at, reason)) if at <= now => self.cancel(reason, now),
            _ => Effect::Nothing,
        }
    }

    /// Tries another card. The same again while that try is on its way changes nothing.
    pub(crate) fn retry(&mut self, token: PaymentToken, now: TimestampUs) -> Result<Effect, Refusal> {
        match self.status {
            OrderStatus::PendingPayment if self.attempt > 1 && self.payment_token == token => Ok(Effect::Nothing),
            OrderStatus::PaymentDeclined { .. } if self.attempt >= PAYMENT_ATTEMPTS_MAX => {
                Err(Refusal::AttemptsExhausted)
            }
            OrderStatus::PaymentDeclined { .. } => {
                self.attempt += 1;
                self.payment_token = token;
                Ok(self.turn_into(OrderStatus::PendingPayment, OrderEvent::PaymentRetried, now))
            }
            _ => Err(Refusal::NotDeclined),
        }
    }

    fn turn_into(&mut self, status: OrderStatus, event: OrderEvent, now: TimestampUs) -> Effect {
        self.status = status;
        // The call is over with the first change: a retry goes through the queue.
        self.call_deadline = None;
        self.revision += 1;
        self.updated_at = now;
        Effect::Told(event)
    }
}

#[cfg(test)]
mod tests;
