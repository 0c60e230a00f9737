//! From the wire into the domain: every value is checked, every violation of a request is reported.

use std::fmt::Display;

use orderflow_proto::orderflow::order::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message;
use service_kit::paging;
use service_kit::status::{Violations, invalid_field};
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::app::{Filter, Fingerprint, StatusKind};
use crate::domain::{
    CheckoutMode, CustomerId, Email, IdempotencyKey, LINES_MAX, Lines, LinesError, Money, NewOrder, OrderId, OrderLine,
    PAYMENT_DEADLINE_US_MAX, PAYMENT_DEADLINE_US_MIN, PaymentToken, Quantity, Sku, ValueError,
};

/// Binds page tokens to the method.
const LIST_ORDERS: &str = "ListOrders";

/// A request to place an order, checked.
#[derive(Debug)]
pub(super) struct PlaceOrder {
    pub(super) new: NewOrder,
    pub(super) key: IdempotencyKey,
    pub(super) fingerprint: Fingerprint,
}

pub(super) fn place_order(request: wire::PlaceOrderRequest) -> Result<PlaceOrder, Status> {
    let fingerprint = fingerprint(&request);
    let mut violations = Violations::new();
    let key = check(&mut violations, "idempotency_key", IdempotencyKey::parse(request.idempotency_key));
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id));
    let lines = lines(request.lines, &mut violations);
    let payment_token = payment_token(request.payment_token, &mut violations);
    let checkout_mode = check(&mut violations, "checkout_mode", checkout_mode(request.checkout_mode));
    let payment_deadline_us = match request.payment_deadline {
        None => None,
        Some(deadline) => check(&mut violations, "payment_deadline", deadline_us(deadline)),
    };
    let customer_email = match request.customer_email.as_str() {
        "" => None,
        _ => check(&mut violations, "customer_email", Email::parse(request.customer_email)),
    };
    violations.finish()?;
    match (key, customer_id, lines, payment_token, checkout_mode) {
        (Some(key), Some(customer_id), Some(lines), Some(payment_token), Some(checkout_mode)) => {
            let new =
                NewOrder { customer_id, customer_email, lines, payment_token, checkout_mode, payment_deadline_us };
            Ok(PlaceOrder { new, key, fingerprint })
        }
        // Whatever is missing was noted.
        _ => Err(Status::internal("a violation was not noted")),
    }
}

pub(super) fn retry_payment(request: wire::RetryPaymentRequest) -> Result<(OrderId, PaymentToken), Status> {
    let mut violations = Violations::new();
    let id = check(&mut violations, "order_id", request.order_id.parse::<OrderId>());
    let token = payment_token(request.payment_token, &mut violations);
    violations.finish()?;
    id.zip(token).ok_or_else(|| Status::internal("a violation was not noted"))
}

pub(super) fn order_id(text: &str) -> Result<OrderId, Status> {
    text.parse().map_err(|error: ValueError| invalid_field("order_id", error.to_string()))
}

/// Which page of which list is asked for.
#[derive(Debug)]
pub(super) struct ListOrders {
    pub(super) filter: Filter,
    pub(super) before: Option<OrderId>,
    pub(super) limit: u32,
}

pub(super) fn list_orders(request: &wire::ListOrdersRequest) -> Result<ListOrders, Status> {
    let mut violations = Violations::new();
    let customer_id = match request.customer_id.as_str() {
        "" => None,
        text => check(&mut violations, "customer_id", CustomerId::parse(text)),
    };
    let status = match wire::OrderStatus::try_from(request.status) {
        Ok(wire::OrderStatus::Unspecified) => None,
        Ok(wire::OrderStatus::PendingPayment) => Some(StatusKind::PendingPayment),
        Ok(wire::OrderStatus::Paid) => Some(StatusKind::Paid),
        Ok(wire::OrderStatus::PaymentDeclined) => Some(StatusKind::PaymentDeclined),
        Ok(wire::OrderStatus::Cancelled) => Some(StatusKind::Cancelled),
        Ok(wire::OrderStatus::Refunded) => Some(StatusKind::Refunded),
        Err(_) => {
            violations.add("status", "must be a known status");
            None
        }
    };
    let limit = check(&mut violations, "page_size", paging::page_size(request.page_size));
    let before = check(&mut violations, "page_token", position(request)).flatten();
    violations.finish()?;
    Ok(ListOrders { filter: Filter { customer_id, status }, before, limit: limit.unwrap_or_default() })
}

/// The token for the page after `last`, bound to the filters of the request.
pub(super) fn next_page_token(request: &wire::ListOrdersRequest, last: OrderId) -> String {
    paging::encode(&[LIST_ORDERS, &request.customer_id, &request.status.to_string()], &last.to_string())
}

fn position(request: &wire::ListOrdersRequest) -> Result<Option<OrderId>, paging::Error> {
    let filters = [LIST_ORDERS, &request.customer_id, &request.status.to_string()];
    let position = paging::decode(&filters, &request.page_token)?;
    position.map(|text| text.parse().map_err(|_| paging::Error::ForeignToken)).transpose()
}

/// Equal for equal bodies: the key is left out, and what is spelled out equals the default that it stands for.
///
/// Fields are encoded in the order of their numbers and defaults are left out, so that neither the caller's library nor
/// a field that is added later changes the digest of an old request.
fn fingerprint(request: &wire::PlaceOrderRequest) -> Fingerprint {
    let mut body = wire::PlaceOrderRequest { idempotency_key: String::new(), ..request.clone() };
    if body.payment_token.is_empty() {
        PaymentToken::default().as_str().clone_into(&mut body.payment_token);
    }
    if body.checkout_mode() == wire_type::CheckoutMode::Asynchronous {
        body.set_checkout_mode(wire_type::CheckoutMode::Unspecified);
    }
    let digest = Sha256::digest(body.encode_to_vec());
    Fingerprint(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn payment_token(token: String, violations: &mut Violations) -> Option<PaymentToken> {
    match token.as_str() {
        "" => Some(PaymentToken::default()),
        _ => check(violations, "payment_token", PaymentToken::parse(token)),
    }
}

fn checkout_mode(mode: i32) -> Result<CheckoutMode, &'static str> {
    match wire_type::CheckoutMode::try_from(mode) {
        Ok(wire_type::CheckoutMode::Unspecified | wire_type::CheckoutMode::Asynchronous) => {
            Ok(CheckoutMode::Asynchronous)
        }
        Ok(wire_type::CheckoutMode::Synchronous) => Ok(CheckoutMode::Synchronous),
        Err(_) => Err("must be a known mode"),
    }
}

/// A duration in microseconds, the rest cut off.
fn deadline_us(deadline: prost_types::Duration) -> Result<i64, &'static str> {
    let seconds_us = deadline.seconds.checked_mul(1_000_000);
    let us = seconds_us.and_then(|us| us.checked_add(i64::from(deadline.nanos / 1_000)));
    us.filter(|us| (PAYMENT_DEADLINE_US_MIN..=PAYMENT_DEADLINE_US_MAX).contains(us)).ok_or("must be 1 s to 30 days")
}

fn lines(wire_lines: Vec<wire::OrderLine>, violations: &mut Violations) -> Option<Lines> {
    // Checked first, so that a giant request does not answer with a giant list of violations.
    if !(1..=LINES_MAX).contains(&wire_lines.len()) {
        violations.add("lines", LinesError::Count.to_string());
        return None;
    }
    let lines: Vec<Option<OrderLine>> =
        wire_lines.into_iter().enumerate().map(|(index, wire_line)| line(index, wire_line, violations)).collect();
    let lines: Vec<OrderLine> = lines.into_iter().collect::<Option<_>>()?;
    match Lines::new(lines) {
        Ok(lines) => Some(lines),
        Err(error @ LinesError::MixedCurrency { line, .. }) => {
            violations.add(format!("lines[{line}].unit_price.currency_code"), error.to_string());
            None
        }
        Err(error @ (LinesError::Count | LinesError::Overflow | LinesError::NothingToPay)) => {
            violations.add("lines", error.to_string());
            None
        }
    }
}

fn line(index: usize, line: wire::OrderLine, violations: &mut Violations) -> Option<OrderLine> {
    let sku = check(violations, format!("lines[{index}].sku"), Sku::parse(line.sku));
    let quantity = check(violations, format!("lines[{index}].quantity"), Quantity::new(line.quantity));
    let unit_price = money(&format!("lines[{index}].unit_price"), line.unit_price, violations);
    Some(OrderLine { sku: sku?, quantity: quantity?, unit_price: unit_price? })
}

fn money(field: &str, money: Option<wire_type::Money>, violations: &mut Violations) -> Option<Money> {
    let Some(money) = money else {
        violations.add(field, "is required");
        return None;
    };
    let currency = check(violations, format!("{field}.currency_code"), money.currency_code.parse());
    if money.amount_minor < 0 {
        violations.add(format!("{field}.amount_minor"), ValueError::Negative.to_string());
    }
    Money::new(currency?, money.amount_minor).ok()
}

/// The value, or a note of what is wrong with its field.
fn check<T, E: Display>(violations: &mut Violations, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
    value.map_err(|error| violations.add(field, error.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> wire::PlaceOrderRequest {
        let unit_price = Some(wire_type::Money { currency_code: "EUR".to_owned(), amount_minor: 500 });
        wire::PlaceOrderRequest {
            idempotency_key: "key".to_owned(),
            customer_id: "ada".to_owned(),
            lines: vec![wire::OrderLine { sku: "tea".to_owned(), quantity: 2, unit_price }],
            payment_token: String::new(),
            ..Default::default()
        }
    }

    #[test]
    fn equal_bodies_have_equal_fingerprints() {
        let other_key = wire::PlaceOrderRequest { idempotency_key: "other".to_owned(), ..request() };
        let default_spelled_out = wire::PlaceOrderRequest { payment_token: "tok_visa".to_owned(), ..request() };
        assert_eq!(fingerprint(&request()), fingerprint(&other_key));
        assert_eq!(fingerprint(&request()), fingerprint(&default_spelled_out));
        let mode = wire_type::CheckoutMode::Asynchronous.into();
        assert_eq!(fingerprint(&request()), fingerprint(&wire::PlaceOrderRequest { checkout_mode: mode, ..request() }));
    }

    #[test]
    fn every_part_of_the_body_changes_the_fingerprint() {
        let change = |change: fn(&mut wire::PlaceOrderRequest)| {
            let mut changed = request();
            change(&mut changed);
            fingerprint(&changed)
        };
        let changed = [
            change(|request| request.customer_id.push('x')),
            change(|request| request.payment_token = "tok_other".to_owned()),
            change(|request| request.lines[0].sku.push('x')),
            change(|request| request.lines[0].quantity += 1),
            change(|request| request.lines[0].unit_price.as_mut().unwrap().amount_minor += 1),
            change(|request| request.lines[0].unit_price.as_mut().unwrap().currency_code = "USD".to_owned()),
            change(|request| request.lines.push(request.lines[0].clone())),
            change(|request| request.set_checkout_mode(wire_type::CheckoutMode::Synchronous)),
            change(|request| request.payment_deadline = Some(prost_types::Duration { seconds: 9, nanos: 0 })),
            change(|request| request.customer_email = "ada@example.org".to_owned()),
        ];
        for fingerprint_changed in changed {
            assert_ne!(fingerprint_changed, fingerprint(&request()));
        }
    }

    #[test]
    fn a_fingerprint_never_changes_with_the_program() {
        // It is stored: a program that computed another one would refuse repeats of requests that it answered before.
        assert_eq!(fingerprint(&request()).0, "6b529aac6d7104b2b2b23b13a8e13956d2183728f06bba8cc5f5440b5a210713");
    }
}
