//! What a payment is. Pure: no I/O, no clock, nothing of ours.

mod payment;
mod values;

pub(crate) use payment::{Answer, Charge, Payment, PaymentStatus, TimestampUs};
pub(crate) use values::{CardToken, CustomerId, Money, OrderId, ValueError};
