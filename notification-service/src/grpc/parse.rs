//! From the wire into the domain: every value is checked, every violation of a request is reported.

use std::fmt::Display;

use orderflow_proto::orderflow::notification::v1 as wire;
use service_kit::paging;
use service_kit::status::Violations;
use tonic::Status;

use crate::domain::{CustomerId, ORDER_ID_CHARS_MAX};

/// Binds page tokens to the method.
const LIST_NOTIFICATIONS: &str = "ListNotifications";
const LIST_INVOICES: &str = "ListInvoices";

/// Which page of whose notifications is asked for.
#[derive(Debug)]
pub(super) struct ListNotifications {
    pub(super) customer_id: CustomerId,
    pub(super) order_id: Option<String>,
    pub(super) after: i64,
    pub(super) limit: u32,
}

/// Whose notifications are followed, and from where on.
#[derive(Debug)]
pub(super) struct WatchNotifications {
    pub(super) customer_id: CustomerId,
    pub(super) from: From,
}

/// Where a watch begins.
#[derive(Debug)]
pub(super) enum From {
    /// After this number.
    After(i64),
    /// After what the customer has acknowledged.
    Acknowledged,
}

/// What a customer has seen.
#[derive(Debug)]
pub(super) struct Acknowledge {
    pub(super) customer_id: CustomerId,
    pub(super) number: i64,
}

/// Which page of the invoices is asked for.
#[derive(Debug)]
pub(super) struct ListInvoices {
    pub(super) after: i64,
    pub(super) limit: u32,
}

pub(super) fn list_notifications(request: &wire::ListNotificationsRequest) -> Result<ListNotifications, Status> {
    let mut violations = Violations::new();
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id.as_str()));
    let order_id = match request.order_id.as_str() {
        "" => Some(None),
        order_id => check(&mut violations, "order_id", self::order_id(order_id)).map(Some),
    };
    let limit = check(&mut violations, "page_size", paging::page_size(request.page_size));
    let after = check(&mut violations, "page_token", position(&filters(request), &request.page_token));
    match (customer_id, order_id, limit, after) {
        (Some(customer_id), Some(order_id), Some(limit), Some(after)) => {
            Ok(ListNotifications { customer_id, order_id, after, limit })
        }
        // Whatever is missing was noted.
        _ => violations.finish().and(Err(Status::internal("a violation was not noted"))),
    }
}

pub(super) fn watch_notifications(request: wire::WatchNotificationsRequest) -> Result<WatchNotifications, Status> {
    let mut violations = Violations::new();
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id));
    let after = request.after_number;
    if after < 0 {
        violations.add("after_number", "must be zero or more");
    } else if request.resume && after != 0 {
        violations.add("after_number", "must be zero with `resume`");
    }
    violations.finish()?;
    let from = if request.resume { From::Acknowledged } else { From::After(after) };
    match customer_id {
        Some(customer_id) => Ok(WatchNotifications { customer_id, from }),
        None => Err(Status::internal("a violation was not noted")),
    }
}

pub(super) fn acknowledge(request: wire::AcknowledgeNotificationsRequest) -> Result<Acknowledge, Status> {
    let mut violations = Violations::new();
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id));
    if request.number < 0 {
        violations.add("number", "must be zero or more");
    }
    violations.finish()?;
    match customer_id {
        Some(customer_id) => Ok(Acknowledge { customer_id, number: request.number }),
        None => Err(Status::internal("a violation was not noted")),
    }
}

pub(super) fn invoice_of(request: &wire::GetInvoiceRequest) -> Result<String, Status> {
    order_id(&request.order_id).map_err(|error| service_kit::status::invalid_field("order_id", error))
}

pub(super) fn list_invoices(request: &wire::ListInvoicesRequest) -> Result<ListInvoices, Status> {
    let mut violations = Violations::new();
    let limit = check(&mut violations, "page_size", paging::page_size(request.page_size));
    let after = check(&mut violations, "page_token", position(&[LIST_INVOICES], &request.page_token));
    match (limit, after) {
        (Some(limit), Some(after)) => Ok(ListInvoices { after, limit }),
        // Whatever is missing was noted.
        _ => violations.finish().and(Err(Status::internal("a violation was not noted"))),
    }
}

/// The token for the page after the notification with this number, bound to the customer and the order.
pub(super) fn next_page_token(request: &wire::ListNotificationsRequest, number: i64) -> String {
    paging::encode(&filters(request), &number.to_string())
}

/// The token for the page after the invoice at this position.
pub(super) fn next_invoices_token(position: i64) -> String {
    paging::encode(&[LIST_INVOICES], &position.to_string())
}

fn filters(request: &wire::ListNotificationsRequest) -> [&str; 3] {
    [LIST_NOTIFICATIONS, &request.customer_id, &request.order_id]
}

fn position(filters: &[&str], page_token: &str) -> Result<i64, paging::Error> {
    match paging::decode(filters, page_token)? {
        None => Ok(0),
        Some(number) => number.parse().map_err(|_| paging::Error::ForeignToken),
    }
}

fn order_id(text: &str) -> Result<String, String> {
    if (1..=ORDER_ID_CHARS_MAX).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err(format!("must have 1 to {ORDER_ID_CHARS_MAX} characters"))
    }
}

/// The value, or a note of what is wrong with its field.
fn check<T, E: Display>(violations: &mut Violations, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
    value.map_err(|error| violations.add(field, error.to_string())).ok()
}
