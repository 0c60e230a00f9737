//! What an order is and what may happen to it. Pure: no I/O, no clock, nothing of ours.

mod lines;
mod money;
mod names;
mod order;
mod saga;

pub(crate) use lines::{LINES_MAX, Lines, LinesError, OrderLine, Quantity};
pub(crate) use money::{CurrencyCode, Money};
pub(crate) use names::{CustomerId, Email, IdempotencyKey, InvoiceNumber, OrderId, PaymentToken, Sku};
pub(crate) use order::{
    CancelReason, CheckoutMode, DECLINE_REASON_CHARS_MAX, NewOrder, Order, OrderStatus, PAYMENT_DEADLINE_US_MAX,
    PAYMENT_DEADLINE_US_MIN, TimestampUs,
};
pub(crate) use saga::{Effect, Note, OrderEvent, Outcome, PaymentOutcome, Refusal};

/// Why a single value was refused. The text reads well behind the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// A text is empty or too long.
    #[error("must have 1 to {max} characters")]
    Length {
        /// The greatest number of characters allowed.
        max: usize,
    },
    /// A text holds characters that nobody can see.
    #[error("must not hold control characters")]
    ControlCharacter,
    /// An order id is not a UUID.
    #[error("must be a UUID")]
    Uuid,
    /// A currency is not three capital letters.
    #[error("must be an ISO 4217 code of three capital letters")]
    Currency,
    /// A text is no e-mail address.
    #[error("must be an e-mail address such as ada@example.org")]
    Email,
    /// A quantity is out of range.
    #[error("must be 1 to {max}")]
    Quantity {
        /// The greatest quantity allowed.
        max: u32,
    },
    /// A price is below zero.
    #[error("must be zero or more")]
    Negative,
}
