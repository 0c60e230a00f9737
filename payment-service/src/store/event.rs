//! Events in the form in which they wait in the outbox and travel to the broker.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::outbox::NewEvent;

use crate::domain::{Answer, Payment};

/// The topic that tells what became of payments.
const TOPIC: &str = "payment-events";

pub(super) fn encode(payment: &Payment) -> NewEvent {
    let (kind, body) = match payment.answer.clone() {
        Answer::Captured { charge_id } => {
            let captured = wire::PaymentCaptured { charge_id };
            ("orderflow.events.v1.PaymentCaptured", wire::payment_event::Event::Captured(captured))
        }
        Answer::Declined { reason } => {
            let declined = wire::PaymentDeclined { reason };
            ("orderflow.events.v1.PaymentDeclined", wire::payment_event::Event::Declined(declined))
        }
    };
    let order_id = payment.order_id.to_string();
    let event = wire::PaymentEvent {
        order_id: order_id.clone(),
        customer_id: payment.customer_id.as_str().to_owned(),
        amount: Some(wire_type::Money {
            currency_code: payment.amount.currency().as_str().to_owned(),
            amount_minor: payment.amount.amount_minor(),
        }),
        event: Some(body),
        ..Default::default()
    };
    NewEvent { topic: TOPIC, ordering_key: order_id, kind, payload: event.encode_to_vec() }
}
