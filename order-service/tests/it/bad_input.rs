use orderflow_proto::orderflow::order::v1::{
    CancelOrderRequest, GetOrderRequest, ListOrdersRequest, OrderLine, PlaceOrderRequest, RetryPaymentRequest,
    WatchOrderRequest,
};
use prost_types::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Running, line, request};

#[allow(clippy::unnecessary_wraps)]
fn duration(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

#[track_caller]
fn assert_violations(status: &Status, expected: &[&str], case: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{case}");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, expected, "{case}");
}

#[tokio::test]
async fn bad_orders_are_refused_with_every_violation_and_nothing_is_kept() {
    let mut service = Running::start().await;
    let with = |change: fn(&mut PlaceOrderRequest)| {
        let mut changed = request("k");
        change(&mut changed);
        changed
    };
    let table: Vec<(PlaceOrderRequest, &[&str])> = vec![
        (with(|r| r.idempotency_key.clear()), &["idempotency_key"]),
        (with(|r| r.idempotency_key = "k".repeat(129)), &["idempotency_key"]),
        (with(|r| r.idempotency_key = "a\0b".to_owned()), &["idempotency_key"]),
        (with(|r| r.customer_id.clear()), &["customer_id"]),
        (with(|r| r.customer_id = "c".repeat(65)), &["customer_id"]),
        (with(|r| r.payment_token = "t".repeat(65)), &["payment_token"]),
        (with(|r| r.lines.clear()), &["lines"]),
        (with(|r| r.lines = vec![line("tea", 1, "EUR", 1); 101]), &["lines"]),
        (with(|r| r.lines[1].sku.clear()), &["lines[1].sku"]),
        (with(|r| r.lines[1].sku = "s".repeat(65)), &["lines[1].sku"]),
        (with(|r| r.lines[0].quantity = 0), &["lines[0].quantity"]),
        (with(|r| r.lines[0].quantity = 10_001), &["lines[0].quantity"]),
        (with(|r| r.lines[0].unit_price = None), &["lines[0].unit_price"]),
        (with(|r| r.lines[0] = line("tea", 1, "", 1)), &["lines[0].unit_price.currency_code"]),
        (with(|r| r.lines[0] = line("tea", 1, "eur", 1)), &["lines[0].unit_price.currency_code"]),
        (with(|r| r.lines[0] = line("tea", 1, "EUR", -1)), &["lines[0].unit_price.amount_minor"]),
        (with(|r| r.lines[1] = line("tea", 1, "USD", 1)), &["lines[1].unit_price.currency_code"]),
        (with(|r| r.lines[0] = line("tea", 1, "EUR", i64::MAX)), &["lines"]),
        (with(|r| r.lines[0] = line("tea", 2, "EUR", i64::MAX)), &["lines"]),
        (with(|r| r.lines = vec![line("tea", 1, "EUR", 0)]), &["lines"]),
        (with(|r| r.checkout_mode = 3), &["checkout_mode"]),
        (with(|r| r.checkout_mode = -1), &["checkout_mode"]),
        (with(|r| r.payment_deadline = duration(0, 999_999_999)), &["payment_deadline"]),
        (with(|r| r.payment_deadline = duration(-60, 0)), &["payment_deadline"]),
        (with(|r| r.payment_deadline = duration(30 * 86_400, 1_000)), &["payment_deadline"]),
        (with(|r| r.payment_deadline = duration(i64::MAX, i32::MAX)), &["payment_deadline"]),
        (with(|r| r.customer_email = "ada".to_owned()), &["customer_email"]),
        (with(|r| r.customer_email = format!("a@{}", "d".repeat(253))), &["customer_email"]),
        (with(|r| r.customer_email = "a@b.org\r\nBcc: c@d.org".to_owned()), &["customer_email"]),
        (with(|r| r.customer_email = "Ada <a@b.org>".to_owned()), &["customer_email"]),
        (
            PlaceOrderRequest {
                lines: vec![OrderLine::default()],
                checkout_mode: 9,
                customer_email: "@".to_owned(),
                payment_deadline: duration(0, 0),
                ..PlaceOrderRequest::default()
            },
            &[
                "idempotency_key",
                "customer_id",
                "lines[0].sku",
                "lines[0].quantity",
                "lines[0].unit_price",
                "checkout_mode",
                "payment_deadline",
                "customer_email",
            ],
        ),
    ];
    for (bad, fields) in table {
        let case = format!("{fields:?}");
        let status = service.client.place_order(bad).await.unwrap_err();
        assert_violations(&status, fields, &case);
        assert_eq!(service.orders().await, [], "{case}");
    }
    // A refused request has not used up its key.
    service.client.place_order(request("k")).await.unwrap();
}

#[tokio::test]
async fn values_at_their_limits_are_accepted() {
    let mut service = Running::start().await;
    let widest = PlaceOrderRequest {
        idempotency_key: "k".repeat(128),
        customer_id: "ü".repeat(64),
        lines: vec![line(&"s".repeat(64), 10_000, "EUR", 1_000_000); 100],
        payment_token: "t".repeat(64),
        payment_deadline: duration(30 * 86_400, 0),
        customer_email: format!("{}@{}", "l".repeat(64), "d".repeat(189)),
        ..Default::default()
    };
    let order = service.client.place_order(widest.clone()).await.unwrap().into_inner().order.unwrap();
    assert_eq!(order.lines, widest.lines);
    assert_eq!(order.total.unwrap().amount_minor, 1_000_000_000_000);
    let dearest = PlaceOrderRequest { lines: vec![line("s", 1, "EUR", i64::MAX)], ..request("k") };
    let order = service.client.place_order(dearest).await.unwrap().into_inner().order.unwrap();
    assert_eq!(order.total.unwrap().amount_minor, i64::MAX);
    let shortest = PlaceOrderRequest { payment_deadline: duration(1, 0), ..request("k-2") };
    assert!(service.client.place_order(shortest).await.is_ok());
}

#[tokio::test]
async fn other_methods_refuse_what_they_cannot_read() {
    let mut service = Running::start().await;
    service.client.place_order(request("k")).await.unwrap();
    let before = service.orders().await;
    for id in ["", "42", "'; DROP TABLE orders; --"] {
        let status = service.client.get_order(GetOrderRequest { order_id: id.to_owned() }).await.unwrap_err();
        assert_violations(&status, &["order_id"], id);
        let status = service.client.watch_order(WatchOrderRequest { order_id: id.to_owned() }).await.unwrap_err();
        assert_violations(&status, &["order_id"], id);
        let status = service.client.cancel_order(CancelOrderRequest { order_id: id.to_owned() }).await.unwrap_err();
        assert_violations(&status, &["order_id"], id);
        let bad = RetryPaymentRequest { order_id: id.to_owned(), payment_token: "t".repeat(65) };
        let status = service.client.retry_payment(bad).await.unwrap_err();
        assert_violations(&status, &["order_id", "payment_token"], id);
    }
    let table: Vec<(ListOrdersRequest, &[&str])> = vec![
        (ListOrdersRequest { customer_id: "c".repeat(65), ..Default::default() }, &["customer_id"]),
        (ListOrdersRequest { status: 99, ..Default::default() }, &["status"]),
        (ListOrdersRequest { page_size: -1, ..Default::default() }, &["page_size"]),
        (ListOrdersRequest { page_token: "garbage".to_owned(), ..Default::default() }, &["page_token"]),
        (
            ListOrdersRequest { customer_id: "\n".to_owned(), status: -1, page_size: -1, page_token: "?".to_owned() },
            &["customer_id", "status", "page_size", "page_token"],
        ),
    ];
    for (bad, fields) in table {
        let status = service.client.list_orders(bad).await.unwrap_err();
        assert_violations(&status, fields, &format!("{fields:?}"));
    }
    assert_eq!(service.orders().await, before);
}

#[tokio::test]
async fn an_order_that_was_never_placed_is_not_found() {
    let mut service = Running::start().await;
    let order_id = "0190163d-8694-739b-aea5-966c26f8ad91".to_owned();
    let got = service.client.get_order(GetOrderRequest { order_id: order_id.clone() }).await.unwrap_err();
    let watched = service.client.watch_order(WatchOrderRequest { order_id: order_id.clone() }).await.unwrap_err();
    let cancelled = service.client.cancel_order(CancelOrderRequest { order_id: order_id.clone() }).await.unwrap_err();
    let retry = RetryPaymentRequest { order_id: order_id.clone(), payment_token: String::new() };
    let retried = service.client.retry_payment(retry).await.unwrap_err();
    for status in [got, watched, cancelled, retried] {
        assert_eq!(status.code(), Code::NotFound);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), &info.metadata["order_id"]), ("ORDER_NOT_FOUND", &order_id));
    }
}
