//! Retries, cancellations, refunds and calls, on a real database.

use tonic::Code;

use super::*;

const RETRIED: &str = "orderflow.events.v1.PaymentRetried";
const CANCELLED: &str = "orderflow.events.v1.OrderCancelled";
const REFUND_REQUESTED: &str = "orderflow.events.v1.OrderRefundRequested";

fn order_event(event: events::order_event::Event) -> events::OrderEvent {
    events::OrderEvent { event: Some(event), ..placed(ORDER_ID, "tok_visa") }
}

fn retried(attempt: u32, card: &str) -> Event {
    let retried = events::PaymentRetried { total: Some(eur(1_200)), payment_token: card.to_owned(), attempt };
    let event = order_event(events::order_event::Event::PaymentRetried(retried));
    message(&format!("retried-{attempt}"), RETRIED, &event)
}

fn cancelled(attempt: u32) -> Event {
    let cancelled = events::OrderCancelled { attempt, total: Some(eur(1_200)), ..Default::default() };
    let event = order_event(events::order_event::Event::Cancelled(cancelled));
    message(&format!("cancelled-{attempt}"), CANCELLED, &event)
}

fn refund_requested() -> Event {
    let requested = events::OrderRefundRequested { total: Some(eur(1_200)), attempt: 1 };
    message("refund", REFUND_REQUESTED, &order_event(events::order_event::Event::RefundRequested(requested)))
}

fn charge_request() -> wire::ChargeRequest {
    wire::ChargeRequest {
        order_id: ORDER_ID.to_owned(),
        customer_id: "ada".to_owned(),
        amount: Some(eur(1_200)),
        payment_token: "tok_visa".to_owned(),
        attempt: 0,
    }
}

#[tokio::test]
async fn another_card_after_a_decline_is_another_attempt_with_its_own_key() {
    let harness = Harness::start().await;
    assert!(matches!(harness.handle(&retried(2, "tok_visa")).await, Outcome::Retry(_)), "there is no first attempt");
    assert_eq!(harness.ledger.requests(), []);
    harness.handle(&message("m", PLACED, &placed(ORDER_ID, "tok_stolen_card"))).await;
    for _ in 0..2 {
        assert_eq!(harness.handle(&retried(2, "tok_visa")).await, Outcome::Done);
    }
    // An attempt that is over, and one more after the money was taken, charge nothing.
    harness.handle(&message("m-again", PLACED, &placed(ORDER_ID, "tok_visa"))).await;
    harness.handle(&retried(3, "tok_visa")).await;
    assert_eq!(harness.ledger.requests().len(), 2);
    assert_eq!(harness.ledger.account(&format!("{ORDER_ID}/2")), Some(Account::Captured(1_200)));
    let payment = harness.payment().await;
    assert_eq!(
        (payment.status(), payment.attempt, payment.decline_reason.as_str()),
        (wire::PaymentStatus::Captured, 2, "")
    );
    let attempts: Vec<_> =
        payment.attempts.iter().map(|a| (a.attempt, a.tries, a.outcome(), a.detail.as_str())).collect();
    let declined = (1, 1, wire::PaymentStatus::Declined, "stolen_card");
    assert_eq!(attempts, [declined, (2, 1, wire::PaymentStatus::Captured, "")]);
    let outbox = harness.outbox().await;
    assert_eq!(outbox.iter().map(|(_, event)| event.attempt).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn money_that_was_taken_goes_back_once() {
    let harness = Harness::start().await;
    harness.handle(&message("m", PLACED, &placed(ORDER_ID, "tok_visa"))).await;
    for event in [refund_requested(), refund_requested(), cancelled(1)] {
        assert_eq!(harness.handle(&event).await, Outcome::Done);
    }
    assert_eq!(harness.told().await, ["PaymentCaptured", "PaymentRefunded"]);
    assert_eq!(harness.ledger.account(ORDER_ID), Some(Account::Refunded(1_200)));
    let payment = harness.payment().await;
    assert_eq!((payment.status(), payment.refund_id), (wire::PaymentStatus::Refunded, format!("re_{ORDER_ID}")));
    assert!(payment.capture_time.is_some() && payment.refund_time.is_some());
}

#[tokio::test]
async fn a_cancellation_that_overtakes_the_charge_leaves_a_tombstone() {
    let harness = Harness::start().await;
    assert_eq!(harness.handle(&cancelled(1)).await, Outcome::Done);
    assert_eq!(harness.handle(&message("m", PLACED, &placed(ORDER_ID, "tok_visa"))).await, Outcome::Done);
    assert_eq!(harness.charge(charge_request()).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!((harness.ledger.requests(), harness.ledger.account(ORDER_ID)), (vec![], Some(Account::Blocked)));
    assert_eq!(harness.told().await, ["PaymentVoided"]);
    let payment = harness.payment().await;
    assert_eq!((payment.status(), payment.amount), (wire::PaymentStatus::Voided, Some(eur(1_200))));
}

#[tokio::test]
async fn a_synchronous_checkout_is_not_charged_by_the_queue() {
    let harness = Harness::start().await;
    let mut event = placed(ORDER_ID, "tok_visa");
    if let Some(events::order_event::Event::Placed(placed)) = &mut event.event {
        placed.checkout_mode = orderflow_proto::orderflow::r#type::v1::CheckoutMode::Synchronous.into();
    }
    assert_eq!(harness.handle(&message("m", PLACED, &event)).await, Outcome::Done);
    assert_eq!(harness.ledger.requests(), []);
    for _ in 0..2 {
        let payment = harness.charge(charge_request()).await.unwrap();
        assert_eq!((payment.status(), payment.attempt), (wire::PaymentStatus::Captured, 1));
    }
    assert_eq!((harness.ledger.requests().len(), harness.told().await), (1, vec!["PaymentCaptured".to_owned()]));
    let other = wire::ChargeRequest { amount: Some(eur(1)), ..charge_request() };
    assert_eq!(harness.charge(other).await.unwrap_err().code(), Code::FailedPrecondition);
    let early = wire::ChargeRequest { order_id: OTHER_ORDER_ID.to_owned(), attempt: 2, ..charge_request() };
    assert_eq!(harness.charge(early).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_caller_is_told_at_once_that_the_acquirer_is_away_and_nothing_is_written() {
    let harness = Harness::start().await;
    harness.ledger.up.send_replace(false);
    assert_eq!(harness.charge(charge_request()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(harness.payments().await, []);
}

#[tokio::test]
async fn a_bad_charge_is_refused_with_every_violation_and_charges_nothing() {
    use tonic_types::StatusExt as _;
    let harness = Harness::start().await;
    let with = |change: fn(&mut wire::ChargeRequest)| {
        let mut request = charge_request();
        change(&mut request);
        request
    };
    let table: [(wire::ChargeRequest, &[&str]); 8] = [
        (with(|request| request.order_id.clear()), &["order_id"]),
        (with(|request| request.customer_id = "c".repeat(65)), &["customer_id"]),
        (with(|request| request.amount = None), &["amount"]),
        (with(|request| request.amount = Some(eur(0))), &["amount.amount_minor"]),
        (with(|request| request.amount = Some(eur(i64::MIN))), &["amount.amount_minor"]),
        (with(|request| request.payment_token.clear()), &["payment_token"]),
        (with(|request| request.payment_token = "t".repeat(65)), &["payment_token"]),
        (
            wire::ChargeRequest { amount: Some(Money::default()), ..Default::default() },
            &["order_id", "customer_id", "amount.currency_code", "amount.amount_minor", "payment_token"],
        ),
    ];
    for (request, fields) in table {
        let status = harness.charge(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{fields:?}");
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), fields);
    }
    assert_eq!((harness.ledger.requests().len(), harness.payments().await.len()), (0, 0));
}

#[tokio::test]
async fn queue_rpc_and_cancellation_at_once_leave_nothing_taken() {
    for round in 0..20 {
        let harness = Harness::start().await;
        let event = message("m", PLACED, &placed(ORDER_ID, "tok_visa"));
        let cancel = cancelled(1);
        let late = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            harness.handle(&cancel).await
        };
        let (queued, called, cancelled) = tokio::join!(harness.handle(&event), harness.charge(charge_request()), late);
        assert_eq!((queued, cancelled), (Outcome::Done, Outcome::Done));
        if let Err(status) = called {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        }
        let account = harness.ledger.account(ORDER_ID);
        let payment = harness.payment().await;
        match payment.status() {
            wire::PaymentStatus::Voided => assert_eq!(account, Some(Account::Blocked)),
            wire::PaymentStatus::Refunded => assert_eq!(account, Some(Account::Refunded(1_200))),
            other => panic!("{other:?}"),
        }
        let ends = harness.told().await.iter().filter(|told| *told != "PaymentCaptured").count();
        assert_eq!(ends, 1);
    }
}
