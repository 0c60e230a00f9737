//! How a payment moves. Every change goes through [`Step::apply`], in the transaction that also writes its event.
//!
//! ```text
//!   (none) ──► PENDING ──► CAPTURED ─────────► REFUNDED
//!      │          │ ▲
//!      │          │ └────── another card ─┐
//!      │          └──────► DECLINED ──────┘
//!      └── from each of these, when the order is cancelled ──► VOIDED
//! ```
//!
//! A charge that is answered at once skips PENDING. VOIDED and REFUNDED are final: no charge follows, and an answer
//! that comes late is not written down. Whether money went back is the acquirer's to say, so that a cancelled payment
//! becomes REFUNDED also when we never heard that it was captured.

use super::{Answer, Attempt, Cancel, CancelAnswer, Charge, Payment, PaymentStatus, State, TimestampUs};

/// Whether a charge may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The acquirer is to be asked.
    Ask,
    /// This try, or a later one, has its outcome.
    Ended,
    /// The order was cancelled.
    Closed,
    /// The try before has not been declined: asking now could take money twice.
    TooEarly,
}

impl Turn {
    /// Whether try number `attempt` may be charged, by what is known of the order's payment.
    pub(crate) fn of(known: Option<&Payment>, attempt: u32) -> Self {
        let Some(payment) = known else { return if attempt == 1 { Self::Ask } else { Self::TooEarly } };
        match payment.state {
            State::Voided | State::Refunded { .. } => Self::Closed,
            State::Pending if attempt == payment.attempt => Self::Ask,
            State::Declined { .. } if attempt == payment.attempt.saturating_add(1) => Self::Ask,
            State::Captured { .. } => Self::Ended,
            State::Pending | State::Declined { .. } if attempt <= payment.attempt => Self::Ended,
            State::Pending | State::Declined { .. } => Self::TooEarly,
        }
    }
}

/// What has happened to a payment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The acquirer was asked and has not answered, or has not been asked because it does not answer.
    Waiting {
        /// What it was asked for.
        charge: Charge,
        /// When that was first.
        first_at: TimestampUs,
        /// How often it was asked since this was last written down.
        tries: u32,
        /// Why there is no answer.
        reason: String,
    },
    /// The acquirer has answered.
    Answered {
        /// What it was asked for.
        charge: Charge,
        /// When it was asked first.
        first_at: TimestampUs,
        /// How often it was asked since this was last written down.
        tries: u32,
        /// What it said.
        answer: Answer,
    },
    /// The order was cancelled, and the acquirer has seen to it that no money stays taken.
    Cancelled {
        /// What was asked for.
        cancel: Cancel,
        /// The highest try for which the acquirer was asked.
        attempt_max: u32,
        /// What it said.
        answer: CancelAnswer,
    },
}

/// What is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The money was taken.
    Captured,
    /// The card was refused.
    Declined,
    /// The money went back.
    Refunded,
    /// No money was taken, and none can be.
    Voided,
}

/// A payment as it is from now on, and what is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) payment: Payment,
    pub(crate) told: Option<Told>,
}

impl Step {
    /// Whose payment it is about.
    pub(crate) fn order_id(&self) -> super::OrderId {
        match self {
            Self::Waiting { charge, .. } | Self::Answered { charge, .. } => charge.order_id,
            Self::Cancelled { cancel, .. } => cancel.order_id,
        }
    }

    /// What becomes of the payment; `None` when nothing does.
    pub(crate) fn apply(self, known: Option<Payment>, now: TimestampUs) -> Option<Change> {
        match self {
            Self::Waiting { charge, first_at, tries, reason } => {
                let mut payment = asked(known, &charge, first_at, now)?;
                let attempt = payment.attempts.last_mut()?;
                attempt.tries = attempt.tries.saturating_add(tries);
                attempt.detail = reason;
                payment.updated_at = now;
                Some(Change { payment, told: None })
            }
            Self::Answered { charge, first_at, tries, answer } => {
                answered(known, &charge, first_at, tries, answer, now)
            }
            Self::Cancelled { cancel, attempt_max, answer } => cancelled(known, cancel, attempt_max, answer, now),
        }
    }
}

/// The payment with this try under way, its attempt the last of the list.
fn asked(known: Option<Payment>, charge: &Charge, first_at: TimestampUs, now: TimestampUs) -> Option<Payment> {
    if Turn::of(known.as_ref(), charge.attempt) != Turn::Ask {
        return None;
    }
    let mut payment = known.unwrap_or_else(|| Payment {
        order_id: charge.order_id,
        customer_id: charge.customer_id.clone(),
        amount: Some(charge.amount.clone()),
        state: State::Pending,
        attempt: charge.attempt,
        created_at: now,
        captured_at: None,
        refunded_at: None,
        updated_at: now,
        attempts: Vec::new(),
    });
    (payment.state, payment.attempt) = (State::Pending, charge.attempt);
    match payment.attempts.last_mut() {
        Some(last) if last.attempt == charge.attempt => last.first_at = last.first_at.min(first_at),
        _ => payment.attempts.push(Attempt {
            attempt: charge.attempt,
            first_at,
            ended_at: None,
            tries: 0,
            outcome: PaymentStatus::Pending,
            detail: String::new(),
        }),
    }
    Some(payment)
}

fn answered(
    known: Option<Payment>,
    charge: &Charge,
    first_at: TimestampUs,
    tries: u32,
    answer: Answer,
    now: TimestampUs,
) -> Option<Change> {
    let mut payment = asked(known, charge, first_at, now)?;
    let (state, told, detail) = match answer {
        Answer::Captured { charge_id } => (State::Captured { charge_id }, Told::Captured, String::new()),
        Answer::Declined { reason } => (State::Declined { reason: reason.clone() }, Told::Declined, reason),
        // Whoever cancelled it writes that down.
        Answer::Cancelled => return None,
    };
    payment.state = state;
    payment.captured_at = (told == Told::Captured).then_some(now);
    payment.updated_at = now;
    let outcome = payment.status();
    let attempt = payment.attempts.last_mut()?;
    attempt.tries = attempt.tries.saturating_add(tries);
    (attempt.ended_at, attempt.outcome, attempt.detail) = (Some(now), outcome, detail);
    Some(Change { payment, told: Some(told) })
}

fn cancelled(
    known: Option<Payment>,
    cancel: Cancel,
    attempt_max: u32,
    answer: CancelAnswer,
    now: TimestampUs,
) -> Option<Change> {
    let mut payment = known.unwrap_or_else(|| Payment {
        order_id: cancel.order_id,
        customer_id: cancel.customer_id,
        amount: cancel.amount,
        state: State::Pending,
        attempt: attempt_max,
        created_at: now,
        captured_at: None,
        refunded_at: None,
        updated_at: now,
        attempts: Vec::new(),
    });
    if payment.is_closed() {
        // A later try was cancelled as well: that is kept, so that it is not asked for again.
        let later = attempt_max > payment.attempt;
        payment.attempt = payment.attempt.max(attempt_max);
        return later.then_some(Change { payment, told: None });
    }
    if payment.attempt > attempt_max {
        // Another try has begun since the acquirer was asked; what it said is not the whole truth.
        return None;
    }
    let told = match answer {
        CancelAnswer::NothingTaken => {
            payment.state = State::Voided;
            Told::Voided
        }
        CancelAnswer::Refunded { charge_id, refund_id, amount } => {
            payment.state = State::Refunded { charge_id, refund_id };
            payment.refunded_at = Some(now);
            payment.amount.get_or_insert(amount);
            Told::Refunded
        }
    };
    payment.attempt = attempt_max;
    payment.updated_at = now;
    let outcome = payment.status();
    if let Some(open) = payment.attempts.iter_mut().find(|attempt| attempt.ended_at.is_none()) {
        (open.ended_at, open.outcome) = (Some(now), outcome);
    }
    Some(Change { payment, told: Some(told) })
}
