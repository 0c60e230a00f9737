//! Invoices, and how far a customer has read.

use super::*;

pub(super) const RENDERED: &str = "orderflow.events.v1.InvoiceRendered";

pub(super) fn rendered(invoice_number: &str, order_id: &str) -> events::InvoiceRendered {
    events::InvoiceRendered {
        invoice_number: invoice_number.to_owned(),
        order_id: order_id.to_owned(),
        customer_id: "ada".to_owned(),
        customer_email: "ada@example.org".to_owned(),
        total: eur(1_299),
        pdf: b"%PDF-1.7 page".to_vec(),
    }
}

async fn arrive(harness: &Harness, event_id: &str, invoice: &events::InvoiceRendered) -> Outcome {
    harness.invoice(&message(event_id, RENDERED, invoice.encode_to_vec())).await
}

async fn get(harness: &Harness, order_id: &str) -> Result<wire::GetInvoiceResponse, Status> {
    let request = wire::GetInvoiceRequest { order_id: order_id.to_owned() };
    harness.rpc.get_invoice(Request::new(request)).await.map(tonic::Response::into_inner)
}

async fn page(harness: &Harness, page_size: i32, page_token: String) -> Result<wire::ListInvoicesResponse, Status> {
    let request = wire::ListInvoicesRequest { page_size, page_token };
    harness.rpc.list_invoices(Request::new(request)).await.map(tonic::Response::into_inner)
}

async fn acknowledge(harness: &Harness, customer_id: &str, number: i64) -> Result<i64, Status> {
    let request = wire::AcknowledgeNotificationsRequest { customer_id: customer_id.to_owned(), number };
    let response = harness.rpc.acknowledge_notifications(Request::new(request)).await?;
    Ok(response.into_inner().number)
}

async fn resume(harness: &Harness) -> Watching {
    let request = wire::WatchNotificationsRequest { customer_id: "ada".to_owned(), resume: true, ..Default::default() };
    Watching(harness.rpc.watch_notifications(Request::new(request)).await.unwrap().into_inner())
}

async fn place(harness: &Harness, count: u32) {
    for number in 1..=count {
        let event = message(&format!("e-{number}"), PLACED, placed("ada").encode_to_vec());
        assert_eq!(harness.order(&event).await, Outcome::Done);
    }
}

#[tokio::test]
async fn an_invoice_is_kept_once_told_once_and_given_out() {
    let harness = Harness::start().await;
    assert_eq!(get(&harness, "o-1").await.unwrap_err().code(), Code::NotFound);
    for _ in 0..2 {
        assert_eq!(arrive(&harness, "i-1", &rendered("INV-000001", "o-1")).await, Outcome::Done);
    }
    // The same job under another id, and another invoice for the same order: both change nothing.
    assert_eq!(arrive(&harness, "i-2", &rendered("INV-000001", "o-1")).await, Outcome::Done);
    assert_eq!(arrive(&harness, "i-3", &rendered("INV-000009", "o-1")).await, Outcome::Done);
    let response = get(&harness, "o-1").await.unwrap();
    assert_eq!(response.pdf, b"%PDF-1.7 page");
    let invoice = response.invoice.unwrap();
    assert_eq!(
        (invoice.invoice_number.as_str(), invoice.pdf_bytes, invoice.total.clone()),
        ("INV-000001", 13, eur(1_299))
    );
    let told = harness.list("ada").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind(), wire::NotificationKind::InvoiceReady);
    assert_eq!(told[0].text, "The invoice INV-000001 for your order o-1 over 12.99 EUR is ready.");
    assert_eq!(page(&harness, 0, String::new()).await.unwrap().invoices, [invoice]);
}

#[tokio::test]
async fn invoices_that_share_a_commit_are_kept_once_each_and_a_number_has_one_order() {
    let harness = Harness::start().await;
    let [first, other_number, number_taken, second] =
        [("INV-1", "o-1"), ("INV-9", "o-1"), ("INV-1", "o-2"), ("INV-4", "o-4")]
            .map(|(number, id)| rendered(number, id));
    let outcomes: (_, _, _, _, _) = tokio::join!(
        arrive(&harness, "i-1", &first),
        arrive(&harness, "i-1", &first),
        arrive(&harness, "i-2", &other_number),
        arrive(&harness, "i-3", &number_taken),
        arrive(&harness, "i-4", &second),
    );
    assert_rejected(outcomes.3, "is that of order o-1");
    for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.4] {
        assert_eq!(outcome, Outcome::Done);
    }
    let kept = page(&harness, 0, String::new()).await.unwrap().invoices;
    let kept: Vec<_> = kept.iter().map(|kept| (kept.invoice_number.as_str(), kept.order_id.as_str())).collect();
    assert_eq!(kept, [("INV-1", "o-1"), ("INV-4", "o-4")]);
    assert_eq!(harness.list("ada").await.iter().map(|told| told.number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn invoices_are_listed_in_the_order_of_their_arrival_page_by_page() {
    let harness = Harness::start().await;
    for number in [3, 1, 2] {
        let invoice = rendered(&format!("INV-{number}"), &format!("o-{number}"));
        assert_eq!(arrive(&harness, &format!("i-{number}"), &invoice).await, Outcome::Done);
    }
    let (mut token, mut numbers) = (String::new(), Vec::new());
    loop {
        let page = page(&harness, 2, token).await.unwrap();
        numbers.extend(page.invoices.into_iter().map(|invoice| invoice.invoice_number));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(numbers, ["INV-3", "INV-1", "INV-2"]);
    assert_eq!(page(&harness, -1, String::new()).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(page(&harness, 1, "garbage".to_owned()).await.unwrap_err().code(), Code::InvalidArgument);
    for order_id in [String::new(), "o".repeat(65)] {
        assert_eq!(get(&harness, &order_id).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_poisoned_invoice_is_rejected_with_its_reason_and_keeps_nothing() {
    let harness = Harness::start().await;
    let right = || rendered("INV-000001", "o-1");
    let table = [
        (events::InvoiceRendered { invoice_number: "../x".into(), ..right() }, "`invoice_number`"),
        (events::InvoiceRendered { order_id: String::new(), ..right() }, "`order_id`"),
        (events::InvoiceRendered { customer_id: "c".repeat(65), ..right() }, "`customer_id`"),
        (events::InvoiceRendered { total: None, ..right() }, "`total`"),
        (events::InvoiceRendered { pdf: b"<html>".to_vec(), ..right() }, "`pdf`"),
        (events::InvoiceRendered { pdf: [b"%PDF-".to_vec(), vec![0; 2 * 1024 * 1024]].concat(), ..right() }, "`pdf`"),
    ];
    for (invoice, reason) in table {
        assert_rejected(arrive(&harness, "i-1", &invoice).await, reason);
    }
    assert_rejected(harness.invoice(&message("i-1", RENDERED, vec![0xff; 8])).await, "does not decode");
    let other = message("i-1", "orderflow.events.v9.Other", vec![0xff; 8]);
    assert_eq!(harness.invoice(&other).await, Outcome::Done);
    assert_eq!(harness.list("ada").await, []);
    assert_eq!(arrive(&harness, "i-1", &right()).await, Outcome::Done);
    // Two orders with one number: somebody has to look at it.
    assert_rejected(arrive(&harness, "i-2", &rendered("INV-000001", "o-2")).await, "is that of order o-1");
    assert_eq!(harness.list("ada").await.len(), 1);
}

#[tokio::test]
async fn what_a_customer_has_seen_is_remembered_and_a_watch_resumes_after_it_across_a_restart() {
    let harness = Harness::start().await;
    place(&harness, 5).await;
    assert_eq!(resume(&harness).await.numbers(5).await, [1, 2, 3, 4, 5]);
    assert_eq!(acknowledge(&harness, "ada", 3).await.unwrap(), 3);
    assert_eq!(acknowledge(&harness, "ada", 2).await.unwrap(), 3, "a smaller number changes nothing");
    let harness = harness.restart(now_us).await;
    assert_eq!(resume(&harness).await.numbers(2).await, [4, 5]);
    assert_eq!(acknowledge(&harness, "ada", 5).await.unwrap(), 5);
    let mut watching = resume(&harness).await;
    harness.order(&message("e-6", PLACED, placed("ada").encode_to_vec())).await;
    assert_eq!(watching.numbers(1).await, [6]);
}

#[tokio::test]
async fn bad_acknowledgements_are_refused_and_change_nothing() {
    let harness = Harness::start().await;
    place(&harness, 2).await;
    let table = [
        ("", 1, Code::InvalidArgument),
        ("ada", -1, Code::InvalidArgument),
        ("ada", 3, Code::OutOfRange),
        ("ada", i64::MAX, Code::OutOfRange),
        ("bob", 1, Code::OutOfRange),
    ];
    for (customer, number, code) in table {
        assert_eq!(acknowledge(&harness, customer, number).await.unwrap_err().code(), code, "{customer} {number}");
    }
    assert_eq!(acknowledge(&harness, "ada", 0).await.unwrap(), 0);
    assert_eq!(acknowledge(&harness, "bob", 0).await.unwrap(), 0);
    let both = wire::WatchNotificationsRequest { customer_id: "ada".to_owned(), after_number: 1, resume: true };
    let refused = harness.rpc.watch_notifications(Request::new(both)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn notifications_of_one_order_can_be_asked_for() {
    let harness = Harness::start().await;
    place(&harness, 2).await;
    assert_eq!(arrive(&harness, "i-1", &rendered("INV-000001", "o-2")).await, Outcome::Done);
    let mut request = wire::ListNotificationsRequest {
        customer_id: "ada".to_owned(),
        order_id: "o-1".to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let first = harness.rpc.list_notifications(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(first.notifications.iter().map(|n| n.number).collect::<Vec<_>>(), [1]);
    request.page_token = first.next_page_token;
    let second = harness.rpc.list_notifications(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(second.notifications.iter().map(|n| n.number).collect::<Vec<_>>(), [2]);
    assert_eq!(second.next_page_token, "");
    // A token belongs to its filters.
    request.order_id = "o-2".to_owned();
    assert!(harness.rpc.list_notifications(Request::new(request.clone())).await.is_err());
    request.order_id = "o".repeat(65);
    request.page_token.clear();
    assert!(harness.rpc.list_notifications(Request::new(request)).await.is_err());
}

#[tokio::test]
async fn cancellations_and_refunds_are_told_and_what_tells_nothing_new_is_not() {
    let harness = Harness::start().await;
    let reason = events::CancelReason::PaymentDeadline.into();
    let cancelled =
        order_event("ada", OrderBody::Cancelled(events::OrderCancelled { reason, attempt: 1, ..Default::default() }));
    let refunded = payment_event("ada", PaymentBody::Refunded(events::PaymentRefunded::default()));
    let voided = payment_event("ada", PaymentBody::Voided(events::PaymentVoided {}));
    let done = order_event("ada", OrderBody::Refunded(events::OrderRefunded::default()));
    let asked = order_event("ada", OrderBody::RefundRequested(events::OrderRefundRequested::default()));
    let retried = order_event("ada", OrderBody::PaymentRetried(events::PaymentRetried::default()));
    for (id, kind, event) in [
        ("e-1", "OrderCancelled", cancelled),
        ("e-2", "OrderRefunded", done),
        ("e-3", "OrderRefundRequested", asked),
        ("e-4", "PaymentRetried", retried),
    ] {
        let event = message(id, &format!("orderflow.events.v1.{kind}"), event.encode_to_vec());
        assert_eq!(harness.order(&event).await, Outcome::Done, "{kind}");
    }
    for (id, kind, event) in [("p-1", "PaymentRefunded", refunded), ("p-2", "PaymentVoided", voided)] {
        let event = message(id, &format!("orderflow.events.v1.{kind}"), event.encode_to_vec());
        assert_eq!(harness.payment(&event).await, Outcome::Done, "{kind}");
    }
    use wire::NotificationKind as Kind;
    let kinds: Vec<_> = harness.list("ada").await.iter().map(wire::Notification::kind).collect();
    assert_eq!(kinds, [Kind::OrderCancelled, Kind::PaymentRefunded]);
    let wrong = message("e-9", "orderflow.events.v1.OrderCancelled", placed("ada").encode_to_vec());
    assert_rejected(harness.order(&wrong).await, "another event");
}
