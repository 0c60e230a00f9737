//! What a payment is and how it moves. Pure: no I/O, no clock, nothing of ours.

mod machine;
mod payment;
mod values;

pub(crate) use machine::{Change, Step, Told, Turn};
pub(crate) use payment::{
    Answer, Attempt, Cancel, CancelAnswer, Charge, ChargeKey, Payment, PaymentStatus, State, TimestampUs,
};
pub(crate) use values::{CardToken, CustomerId, Money, OrderId, ValueError};
