//! Messages of the parts as JSON, in the form that protobuf prescribes: camelCase, times as RFC 3339, no defaults.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(orderflow_proto::DESCRIPTORS).unwrap_or_default());

/// A message of the type with this full name; null if there is no such type.
pub(super) fn json(name: &str, message: &impl Message) -> Value {
    let descriptor = POOL.get_message_by_name(name);
    let decoded = descriptor.and_then(|kind| DynamicMessage::decode(kind, message.encode_to_vec().as_slice()).ok());
    decoded.and_then(|message| serde_json::to_value(message).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use orderflow_proto::orderflow::order::v1::{Order, OrderStatus};
    use orderflow_proto::orderflow::r#type::v1::Money;
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn an_order_reads_as_protobuf_prescribes() {
        let order = Order {
            order_id: "o-1".into(),
            total: Some(Money { currency_code: "EUR".into(), amount_minor: 1_299 }),
            status: OrderStatus::Paid.into(),
            create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..Default::default()
        };
        let expected = serde_json::json!({
            "orderId": "o-1",
            "total": { "currencyCode": "EUR", "amountMinor": "1299" },
            "status": "ORDER_STATUS_PAID",
            "createTime": "2023-11-14T22:13:20.005Z",
        });
        assert_eq!(json("orderflow.order.v1.Order", &order), expected);
        assert_eq!(json("orderflow.order.v1.Nothing", &order), Value::Null);
    }
}
