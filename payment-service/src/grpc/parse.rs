//! From the wire into the domain: every value is checked, every violation of a request is reported.

use std::fmt::Display;

use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use service_kit::paging;
use service_kit::status::{Violations, invalid_field};
use tonic::Status;

use crate::app::Position;
use crate::domain::{CardToken, Charge, CustomerId, Money, OrderId, Payment, PaymentStatus, TimestampUs, ValueError};

/// Binds page tokens to the method.
const LIST_PAYMENTS: &str = "ListPayments";

/// Which page of which list is asked for.
#[derive(Debug)]
pub(super) struct ListPayments {
    pub(super) status: Option<PaymentStatus>,
    pub(super) before: Option<Position>,
    pub(super) limit: u32,
}

pub(super) fn order_id(text: &str) -> Result<OrderId, Status> {
    text.parse().map_err(|error: ValueError| invalid_field("order_id", error.to_string()))
}

pub(super) fn charge(request: wire::ChargeRequest) -> Result<Charge, Status> {
    let mut violations = Violations::new();
    let parsed: Result<OrderId, _> = request.order_id.parse();
    let order_id = check(&mut violations, "order_id", parsed);
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id));
    let amount = amount(&mut violations, request.amount);
    let card = check(&mut violations, "payment_token", CardToken::parse(request.payment_token));
    violations.finish()?;
    let (Some(order_id), Some(customer_id), Some(amount), Some(card)) = (order_id, customer_id, amount, card) else {
        return Err(Status::internal("a field is missing that was not reported"));
    };
    Ok(Charge { order_id, customer_id, amount, card, attempt: request.attempt.max(1) })
}

fn amount(violations: &mut Violations, amount: Option<wire_type::Money>) -> Option<Money> {
    let Some(amount) = amount else {
        violations.add("amount", "is required");
        return None;
    };
    let currency = check(violations, "amount.currency_code", amount.currency_code.parse());
    if amount.amount_minor <= 0 {
        violations.add("amount.amount_minor", ValueError::NotPositive.to_string());
    }
    Money::new(currency?, amount.amount_minor).ok()
}

pub(super) fn list_payments(request: &wire::ListPaymentsRequest) -> Result<ListPayments, Status> {
    let mut violations = Violations::new();
    let status = match wire::PaymentStatus::try_from(request.status) {
        Ok(wire::PaymentStatus::Unspecified) => None,
        Ok(wire::PaymentStatus::Captured) => Some(PaymentStatus::Captured),
        Ok(wire::PaymentStatus::Declined) => Some(PaymentStatus::Declined),
        Ok(wire::PaymentStatus::Voided) => Some(PaymentStatus::Voided),
        Ok(wire::PaymentStatus::Refunded) => Some(PaymentStatus::Refunded),
        Ok(wire::PaymentStatus::Pending) => Some(PaymentStatus::Pending),
        Err(_) => {
            violations.add("status", "must be a known status");
            None
        }
    };
    let limit = check(&mut violations, "page_size", paging::page_size(request.page_size));
    let before = check(&mut violations, "page_token", position(request)).flatten();
    violations.finish()?;
    Ok(ListPayments { status, before, limit: limit.unwrap_or_default() })
}

/// The token for the page after `last`, bound to the filter of the request.
pub(super) fn next_page_token(request: &wire::ListPaymentsRequest, last: &Payment) -> String {
    let Position { created_at: TimestampUs(us), order_id } = last.into();
    paging::encode(&[LIST_PAYMENTS, &request.status.to_string()], &format!("{us}/{order_id}"))
}

fn position(request: &wire::ListPaymentsRequest) -> Result<Option<Position>, paging::Error> {
    let Some(text) = paging::decode(&[LIST_PAYMENTS, &request.status.to_string()], &request.page_token)? else {
        return Ok(None);
    };
    let parsed = text.split_once('/').and_then(|(us, order_id)| {
        Some(Position { created_at: TimestampUs(us.parse().ok()?), order_id: order_id.parse().ok()? })
    });
    parsed.map(Some).ok_or(paging::Error::ForeignToken)
}

/// The value, or a note of what is wrong with its field.
fn check<T, E: Display>(violations: &mut Violations, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
    value.map_err(|error| violations.add(field, error.to_string())).ok()
}
