//! From the wire into the domain: every value is checked, every violation of a request is reported.

use std::fmt::Display;

use orderflow_proto::orderflow::notification::v1 as wire;
use service_kit::paging;
use service_kit::status::Violations;
use tonic::Status;

use crate::domain::CustomerId;

/// Binds page tokens to the method.
const LIST_NOTIFICATIONS: &str = "ListNotifications";

/// Which page of whose notifications is asked for.
#[derive(Debug)]
pub(super) struct ListNotifications {
    pub(super) customer_id: CustomerId,
    pub(super) after: i64,
    pub(super) limit: u32,
}

/// Whose notifications are followed, and from where on.
#[derive(Debug)]
pub(super) struct WatchNotifications {
    pub(super) customer_id: CustomerId,
    pub(super) after: i64,
}

pub(super) fn list_notifications(request: &wire::ListNotificationsRequest) -> Result<ListNotifications, Status> {
    let mut violations = Violations::new();
    let customer_id = check(&mut violations, "customer_id", CustomerId::parse(request.customer_id.as_str()));
    let limit = check(&mut violations, "page_size", paging::page_size(request.page_size));
    let after = check(&mut violations, "page_token", position(request));
    match (customer_id, limit, after) {
        (Some(customer_id), Some(limit), Some(after)) => Ok(ListNotifications { customer_id, after, limit }),
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
    }
    violations.finish()?;
    match customer_id {
        Some(customer_id) => Ok(WatchNotifications { customer_id, after }),
        None => Err(Status::internal("a violation was not noted")),
    }
}

/// The token for the page after the notification with this number, bound to the customer.
pub(super) fn next_page_token(request: &wire::ListNotificationsRequest, number: i64) -> String {
    paging::encode(&[LIST_NOTIFICATIONS, &request.customer_id], &number.to_string())
}

fn position(request: &wire::ListNotificationsRequest) -> Result<i64, paging::Error> {
    match paging::decode(&[LIST_NOTIFICATIONS, &request.customer_id], &request.page_token)? {
        None => Ok(0),
        Some(number) => number.parse().map_err(|_| paging::Error::ForeignToken),
    }
}

/// The value, or a note of what is wrong with its field.
fn check<T, E: Display>(violations: &mut Violations, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
    value.map_err(|error| violations.add(field, error.to_string())).ok()
}
