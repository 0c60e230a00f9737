//! From the domain onto the wire.

use orderflow_proto::orderflow::notification::v1 as wire;
use prost_types::Timestamp;

use crate::domain::{Draft, Kind, Notification, TimestampUs};

pub(super) fn notification(notification: Notification) -> wire::Notification {
    let Notification { number, draft, created_at } = notification;
    let Draft { customer_id, order_id, kind, text, event_id } = draft;
    wire::Notification {
        number,
        customer_id: customer_id.as_str().to_owned(),
        order_id,
        kind: kind_of(kind).into(),
        text,
        event_id,
        create_time: Some(timestamp(created_at)),
        ..Default::default()
    }
}

fn kind_of(kind: Kind) -> wire::NotificationKind {
    match kind {
        Kind::OrderReceived => wire::NotificationKind::OrderReceived,
        Kind::PaymentCaptured => wire::NotificationKind::PaymentCaptured,
        Kind::PaymentDeclined => wire::NotificationKind::PaymentDeclined,
        Kind::OrderConfirmed => wire::NotificationKind::OrderConfirmed,
    }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
