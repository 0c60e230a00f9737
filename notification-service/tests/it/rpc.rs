use orderflow_proto::orderflow::notification::v1::{
    ListNotificationsRequest, Notification, NotificationKind, WatchNotificationsRequest,
};
use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Running, within};

#[track_caller]
fn assert_violations(status: &Status, expected: &[&str]) {
    assert_eq!(status.code(), Code::InvalidArgument, "{expected:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), expected);
}

fn list(customer_id: &str, page_size: i32) -> ListNotificationsRequest {
    ListNotificationsRequest {
        customer_id: customer_id.to_owned(),
        page_size,
        page_token: String::new(),
        ..Default::default()
    }
}

#[tokio::test]
async fn stored_notifications_are_told_as_they_are() {
    let mut service = Running::start_with(1).await;
    let told = service.client.list_notifications(list("ada", 0)).await.unwrap().into_inner();
    let expected = Notification {
        number: 1,
        customer_id: "ada".to_owned(),
        order_id: "o-1".to_owned(),
        kind: NotificationKind::OrderReceived.into(),
        text: "Hello".to_owned(),
        event_id: "e-1".to_owned(),
        create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 1_000 }),
        ..Default::default()
    };
    assert_eq!((told.notifications, told.next_page_token.as_str()), (vec![expected], ""));
}

#[tokio::test]
async fn pages_are_complete_and_oldest_first() {
    let mut service = Running::start_with(6).await;
    for (page_size, sizes) in [(0, vec![6]), (6, vec![6]), (3, vec![3, 3]), (4, vec![4, 2]), (i32::MAX, vec![6])] {
        let (mut request, mut numbers, mut seen) = (list("ada", page_size), Vec::new(), Vec::new());
        loop {
            let page = service.client.list_notifications(request.clone()).await.unwrap().into_inner();
            seen.push(page.notifications.len());
            numbers.extend(page.notifications.iter().map(|notification| notification.number));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!((seen, numbers), (sizes, (1..=6).collect::<Vec<_>>()), "{page_size}");
    }
    assert_eq!(service.client.list_notifications(list("bob", 0)).await.unwrap().into_inner(), Default::default());
}

#[tokio::test]
async fn bad_requests_are_refused_with_every_violation() {
    let mut service = Running::start_with(2).await;
    let page_token = service.client.list_notifications(list("ada", 1)).await.unwrap().into_inner().next_page_token;
    let other_customer = ListNotificationsRequest { page_token, ..list("bob", 1) };
    let garbage = |customer: &str, page_size| ListNotificationsRequest {
        page_token: "garbage".to_owned(),
        ..list(customer, page_size)
    };
    let table: [(ListNotificationsRequest, &[&str]); 6] = [
        (list("", 0), &["customer_id"]),
        (list(&"c".repeat(65), 0), &["customer_id"]),
        (list("ada", -1), &["page_size"]),
        (garbage("ada", 0), &["page_token"]),
        (other_customer, &["page_token"]),
        (garbage("", -1), &["customer_id", "page_size", "page_token"]),
    ];
    for (bad, fields) in table {
        assert_violations(&service.client.list_notifications(bad).await.unwrap_err(), fields);
    }
    let table: [(&str, i64, &[&str]); 3] =
        [("", 0, &["customer_id"]), ("ada", -1, &["after_number"]), ("", i64::MIN, &["customer_id", "after_number"])];
    for (customer_id, after_number, fields) in table {
        let bad = WatchNotificationsRequest { customer_id: customer_id.to_owned(), after_number, ..Default::default() };
        assert_violations(&service.client.watch_notifications(bad).await.unwrap_err(), fields);
    }
}

#[tokio::test]
async fn a_watch_begins_after_the_number_that_was_seen_last() {
    let mut service = Running::start_with(5).await;
    for (after_number, expected) in [(0, vec![1, 2, 3, 4, 5]), (3, vec![4, 5])] {
        let request = WatchNotificationsRequest { customer_id: "ada".to_owned(), after_number, ..Default::default() };
        let mut stream = service.client.watch_notifications(request).await.unwrap().into_inner();
        let mut numbers = Vec::new();
        for _ in 0..expected.len() {
            let response = within(stream.message()).await.unwrap().unwrap();
            numbers.push(response.notification.unwrap().number);
        }
        assert_eq!(numbers, expected);
    }
}
