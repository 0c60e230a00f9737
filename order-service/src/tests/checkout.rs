//! The synchronous checkout against a payment-service in every mood.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::fake::{Fake, Mood};
use super::*;
use crate::app::Sweeper;

fn synchronous(key: &str) -> wire::PlaceOrderRequest {
    wire::PlaceOrderRequest { checkout_mode: CheckoutMode::Synchronous.into(), ..request(key) }
}

async fn place(harness: &Harness, key: &str) -> Result<wire::Order, Status> {
    let placed = harness.rpc.place_order(Request::new(synchronous(key)));
    let placed = tokio::time::timeout(DEADLINE, placed).await.expect("the checkout hangs");
    Ok(placed?.into_inner().order.unwrap())
}

/// The one order that there is.
async fn only(harness: &Harness) -> wire::Order {
    let request = Request::new(wire::ListOrdersRequest::default());
    let mut orders = harness.rpc.list_orders(request).await.unwrap().into_inner().orders;
    assert_eq!(orders.len(), 1);
    orders.remove(0)
}

fn assert_unavailable(status: &Status, order: &wire::Order) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), &info.metadata["order_id"]), ("PAYMENT_UNAVAILABLE", &order.order_id));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert_eq!(order.status(), wire::OrderStatus::Cancelled);
    assert_eq!(order.cancel_reason(), events::CancelReason::PaymentUnavailable);
}

#[tokio::test]
async fn the_reply_tells_that_the_card_was_charged_or_declined() {
    for (mood, status, told) in [
        (Mood::Capture, wire::OrderStatus::Paid, "OrderPaid"),
        (Mood::Decline, wire::OrderStatus::PaymentDeclined, "OrderDeclined"),
        // The same charge again finds the first outcome.
        (Mood::LoseFirstReply, wire::OrderStatus::Paid, "OrderPaid"),
    ] {
        let (fake, url) = Fake::start(mood).await;
        let harness = Harness::start_with(Others { payment_url: &url, ..Default::default() }).await;
        let order = place(&harness, "k").await.unwrap();
        assert_eq!((order.status(), order.checkout_mode()), (status, CheckoutMode::Synchronous));
        assert_eq!(harness.told(&order.order_id).await, ["OrderPlaced", told]);
        let events = harness.outbox().await;
        let Some(events::order_event::Event::Placed(placed)) = &events[0].1.event else { panic!("{events:?}") };
        assert_eq!(placed.checkout_mode(), CheckoutMode::Synchronous, "or the queue would charge it as well");
        fake.with(|state| {
            let call = &state.calls[0];
            assert_eq!(
                (&call.order_id, call.amount.as_ref(), call.attempt),
                (&order.order_id, order.total.as_ref(), 1)
            );
            assert!(state.deadlines.iter().all(|with_deadline| *with_deadline));
        });
        // The event that follows the reply finds the order settled, and the same request again finds the order.
        let event = match mood {
            Mood::Decline => declined(&order.order_id, "stolen_card"),
            _ => captured(&order.order_id, eur(1_200)),
        };
        assert_eq!(harness.hear(event, 1).await, Outcome::Done);
        let calls = fake.with(|state| state.calls.len());
        assert_eq!(place(&harness, "k").await.unwrap(), order);
        assert_eq!(harness.outbox().await.len(), 2);
        assert_eq!(fake.with(|state| state.calls.len()), calls, "what is settled is not charged again");
    }
}

#[tokio::test]
async fn without_an_answer_no_order_is_left_half_done_and_the_key_is_free_again() {
    for mood in [Mood::Unavailable, Mood::Hang, Mood::Tombstone, Mood::Cheat] {
        let (fake, url) = Fake::start(mood).await;
        let payment_timeout = Duration::from_millis(200);
        let others = Others { payment_url: &url, payment_timeout, ..Default::default() };
        let harness = Harness::start_with(others).await;
        let status = place(&harness, "k").await.unwrap_err();
        let order = only(&harness).await;
        assert_unavailable(&status, &order);
        assert_eq!(harness.told(&order.order_id).await, ["OrderPlaced", "OrderCancelled"], "{mood:?}");
        // The money of a charge that went through all the same goes back.
        assert_eq!(harness.hear(captured(&order.order_id, eur(1_200)), 1).await, Outcome::Done);
        assert_eq!(harness.hear(refunded(&order.order_id), 1).await, Outcome::Done);
        assert_eq!(harness.order(&order.order_id).await, order);
        fake.with(|state| state.mood = Mood::Capture);
        let again = place(&harness, "k").await.map(|order| (order.status(), order.order_id));
        // The short time that the call has here may be over on a slow machine, which is no reason to reuse the order.
        match again {
            Ok((status, id)) => assert!(status == wire::OrderStatus::Paid && id != order.order_id),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

#[tokio::test]
async fn payment_that_is_down_is_told_at_once() {
    let harness = Harness::start().await;
    let status = place(&harness, "k").await.unwrap_err();
    assert_unavailable(&status, &only(&harness).await);
}

#[tokio::test]
async fn an_outcome_that_comes_by_the_queue_first_counts() {
    let (fake, url) = Fake::start(Mood::Hold).await;
    let harness = Arc::new(Harness::start_with(Others { payment_url: &url, ..Default::default() }).await);
    let placing = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { place(&harness, "k").await }
    });
    until(async || fake.with(|state| state.calls.len()) == 1).await;
    let order_id = fake.with(|state| state.calls[0].order_id.clone());
    assert_eq!(harness.hear(captured(&order_id, eur(1_200)), 1).await, Outcome::Done);
    fake.with(|state| state.mood = Mood::Unavailable);
    let order = placing.await.unwrap().unwrap();
    assert_eq!((order.status(), order.order_id.as_str()), (wire::OrderStatus::Paid, order_id.as_str()));
    assert_eq!(harness.told(&order_id).await, ["OrderPlaced", "OrderPaid"]);
}

#[tokio::test]
async fn a_service_that_was_killed_during_the_call_cancels_the_order_when_it_is_back() {
    let (fake, url) = Fake::start(Mood::Hang).await;
    let killed = Arc::new(Harness::start_with(Others { payment_url: &url, ..Default::default() }).await);
    let placing = tokio::spawn({
        let harness = Arc::clone(&killed);
        async move { place(&harness, "k").await }
    });
    until(async || fake.with(|state| state.calls.len()) == 1).await;
    placing.abort();
    // As if the time of the call had passed while nobody ran.
    killed.sql("UPDATE orders SET call_deadline_us = 1, due_at_us = 1").await;
    let back = killed.beside().await;
    let sweeping = tokio::spawn(Sweeper::new(back.app.clone()).run(back.stopping.clone()));
    until(async || only(&back).await.status() == wire::OrderStatus::Cancelled).await;
    let order = only(&back).await;
    assert_eq!(order.cancel_reason(), events::CancelReason::PaymentUnavailable);
    assert_eq!(back.told(&order.order_id).await, ["OrderPlaced", "OrderCancelled"]);
    back.stopping.cancel();
    sweeping.await.unwrap();
    assert_ne!(back.place("k").await, order.order_id, "the key is free");
}

#[tokio::test]
async fn the_same_request_again_takes_up_a_checkout_whose_process_has_died() {
    let (fake, url) = Fake::start(Mood::Hang).await;
    let harness = Arc::new(Harness::start_with(Others { payment_url: &url, ..Default::default() }).await);
    let placing = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { place(&harness, "k").await }
    });
    until(async || fake.with(|state| state.calls.len()) == 1).await;
    placing.abort();
    fake.with(|state| state.mood = Mood::Capture);
    let order = place(&harness, "k").await.unwrap();
    assert_eq!(order.status(), wire::OrderStatus::Paid);
    assert_eq!(only(&harness).await, order);
}

#[tokio::test]
async fn fifty_requests_at_once_with_one_key_make_one_paid_order() {
    let (_fake, url) = Fake::start(Mood::Capture).await;
    let harness = Arc::new(Harness::start_with(Others { payment_url: &url, ..Default::default() }).await);
    let placing = (0..50).map(|_| {
        let harness = Arc::clone(&harness);
        tokio::spawn(async move { place(&harness, "k").await })
    });
    for placed in placing.collect::<Vec<_>>() {
        assert_eq!(placed.await.unwrap().unwrap().status(), wire::OrderStatus::Paid);
    }
    let order = only(&harness).await;
    assert_eq!(harness.told(&order.order_id).await, ["OrderPlaced", "OrderPaid"]);
    assert_eq!(harness.invoice_jobs().await.len(), 1);
}

#[tokio::test]
async fn a_retry_after_a_declined_checkout_goes_through_the_queue() {
    let (fake, url) = Fake::start(Mood::Decline).await;
    let harness = Harness::start_with(Others { payment_url: &url, ..Default::default() }).await;
    let order = place(&harness, "k").await.unwrap();
    let retried = harness.retry(&order.order_id, "tok_other").await.unwrap();
    assert_eq!((retried.status(), retried.payment_attempt), (wire::OrderStatus::PendingPayment, 2));
    assert_eq!(fake.with(|state| state.calls.len()), 1);
    assert_eq!(harness.hear(captured(&order.order_id, eur(1_200)), 2).await, Outcome::Done);
    assert_eq!(harness.order(&order.order_id).await.status(), wire::OrderStatus::Paid);
}
