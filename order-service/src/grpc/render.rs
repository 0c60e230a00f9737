//! From the domain onto the wire.

use orderflow_proto::orderflow::events::v1 as events;
use orderflow_proto::orderflow::order::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost_types::Timestamp;

use crate::app::{Step, StepKind};
use crate::domain::{CancelReason, CheckoutMode, Email, Money, Order, OrderLine, OrderStatus, TimestampUs};

fn money(money: Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().to_string(), amount_minor: money.amount_minor() }
}

pub(super) fn order(order: &Order) -> wire::Order {
    let status = match &order.status {
        OrderStatus::PendingPayment => wire::OrderStatus::PendingPayment,
        OrderStatus::Paid { .. } => wire::OrderStatus::Paid,
        OrderStatus::PaymentDeclined { .. } => wire::OrderStatus::PaymentDeclined,
        OrderStatus::Cancelled(_) => wire::OrderStatus::Cancelled,
        OrderStatus::Refunded => wire::OrderStatus::Refunded,
    };
    let checkout_mode = match order.checkout_mode {
        CheckoutMode::Asynchronous => wire_type::CheckoutMode::Asynchronous,
        CheckoutMode::Synchronous => wire_type::CheckoutMode::Synchronous,
    };
    let cancel_reason = match order.cancel_reason() {
        None => events::CancelReason::Unspecified,
        Some(CancelReason::Customer) => events::CancelReason::Customer,
        Some(CancelReason::PaymentDeadline) => events::CancelReason::PaymentDeadline,
        Some(CancelReason::PaymentUnavailable) => events::CancelReason::PaymentUnavailable,
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
        checkout_mode: checkout_mode.into(),
        payment_attempt: order.attempt,
        cancel_reason: cancel_reason.into(),
        payment_deadline_time: order.payment_deadline.map(timestamp),
        refund_pending: order.refund_pending(),
        customer_email: order.customer_email.as_ref().map_or("", Email::as_str).to_owned(),
        invoice_number: order.invoice_number.map(|number| number.to_string()).unwrap_or_default(),
    }
}

/// Everything that is known of an order's life, oldest first. What happened at the same time keeps the order in which it
/// was told: by the order, by its steps, by the others.
pub(super) fn timeline(order: &Order, own: Vec<Step>, others: Vec<Step>) -> Vec<wire::TimelineEntry> {
    let accepted = Step { at: order.created_at, kind: StepKind::Accepted, attempt: 0, detail: String::new() };
    let mut steps: Vec<Step> = std::iter::once(accepted).chain(own).chain(others).collect();
    steps.sort_by_key(|step| step.at);
    steps.into_iter().map(entry).collect()
}

fn entry(step: Step) -> wire::TimelineEntry {
    let kind = match step.kind {
        StepKind::Accepted => wire::TimelineKind::Accepted,
        StepKind::Queued => wire::TimelineKind::Queued,
        StepKind::PaymentAttempted => wire::TimelineKind::PaymentAttempted,
        StepKind::Charged => wire::TimelineKind::Charged,
        StepKind::Declined => wire::TimelineKind::Declined,
        StepKind::Retried => wire::TimelineKind::PaymentRetried,
        StepKind::Paid => wire::TimelineKind::Paid,
        StepKind::Cancelled => wire::TimelineKind::Cancelled,
        StepKind::RefundRequested => wire::TimelineKind::RefundRequested,
        StepKind::Refunded => wire::TimelineKind::Refunded,
        StepKind::Voided => wire::TimelineKind::Voided,
        StepKind::Notified => wire::TimelineKind::Notified,
        StepKind::Invoiced => wire::TimelineKind::Invoiced,
    };
    wire::TimelineEntry {
        time: Some(timestamp(step.at)),
        kind: kind.into(),
        attempt: step.attempt,
        detail: step.detail,
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
