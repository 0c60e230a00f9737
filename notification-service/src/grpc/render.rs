//! From the domain onto the wire.

use orderflow_proto::orderflow::notification::v1 as wire;
use orderflow_proto::orderflow::r#type::v1::Money;
use prost_types::Timestamp;

use crate::domain::{Draft, Invoice, KeptInvoice, Kind, Notification, TimestampUs};

pub(super) fn notification(notification: Notification) -> wire::Notification {
    let Notification { number, draft, created_at, emailed_at } = notification;
    let Draft { customer_id, order_id, kind, text, event_id, email: _ } = draft;
    wire::Notification {
        number,
        customer_id: customer_id.as_str().to_owned(),
        order_id,
        kind: kind_of(kind).into(),
        text,
        event_id,
        create_time: Some(timestamp(created_at)),
        email_time: emailed_at.map(timestamp),
    }
}

pub(super) fn invoice(kept: KeptInvoice) -> wire::Invoice {
    let KeptInvoice { invoice, pdf_bytes, created_at, .. } = kept;
    let Invoice { number, order_id, customer_id, total } = invoice;
    wire::Invoice {
        invoice_number: number.as_str().to_owned(),
        order_id,
        customer_id: customer_id.as_str().to_owned(),
        total: Some(Money { currency_code: total.currency_code, amount_minor: total.amount_minor }),
        create_time: Some(timestamp(created_at)),
        pdf_bytes,
    }
}

fn kind_of(kind: Kind) -> wire::NotificationKind {
    match kind {
        Kind::OrderReceived => wire::NotificationKind::OrderReceived,
        Kind::PaymentCaptured => wire::NotificationKind::PaymentCaptured,
        Kind::PaymentDeclined => wire::NotificationKind::PaymentDeclined,
        Kind::OrderConfirmed => wire::NotificationKind::OrderConfirmed,
        Kind::OrderCancelled => wire::NotificationKind::OrderCancelled,
        Kind::PaymentRefunded => wire::NotificationKind::PaymentRefunded,
        Kind::InvoiceReady => wire::NotificationKind::InvoiceReady,
    }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
