use super::{CardToken, CustomerId, Money, OrderId};

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimestampUs(pub(crate) i64);

/// What the acquirer is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// The order that is paid. It is also the idempotency key: one order, one charge.
    pub(crate) order_id: OrderId,
    /// Who pays.
    pub(crate) customer_id: CustomerId,
    /// How much.
    pub(crate) amount: Money,
    /// With what.
    pub(crate) card: CardToken,
}

/// What the acquirer says. Both are answers; an acquirer that cannot be reached gives none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took the money.
    Captured {
        /// Its id of the charge.
        charge_id: String,
    },
    /// It said no.
    Declined {
        /// Its reason.
        reason: String,
    },
}

/// A payment that has reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    /// The order; it has one payment at most.
    pub(crate) order_id: OrderId,
    /// Who paid.
    pub(crate) customer_id: CustomerId,
    /// How much.
    pub(crate) amount: Money,
    /// How it ended.
    pub(crate) answer: Answer,
    /// When it ended.
    pub(crate) created_at: TimestampUs,
}

/// How a payment ended, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentStatus {
    /// [`Answer::Captured`]
    Captured,
    /// [`Answer::Declined`]
    Declined,
}

impl Payment {
    /// The end of a charge.
    pub(crate) fn new(charge: Charge, answer: Answer, now: TimestampUs) -> Self {
        let Charge { order_id, customer_id, amount, card: _ } = charge;
        Self { order_id, customer_id, amount, answer, created_at: now }
    }

    /// How it ended.
    pub(crate) fn status(&self) -> PaymentStatus {
        match self.answer {
            Answer::Captured { .. } => PaymentStatus::Captured,
            Answer::Declined { .. } => PaymentStatus::Declined,
        }
    }
}
