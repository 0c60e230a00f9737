//! From the domain onto the wire.

use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost_types::Timestamp;

use crate::domain::{Answer, Money, Payment, TimestampUs};

pub(super) fn payment(payment: &Payment) -> wire::Payment {
    let (status, charge_id, decline_reason) = match &payment.answer {
        Answer::Captured { charge_id } => (wire::PaymentStatus::Captured, charge_id.clone(), String::new()),
        Answer::Declined { reason } => (wire::PaymentStatus::Declined, String::new(), reason.clone()),
    };
    wire::Payment {
        order_id: payment.order_id.to_string(),
        customer_id: payment.customer_id.as_str().to_owned(),
        amount: Some(money(&payment.amount)),
        status: status.into(),
        charge_id,
        decline_reason,
        create_time: Some(timestamp(payment.created_at)),
        ..Default::default()
    }
}

fn money(money: &Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().as_str().to_owned(), amount_minor: money.amount_minor() }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
