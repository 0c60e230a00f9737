//! Cancellations, retries, refunds, deadlines and invoices.

use prost_types::Duration as WireDuration;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::app::Sweeper;
use crate::domain::PaymentOutcome;

#[tokio::test]
async fn a_pending_order_is_cancelled_at_once_and_a_late_charge_goes_back() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    let cancelled = harness.cancel(&id).await.unwrap();
    assert_eq!(cancelled.status(), wire::OrderStatus::Cancelled);
    assert_eq!(cancelled.cancel_reason(), events::CancelReason::Customer);
    // The charge had overtaken the cancellation.
    for event in [captured(&id, eur(1_200)), refunded(&id)] {
        assert_eq!(harness.hear(event, 1).await, Outcome::Done);
    }
    assert_eq!(harness.cancel(&id).await.unwrap(), cancelled, "again is no error");
    assert_eq!(harness.told(&id).await, ["OrderPlaced", "OrderCancelled"]);
    let told = harness.outbox().await.pop().unwrap().1.event;
    let expected =
        events::OrderCancelled { reason: events::CancelReason::Customer.into(), attempt: 1, total: Some(eur(1_200)) };
    assert_eq!(told, Some(events::order_event::Event::Cancelled(expected)));
    assert_eq!(harness.place("k").await, id, "a customer's cancellation keeps the key");
}

#[tokio::test]
async fn a_paid_order_is_refunded_once_the_money_is_back() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    harness.hear(captured(&id, eur(1_200)), 1).await;
    for _ in 0..2 {
        let order = harness.cancel(&id).await.unwrap();
        assert_eq!((order.status(), order.refund_pending), (wire::OrderStatus::Paid, true));
    }
    for _ in 0..2 {
        assert_eq!(harness.hear(refunded(&id), 1).await, Outcome::Done);
        let order = harness.order(&id).await;
        assert_eq!((order.status(), order.refund_pending), (wire::OrderStatus::Refunded, false));
    }
    assert_eq!(harness.told(&id).await, ["OrderPlaced", "OrderPaid", "OrderRefundRequested", "OrderRefunded"]);
}

#[tokio::test]
async fn another_card_is_tried_after_a_decline_and_old_outcomes_change_nothing() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    let refused = harness.retry(&id, "tok_other").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "ORDER_NOT_DECLINED");
    harness.hear(declined(&id, "stolen_card"), 1).await;
    let order = harness.retry(&id, "tok_other").await.unwrap();
    assert_eq!((order.status(), order.payment_attempt), (wire::OrderStatus::PendingPayment, 2));
    assert_eq!(order.decline_reason, "");
    assert_eq!(harness.retry(&id, "tok_other").await.unwrap(), order, "the same again is no error");
    assert_eq!(harness.retry(&id, "tok_third").await.unwrap_err().code(), Code::FailedPrecondition);
    for stale in [declined(&id, "stolen_card"), captured(&id, eur(1_200))] {
        assert_eq!(harness.hear(stale, 1).await, Outcome::Done);
        assert_eq!(harness.order(&id).await, order);
    }
    harness.hear(captured(&id, eur(1_200)), 2).await;
    assert_eq!(harness.order(&id).await.status(), wire::OrderStatus::Paid);
    assert_eq!(harness.told(&id).await, ["OrderPlaced", "OrderDeclined", "PaymentRetried", "OrderPaid"]);
    let retried = events::PaymentRetried { total: Some(eur(1_200)), payment_token: "tok_other".into(), attempt: 2 };
    assert_eq!(harness.outbox().await[2].1.event, Some(events::order_event::Event::PaymentRetried(retried)));
}

#[tokio::test]
async fn an_unknown_order_can_be_neither_cancelled_nor_retried() {
    let harness = Harness::start().await;
    let unknown = "0190163d-8694-739b-aea5-966c26f8ad91";
    assert_eq!(harness.cancel(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(harness.retry(unknown, "").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn fifty_cancellations_and_fifty_retries_at_once_have_one_effect_each() {
    let harness = Arc::new(Harness::start().await);
    let (cancelled, retried) = (harness.place("k-1").await, harness.place("k-2").await);
    harness.hear(declined(&retried, "stolen_card"), 1).await;
    let asks = (0..50).map(|number| {
        let (harness, cancelled, retried) = (Arc::clone(&harness), cancelled.clone(), retried.clone());
        tokio::spawn(async move {
            harness.cancel(&cancelled).await.unwrap();
            harness.retry(&retried, &format!("tok_{}", number % 2)).await.map_err(|status| status.code())
        })
    });
    let mut successes = 0;
    for ask in asks.collect::<Vec<_>>() {
        match ask.await.unwrap() {
            Ok(_) => successes += 1,
            Err(code) => assert_eq!(code, Code::FailedPrecondition),
        }
    }
    assert_eq!(successes, 25, "one card is tried, and asking for it again is no error");
    assert_eq!(harness.order(&retried).await.payment_attempt, 2);
    assert_eq!(harness.told(&cancelled).await, ["OrderPlaced", "OrderCancelled"]);
    assert_eq!(harness.told(&retried).await, ["OrderPlaced", "OrderDeclined", "PaymentRetried"]);
}

#[tokio::test]
async fn a_cancellation_and_a_charge_at_once_end_the_order_one_way() {
    let harness = Arc::new(Harness::start().await);
    for round in 0..20 {
        let id = harness.place(&format!("k-{round}")).await;
        let charge = tokio::spawn({
            let (harness, id) = (Arc::clone(&harness), id.clone());
            async move { harness.hear(captured(&id, eur(1_200)), 1).await }
        });
        harness.cancel(&id).await.unwrap();
        assert_eq!(charge.await.unwrap(), Outcome::Done);
        let (order, told) = (harness.order(&id).await, harness.told(&id).await);
        match order.status() {
            wire::OrderStatus::Cancelled => assert_eq!(told, ["OrderPlaced", "OrderCancelled"]),
            _ => assert_eq!(
                (order.refund_pending, &told[1..]),
                (true, &["OrderPaid".into(), "OrderRefundRequested".into()][..])
            ),
        }
    }
}

#[tokio::test]
async fn two_services_on_one_database_cancel_each_order_once_at_its_deadline() {
    let one = Harness::start().await;
    let other = one.beside().await;
    let sweepers =
        [&one, &other].map(|harness| tokio::spawn(Sweeper::new(harness.app.clone()).run(one.stopping.clone())));
    let mut ids = Vec::new();
    for number in 0..20 {
        let payment_deadline = Some(WireDuration { seconds: 1, nanos: 0 });
        let request = wire::PlaceOrderRequest { payment_deadline, ..request(&format!("k-{number}")) };
        let order = one.rpc.place_order(Request::new(request)).await.unwrap().into_inner().order.unwrap();
        let waits = order.payment_deadline_time.unwrap().seconds - order.create_time.unwrap().seconds;
        assert_eq!(waits, 1);
        ids.push(order.order_id);
    }
    let unlimited = one.place("no deadline").await;
    for id in &ids {
        until(async || one.order(id).await.status() == wire::OrderStatus::Cancelled).await;
        assert_eq!(one.order(id).await.cancel_reason(), events::CancelReason::PaymentDeadline);
    }
    one.stopping.cancel();
    for sweeper in sweepers {
        tokio::time::timeout(DEADLINE, sweeper).await.expect("the sweeper does not stop").unwrap();
    }
    for id in &ids {
        assert_eq!(one.told(id).await, ["OrderPlaced", "OrderCancelled"]);
    }
    assert_eq!(one.order(&unlimited).await.status(), wire::OrderStatus::PendingPayment);
}

#[tokio::test]
async fn a_paid_order_does_not_fall_due() {
    let harness = Harness::start().await;
    let payment_deadline = Some(WireDuration { seconds: 1, nanos: 0 });
    let request = wire::PlaceOrderRequest { payment_deadline, ..request("k") };
    let id = harness.rpc.place_order(Request::new(request)).await.unwrap().into_inner().order.unwrap().order_id;
    harness.hear(captured(&id, eur(1_200)), 1).await;
    let due: Option<i64> =
        sqlx::query_scalar("SELECT due_at_us FROM orders").fetch_one(harness.database.reads()).await.unwrap();
    assert_eq!(due, None);
}

#[tokio::test]
async fn each_paid_order_has_one_invoice_job_and_the_numbers_have_no_gaps() {
    let harness = Harness::start().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let customer_email = "ada@example.org".to_owned();
        let request = wire::PlaceOrderRequest { customer_email, ..request(&format!("k-{number}")) };
        ids.push(harness.rpc.place_order(Request::new(request)).await.unwrap().into_inner().order.unwrap().order_id);
    }
    harness.hear(declined(&ids[1], "stolen_card"), 1).await;
    for id in [&ids[0], &ids[0], &ids[2]] {
        harness.hear(captured(id, eur(1_200)), 1).await;
    }
    let jobs = harness.invoice_jobs().await;
    let numbers: Vec<_> = jobs.iter().map(|job| (job.invoice_number.as_str(), &job.order_id)).collect();
    assert_eq!(numbers, [("INV-000001", &ids[0]), ("INV-000002", &ids[2])]);
    let (job, order) = (&jobs[1], harness.order(&ids[2]).await);
    assert_eq!((&order.invoice_number, &order.customer_email), (&job.invoice_number, &job.customer_email));
    assert_eq!((job.order_time, job.paid_time), (order.create_time, order.update_time));
    assert_eq!((&job.total, job.lines[0].quantity, &job.lines[0].unit_price), (&order.total, 2, &Some(eur(600))));
    assert_eq!(harness.order(&ids[1]).await.invoice_number, "");
    let emails: Vec<_> = harness.outbox().await.into_iter().map(|(_, event)| event.customer_email).collect();
    assert!(emails.iter().all(|email| email == "ada@example.org"), "{emails:?}");
}

#[tokio::test]
async fn an_invoice_number_is_not_used_up_by_a_transaction_that_fails() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    harness.sql("ALTER TABLE order_timeline RENAME TO timeline_away").await;
    let total = crate::domain::Money::new("EUR".parse().unwrap(), 1_200).unwrap();
    let outcome = PaymentOutcome { attempt: 1, outcome: crate::domain::Outcome::Captured(total) };
    assert!(harness.app.settle("m".to_owned(), id.parse().unwrap(), outcome).await.is_err());
    harness.sql("ALTER TABLE timeline_away RENAME TO order_timeline").await;
    assert_eq!(harness.order(&id).await.status(), wire::OrderStatus::PendingPayment);
    harness.hear(captured(&id, eur(1_200)), 1).await;
    assert_eq!(harness.order(&id).await.invoice_number, "INV-000001");
}

#[tokio::test]
async fn an_order_from_before_the_saga_goes_on() {
    let test = Arc::new(TestDatabase::new());
    let database = Database::open(test.url(), &MIGRATIONS[..1]).await.unwrap();
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let insert = database.write(move |connection| {
        Box::pin(async move {
            let lines = r#"{"version":1,"lines":[{"sku":"tea","quantity":2,"unit_price_minor":600}]}"#;
            let sql = "INSERT INTO orders VALUES ($1, 'ada', $2, 'EUR', 'tok_visa', 'PENDING_PAYMENT', '', 1, 5, 5, 'k', 'f')";
            sqlx::query(sql).bind(id).bind(lines).execute(connection).await?;
            Ok::<_, db::Error>(())
        })
    });
    insert.await.unwrap();
    drop(database);
    let harness = Harness::open(test, Others::default()).await;
    let order = harness.order(id).await;
    assert_eq!((order.payment_attempt, order.checkout_mode()), (1, CheckoutMode::Asynchronous));
    assert_eq!((&order.payment_deadline_time, order.customer_email.as_str()), (&None, ""));
    assert_eq!(harness.hear(captured(id, eur(1_200)), 0).await, Outcome::Done, "an old event names no try");
    assert_eq!(harness.order(id).await.invoice_number, "INV-000001");
}
