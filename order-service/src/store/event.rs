//! Events in the form in which they wait in the outbox and travel to the broker.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use prost_types::Timestamp;
use service_kit::outbox::NewEvent;
use wire::order_event::Event as Body;

use crate::domain::{CancelReason, CheckoutMode, Email, InvoiceNumber, Money, Order, OrderEvent, TimestampUs};

/// The type of the event that asks for the first payment.
pub(super) const PLACED: &str = "orderflow.events.v1.OrderPlaced";
/// The type of the event that asks for another payment.
pub(super) const PAYMENT_RETRIED: &str = "orderflow.events.v1.PaymentRetried";

/// The topic that tells what happened to orders.
const TOPIC: &str = "order-events";
/// The topic with invoices to be rendered.
const INVOICE_TOPIC: &str = "invoice-jobs";

pub(super) fn encode(order: &Order, event: OrderEvent) -> NewEvent {
    let total = Some(money(order.total()));
    let payment_token = || order.payment_token.as_str().to_owned();
    let attempt = order.attempt;
    let (kind, body) = match event {
        OrderEvent::Placed => {
            let checkout_mode = match order.checkout_mode {
                CheckoutMode::Asynchronous => wire_type::CheckoutMode::Asynchronous,
                CheckoutMode::Synchronous => wire_type::CheckoutMode::Synchronous,
            };
            let placed =
                wire::OrderPlaced { total, payment_token: payment_token(), checkout_mode: checkout_mode.into() };
            (PLACED, Body::Placed(placed))
        }
        OrderEvent::PaymentRetried => {
            let retried = wire::PaymentRetried { total, payment_token: payment_token(), attempt };
            (PAYMENT_RETRIED, Body::PaymentRetried(retried))
        }
        OrderEvent::Paid => ("orderflow.events.v1.OrderPaid", Body::Paid(wire::OrderPaid { total })),
        OrderEvent::Declined => {
            let reason = order.decline_reason().unwrap_or_default().to_owned();
            ("orderflow.events.v1.OrderDeclined", Body::Declined(wire::OrderDeclined { reason }))
        }
        OrderEvent::Cancelled => {
            let reason = cancel_reason(order.cancel_reason()).into();
            ("orderflow.events.v1.OrderCancelled", Body::Cancelled(wire::OrderCancelled { reason, attempt, total }))
        }
        OrderEvent::RefundRequested => {
            let requested = wire::OrderRefundRequested { total, attempt };
            ("orderflow.events.v1.OrderRefundRequested", Body::RefundRequested(requested))
        }
        OrderEvent::Refunded => ("orderflow.events.v1.OrderRefunded", Body::Refunded(wire::OrderRefunded { total })),
    };
    let order_id = order.id.to_string();
    let payload = wire::OrderEvent {
        order_id: order_id.clone(),
        customer_id: order.customer_id.as_str().to_owned(),
        customer_email: email(order),
        event: Some(body),
    };
    NewEvent { topic: TOPIC, ordering_key: order_id, kind, payload: payload.encode_to_vec() }
}

/// The work to render the invoice of an order that has just been paid.
pub(super) fn invoice_job(order: &Order, number: InvoiceNumber) -> NewEvent {
    let lines = order.lines.as_slice().iter().map(|line| wire::InvoiceLine {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity.get(),
        unit_price: Some(money(line.unit_price)),
    });
    let job = wire::InvoiceJob {
        invoice_number: number.to_string(),
        order_id: order.id.to_string(),
        customer_id: order.customer_id.as_str().to_owned(),
        customer_email: email(order),
        lines: lines.collect(),
        total: Some(money(order.total())),
        order_time: Some(timestamp(order.created_at)),
        paid_time: Some(timestamp(order.updated_at)),
    };
    NewEvent {
        topic: INVOICE_TOPIC,
        // Any worker may take any job.
        ordering_key: String::new(),
        kind: "orderflow.events.v1.InvoiceJob",
        payload: job.encode_to_vec(),
    }
}

fn cancel_reason(reason: Option<CancelReason>) -> wire::CancelReason {
    match reason {
        None => wire::CancelReason::Unspecified,
        Some(CancelReason::Customer) => wire::CancelReason::Customer,
        Some(CancelReason::PaymentDeadline) => wire::CancelReason::PaymentDeadline,
        Some(CancelReason::PaymentUnavailable) => wire::CancelReason::PaymentUnavailable,
    }
}

fn email(order: &Order) -> String {
    order.customer_email.as_ref().map_or("", Email::as_str).to_owned()
}

fn money(money: Money) -> wire_type::Money {
    wire_type::Money { currency_code: money.currency().to_string(), amount_minor: money.amount_minor() }
}

fn timestamp(TimestampUs(us): TimestampUs) -> Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}
