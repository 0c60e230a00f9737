//! Orders as their services tell them, and the way of one through all of them.

use std::fmt::Display;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use orderflow_proto::orderflow::notification::v1::notification_service_client::NotificationServiceClient;
use orderflow_proto::orderflow::notification::v1::{
    GetInvoiceRequest, Invoice, ListNotificationsRequest, Notification,
};
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{
    CancelOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderStatus, RetryPaymentRequest,
};
use orderflow_proto::orderflow::payment::v1::payment_service_client::PaymentServiceClient;
use orderflow_proto::orderflow::payment::v1::{GetPaymentRequest, Payment};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::http::{Page, body};
use super::proto_json::json as proto;
use super::{Refusal, site};
use crate::audit::Error;

/// Orders that a search shows, the newest ones.
const ORDERS_TOLD_MAX: i32 = 50;
/// Notifications of one order that are shown.
const NOTIFICATIONS_TOLD_MAX: i32 = 200;

const ORDER: &str = "orderflow.order.v1.Order";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    customer: String,
    #[serde(default)]
    status: String,
}

/// `GET /api/orders?customer=ID` or `?status=…`
pub(super) async fn list(
    State(page): State<Page>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(Wanted { customer, status }) = query.map_err(|rejection| Refusal::bad(rejection.body_text()))?;
    let request = ListOrdersRequest {
        customer_id: customer,
        status: parse_status(&status)?.into(),
        page_size: ORDERS_TOLD_MAX,
        ..Default::default()
    };
    let (url, mut client) = orders(&page)?;
    let found = client.list_orders(request).await.map_err(Error::grpc("order-service", url))?.into_inner().orders;
    let found: Vec<Value> = found.iter().map(|order| proto(ORDER, order)).collect();
    Ok(Json(json!({ "orders": found })))
}

/// `PAID` or `ORDER_STATUS_PAID`; empty for all.
fn parse_status(text: &str) -> Result<OrderStatus, Refusal> {
    let name = text.to_ascii_uppercase();
    let known = match name.as_str() {
        "" => Some(OrderStatus::Unspecified),
        name if name.starts_with("ORDER_STATUS_") => OrderStatus::from_str_name(name),
        name => OrderStatus::from_str_name(&format!("ORDER_STATUS_{name}")),
    };
    known.ok_or_else(|| Refusal::bad(format!("`status`: `{text}` is no status of an order")))
}

/// `GET /api/orders/ID`
pub(super) async fn show(State(page): State<Page>, Path(order_id): Path<String>) -> Result<Json<Value>, Refusal> {
    let (url, mut client) = orders(&page)?;
    let reply = client.get_order(GetOrderRequest { order_id: order_id.clone() }).await;
    let reply = reply.map_err(Error::grpc("order-service", url))?.into_inner();
    let order = reply.order.unwrap_or_default();
    let (payment, notifications, invoice) =
        tokio::join!(payment(&page, &order_id), notifications(&page, &order), invoice(&page, &order_id));
    let mut errors = Vec::new();
    let payment = told("payment-service", payment, &mut errors).flatten();
    let notifications = told("notification-service", notifications, &mut errors).unwrap_or_default();
    let invoice = told("notification-service", invoice, &mut errors).flatten();
    errors.dedup();
    let timeline = reply.timeline.iter().map(|entry| proto("orderflow.order.v1.TimelineEntry", entry));
    let notifications = notifications.iter().map(|told| proto("orderflow.notification.v1.Notification", told));
    Ok(Json(json!({
        "order": proto(ORDER, &order),
        "timeline": timeline.collect::<Vec<_>>(),
        "timelineMissing": reply.timeline_missing,
        "payment": payment.map(|payment| proto("orderflow.payment.v1.Payment", &payment)),
        "notifications": notifications.collect::<Vec<_>>(),
        "invoice": invoice.map(|invoice| proto("orderflow.notification.v1.Invoice", &invoice)),
        "errors": errors,
    })))
}

/// `GET /api/orders/ID/invoice.pdf`
pub(super) async fn pdf(State(page): State<Page>, Path(order_id): Path<String>) -> Result<Response, Refusal> {
    let url = &page.live.site.addresses.notification_service;
    let mut client = NotificationServiceClient::new(site::channel(url)?);
    let reply = client.get_invoice(GetInvoiceRequest { order_id }).await;
    let reply = reply.map_err(Error::grpc("notification-service", url))?.into_inner();
    // The number goes into a header: nothing but what such a number has.
    let number = reply.invoice.unwrap_or_default().invoice_number;
    let number: String = number.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let name = format!("attachment; filename=\"{number}.pdf\"");
    Ok(([(CONTENT_TYPE, "application/pdf".to_owned()), (CONTENT_DISPOSITION, name)], reply.pdf).into_response())
}

/// `POST /api/orders/ID/cancel`
pub(super) async fn cancel(State(page): State<Page>, Path(order_id): Path<String>) -> Result<Json<Value>, Refusal> {
    let (url, mut client) = orders(&page)?;
    let reply = client.cancel_order(CancelOrderRequest { order_id }).await;
    let order = reply.map_err(Error::grpc("order-service", url))?.into_inner().order;
    Ok(Json(json!({ "order": proto(ORDER, &order.unwrap_or_default()) })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    #[serde(default)]
    card: String,
}

/// `POST /api/orders/ID/retry`
pub(super) async fn retry(
    State(page): State<Page>,
    Path(order_id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let Card { card } = body(bytes)?;
    let (url, mut client) = orders(&page)?;
    let reply = client.retry_payment(RetryPaymentRequest { order_id, payment_token: card }).await;
    let order = reply.map_err(Error::grpc("order-service", url))?.into_inner().order;
    Ok(Json(json!({ "order": proto(ORDER, &order.unwrap_or_default()) })))
}

fn orders(page: &Page) -> Result<(&str, OrderServiceClient<Channel>), Error> {
    let url = &page.live.site.addresses.order_service;
    Ok((url, OrderServiceClient::new(site::channel(url)?)))
}

async fn payment(page: &Page, order_id: &str) -> Result<Option<Payment>, Refusal> {
    let mut client = PaymentServiceClient::new(site::channel(&page.live.site.addresses.payment_service)?);
    let reply = client.get_payment(GetPaymentRequest { order_id: order_id.to_owned() }).await;
    Ok(found(reply)?.and_then(|reply| reply.payment))
}

async fn invoice(page: &Page, order_id: &str) -> Result<Option<Invoice>, Refusal> {
    let mut client = NotificationServiceClient::new(site::channel(&page.live.site.addresses.notification_service)?);
    let reply = client.get_invoice(GetInvoiceRequest { order_id: order_id.to_owned() }).await;
    Ok(found(reply)?.and_then(|reply| reply.invoice))
}

async fn notifications(page: &Page, order: &Order) -> Result<Vec<Notification>, Refusal> {
    let mut client = NotificationServiceClient::new(site::channel(&page.live.site.addresses.notification_service)?);
    let request = ListNotificationsRequest {
        customer_id: order.customer_id.clone(),
        order_id: order.order_id.clone(),
        page_size: NOTIFICATIONS_TOLD_MAX,
        ..Default::default()
    };
    Ok(found(client.list_notifications(request).await)?.map(|reply| reply.notifications).unwrap_or_default())
}

/// What does not exist yet is an answer, too.
fn found<T>(reply: Result<tonic::Response<T>, Status>) -> Result<Option<T>, Refusal> {
    match reply {
        Ok(reply) => Ok(Some(reply.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(Refusal::new(StatusCode::BAD_GATEWAY, status.message())),
    }
}

/// What a service told; that it did not is written down.
fn told<T>(service: impl Display, answer: Result<T, Refusal>, errors: &mut Vec<String>) -> Option<T> {
    answer.inspect_err(|_| errors.push(format!("{service} did not answer"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_known_by_both_its_names() {
        for text in ["paid", "PAID", "ORDER_STATUS_PAID"] {
            assert_eq!(parse_status(text).unwrap(), OrderStatus::Paid, "{text}");
        }
        assert_eq!(parse_status("").unwrap(), OrderStatus::Unspecified);
        let refusal = parse_status("lost").unwrap_err();
        assert!(refusal.status() == StatusCode::BAD_REQUEST && refusal.problem().contains("`status`"), "{refusal:?}");
    }
}
