//! Events in the form in which they wait in the outbox and travel to the broker.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::events::v1::payment_event::Event as Body;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::outbox::NewEvent;

use crate::domain::{Payment, State, Told};

/// The topic that tells what became of payments.
const TOPIC: &str = "payment-events";

/// The event that tells of a payment how it stands now.
pub(super) fn encode(payment: &Payment, told: Told) -> NewEvent {
    let (charge_id, refund_id, reason) = match payment.state.clone() {
        State::Pending | State::Voided => Default::default(),
        State::Captured { charge_id } => (charge_id, String::new(), String::new()),
        State::Refunded { charge_id, refund_id } => (charge_id, refund_id, String::new()),
        State::Declined { reason } => (String::new(), String::new(), reason),
    };
    let (kind, body) = match told {
        Told::Captured => ("orderflow.events.v1.PaymentCaptured", Body::Captured(wire::PaymentCaptured { charge_id })),
        Told::Declined => ("orderflow.events.v1.PaymentDeclined", Body::Declined(wire::PaymentDeclined { reason })),
        Told::Refunded => ("orderflow.events.v1.PaymentRefunded", Body::Refunded(wire::PaymentRefunded { refund_id })),
        Told::Voided => ("orderflow.events.v1.PaymentVoided", Body::Voided(wire::PaymentVoided {})),
    };
    let order_id = payment.order_id.to_string();
    let event = wire::PaymentEvent {
        order_id: order_id.clone(),
        customer_id: payment.customer_id.as_str().to_owned(),
        amount: payment.amount.as_ref().map(|amount| wire_type::Money {
            currency_code: amount.currency().as_str().to_owned(),
            amount_minor: amount.amount_minor(),
        }),
        attempt: payment.attempt,
        event: Some(body),
    };
    NewEvent { topic: TOPIC, ordering_key: order_id, kind, payload: event.encode_to_vec() }
}
