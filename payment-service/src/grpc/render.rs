//! From the domain onto the wire.

use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost_types::Timestamp;

use crate::domain::{Attempt, Money, Payment, PaymentStatus, State, TimestampUs};

pub(super) fn payment(payment: &Payment) -> wire::Payment {
    let (charge_id, refund_id, decline_reason) = match payment.state.clone() {
        State::Pending | State::Voided => Default::default(),
        State::Captured { charge_id } => (charge_id, String::new(), String::new()),
        State::Refunded { charge_id, refund_id } => (charge_id, refund_id, String::new()),
        State::Declined { reason } => (String::new(), String::new(), reason),
    };
    wire::Payment {
        order_id: payment.order_id.to_string(),
        customer_id: payment.customer_id.as_str().to_owned(),
        amount: payment.amount.as_ref().map(money),
        status: status(payment.status()).into(),
        charge_id,
        decline_reason,
        create_time: Some(timestamp(payment.created_at)),
        attempt: payment.attempt,
        capture_time: payment.captured_at.map(timestamp),
        refund_id,
        refund_time: payment.refunded_at.map(timestamp),
        update_time: Some(timestamp(payment.updated_at)),
        attempts: payment.attempts.iter().map(attempt).collect(),
    }
}

fn attempt(attempt: &Attempt) -> wire::PaymentAttempt {
    wire::PaymentAttempt {
        attempt: attempt.attempt,
        first_time: Some(timestamp(attempt.first_at)),
        end_time: attempt.ended_at.map(timestamp),
        tries: attempt.tries,
        outcome: status(attempt.outcome).into(),
        detail: attempt.detail.clone(),
    }
}

fn status(status: PaymentStatus) -> wire::PaymentStatus {
    match status {
        PaymentStatus::Pending => wire::PaymentStatus::Pending,
        PaymentStatus::Captured => wire::PaymentStatus::Captured,
        PaymentStatus::Declined => wire::PaymentStatus::Declined,
        PaymentStatus::Voided => wire::PaymentStatus::Voided,
        PaymentStatus::Refunded => wire::PaymentStatus::Refunded,
    }
}

fn money(money: &Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().as_str().to_owned(), amount_minor: money.amount_minor() }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
