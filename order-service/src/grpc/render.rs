//! From the domain onto the wire.

use orderflow_proto::orderflow::order::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost_types::Timestamp;

use crate::domain::{Money, Order, OrderLine, OrderStatus, TimestampUs};

fn money(money: Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().to_string(), amount_minor: money.amount_minor() }
}

pub(super) fn order(order: &Order) -> wire::Order {
    let status = match &order.status {
        OrderStatus::PendingPayment => wire::OrderStatus::PendingPayment,
        OrderStatus::Paid => wire::OrderStatus::Paid,
        OrderStatus::PaymentDeclined { .. } => wire::OrderStatus::PaymentDeclined,
    };
    wire::Order {
        order_id: order.id.to_string(),
        customer_id: order.customer_id.as_str().to_owned(),
        lines: order.lines.as_slice().iter().map(line).collect(),
        total: Some(money(order.total())),
        status: status.into(),
        decline_reason: order.decline_reason().unwrap_or_default().to_owned(),
        create_time: Some(timestamp(order.created_at)),
        update_time: Some(timestamp(order.updated_at)),
        ..Default::default()
    }
}

fn line(line: &OrderLine) -> wire::OrderLine {
    wire::OrderLine {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity.get(),
        unit_price: Some(money(line.unit_price)),
    }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
