//! Events in the form in which they wait in the outbox and travel to the broker.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::outbox::NewEvent;

use crate::domain::{Money, Order, OrderEvent};

/// The topic that tells what happened to orders.
const TOPIC: &str = "order-events";

pub(super) fn encode(order: &Order, event: OrderEvent) -> NewEvent {
    let total = Some(money(order.total()));
    let (kind, body) = match event {
        OrderEvent::Placed => {
            let payment_token = order.payment_token.as_str().to_owned();
            let placed = wire::OrderPlaced { total, payment_token, ..Default::default() };
            ("orderflow.events.v1.OrderPlaced", wire::order_event::Event::Placed(placed))
        }
        OrderEvent::Paid => {
            ("orderflow.events.v1.OrderPaid", wire::order_event::Event::Paid(wire::OrderPaid { total }))
        }
        OrderEvent::Declined => {
            let declined = wire::OrderDeclined { reason: order.decline_reason().unwrap_or_default().to_owned() };
            ("orderflow.events.v1.OrderDeclined", wire::order_event::Event::Declined(declined))
        }
    };
    let order_id = order.id.to_string();
    let customer_id = order.customer_id.as_str().to_owned();
    let payload = wire::OrderEvent { order_id: order_id.clone(), customer_id, event: Some(body), ..Default::default() }
        .encode_to_vec();
    NewEvent { topic: TOPIC, ordering_key: order_id, kind, payload }
}

fn money(money: Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().to_string(), amount_minor: money.amount_minor() }
}
