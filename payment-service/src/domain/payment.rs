use std::fmt;

use super::{CardToken, CustomerId, Money, OrderId};

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimestampUs(pub(crate) i64);

/// What the acquirer is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// The order that is paid.
    pub(crate) order_id: OrderId,
    /// Who pays.
    pub(crate) customer_id: CustomerId,
    /// How much.
    pub(crate) amount: Money,
    /// With what.
    pub(crate) card: CardToken,
    /// Which try of the order this is, from 1.
    pub(crate) attempt: u32,
}

/// What makes a charge one of a kind at the acquirer: one try of one order, one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChargeKey {
    /// The order.
    pub(crate) order_id: OrderId,
    /// Which try, from 1.
    pub(crate) attempt: u32,
}

/// What the acquirer says to a charge. All are answers; an acquirer that cannot be reached gives none.
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
    /// We had told it to cancel this charge: no money is taken, or none stays taken.
    Cancelled,
}

/// An order that ended without being paid, or is to be paid back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cancel {
    /// The order.
    pub(crate) order_id: OrderId,
    /// Whose it was.
    pub(crate) customer_id: CustomerId,
    /// What was to be charged, if we were told.
    pub(crate) amount: Option<Money>,
    /// The try that may be under way, from 1.
    pub(crate) attempt: u32,
}

/// What the acquirer says to a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CancelAnswer {
    /// No money was taken, and none can be any more.
    NothingTaken,
    /// The money went back.
    Refunded {
        /// Its id of the charge.
        charge_id: String,
        /// Its id of the refund.
        refund_id: String,
        /// How much.
        amount: Money,
    },
}

/// How a payment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The acquirer has not answered yet.
    Pending,
    /// It took the money.
    Captured {
        /// Its id of the charge.
        charge_id: String,
    },
    /// It said no. Another try may follow.
    Declined {
        /// Its reason.
        reason: String,
    },
    /// The order was cancelled before any money was taken. Final.
    Voided,
    /// The money went back. Final.
    Refunded {
        /// The acquirer's id of the charge.
        charge_id: String,
        /// Its id of the refund.
        refund_id: String,
    },
}

/// A payment. An order has one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    /// The order.
    pub(crate) order_id: OrderId,
    /// Who pays.
    pub(crate) customer_id: CustomerId,
    /// How much; unknown when the order was cancelled before we heard of it.
    pub(crate) amount: Option<Money>,
    /// How it stands.
    pub(crate) state: State,
    /// Which try stands, from 1.
    pub(crate) attempt: u32,
    /// When we first wrote it down.
    pub(crate) created_at: TimestampUs,
    /// When the money was taken and that was told.
    pub(crate) captured_at: Option<TimestampUs>,
    /// When the money went back.
    pub(crate) refunded_at: Option<TimestampUs>,
    /// When it changed last.
    pub(crate) updated_at: TimestampUs,
    /// Each try, oldest first.
    pub(crate) attempts: Vec<Attempt>,
}

/// One try to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// From 1.
    pub(crate) attempt: u32,
    /// When the acquirer was asked first.
    pub(crate) first_at: TimestampUs,
    /// When it answered.
    pub(crate) ended_at: Option<TimestampUs>,
    /// How often it was asked, as far as that was written down.
    pub(crate) tries: u32,
    /// What came of it.
    pub(crate) outcome: PaymentStatus,
    /// Why there is no answer, or why the answer is no.
    pub(crate) detail: String,
}

/// How a payment stands, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentStatus {
    /// [`State::Pending`]
    Pending,
    /// [`State::Captured`]
    Captured,
    /// [`State::Declined`]
    Declined,
    /// [`State::Voided`]
    Voided,
    /// [`State::Refunded`]
    Refunded,
}

impl Charge {
    /// What makes it one of a kind at the acquirer.
    pub(crate) fn key(&self) -> ChargeKey {
        ChargeKey { order_id: self.order_id, attempt: self.attempt }
    }
}

impl fmt::Display for ChargeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempt {
            1 => self.order_id.fmt(f),
            attempt => write!(f, "{}/{attempt}", self.order_id),
        }
    }
}

impl Payment {
    /// How it stands.
    pub(crate) fn status(&self) -> PaymentStatus {
        match self.state {
            State::Pending => PaymentStatus::Pending,
            State::Captured { .. } => PaymentStatus::Captured,
            State::Declined { .. } => PaymentStatus::Declined,
            State::Voided => PaymentStatus::Voided,
            State::Refunded { .. } => PaymentStatus::Refunded,
        }
    }

    /// Whether no money can be taken for this order any more.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Voided | State::Refunded { .. })
    }
}
