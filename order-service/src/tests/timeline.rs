//! The timeline: what the order knows, what others tell, and who is missing.

use orderflow_proto::orderflow::notification::v1 as notification;
use orderflow_proto::orderflow::payment::v1 as payment;
use prost_types::Timestamp;
use service_kit::outbox::Taken;

use super::fake::{Fake, Mood};
use super::*;
use crate::store::queued;
use wire::TimelineKind as Kind;

/// Tells the store what the relay tells it once the broker has taken everything that waits.
async fn all_taken(harness: &Harness) {
    let sql = "SELECT event_id, ordering_key, attributes, payload FROM outbox ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(harness.database.reads()).await.unwrap();
    let taken: Vec<Taken> = rows
        .iter()
        .map(|row| {
            let attributes: HashMap<String, String> = serde_json::from_str(row.get("attributes")).unwrap();
            Taken {
                event_id: row.get("event_id"),
                kind: attributes["ce-type"].clone(),
                ordering_key: row.get("ordering_key"),
                payload: row.get::<Vec<u8>, _>("payload").into(),
            }
        })
        .collect();
    let work = harness.database.write(move |connection| {
        Box::pin(async move {
            queued(connection, &taken).await?;
            sqlx::query("DELETE FROM outbox").execute(connection).await?;
            Ok::<_, db::Error>(())
        })
    });
    work.await.unwrap();
}

#[tokio::test]
async fn each_step_stands_in_the_timeline_once_and_in_order() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    all_taken(&harness).await;
    for _ in 0..2 {
        harness.hear(declined(&id, "stolen_card"), 1).await;
    }
    harness.retry(&id, "tok_other").await.unwrap();
    all_taken(&harness).await;
    harness.hear(captured(&id, eur(1_200)), 2).await;
    harness.cancel(&id).await.unwrap();
    harness.hear(refunded(&id), 2).await;
    all_taken(&harness).await;
    let (entries, missing) = harness.timeline(&id).await;
    let entries: Vec<_> = entries.iter().map(|(kind, attempt, detail)| (*kind, *attempt, detail.as_str())).collect();
    let expected = [
        (Kind::Accepted, 0, ""),
        (Kind::Queued, 1, ""),
        (Kind::Declined, 1, "stolen_card"),
        (Kind::PaymentRetried, 2, ""),
        (Kind::Queued, 2, ""),
        (Kind::Paid, 2, ""),
        (Kind::RefundRequested, 2, ""),
        (Kind::Refunded, 2, ""),
    ];
    assert_eq!(entries, expected);
    assert_eq!(missing, ["payment-service", "notification-service"]);
}

#[tokio::test]
async fn a_cancelled_order_notes_what_became_of_its_money() {
    let harness = Harness::start().await;
    for (key, event, noted) in [("k-1", refunded as fn(&str) -> _, Kind::Refunded), ("k-2", voided, Kind::Voided)] {
        let id = harness.place(key).await;
        harness.cancel(&id).await.unwrap();
        harness.hear(event(&id), 1).await;
        let entries = harness.timeline(&id).await.0;
        let expected =
            [(Kind::Accepted, 0, String::new()), (Kind::Cancelled, 1, "CUSTOMER".into()), (noted, 1, String::new())];
        assert_eq!(entries, expected);
    }
}

#[tokio::test]
async fn others_tell_their_part_and_who_is_away_is_named() {
    let (fake, url) = Fake::start(Mood::Capture).await;
    let harness = Harness::start_with(Others { payment_url: &url, notification_url: &url, ..Default::default() }).await;
    let id = harness.place("k").await;
    // Nobody has tried to charge it: nothing is missing.
    assert_eq!(harness.timeline(&id).await, (vec![(Kind::Accepted, 0, String::new())], vec![]));
    harness.hear(captured(&id, eur(1_200)), 1).await;
    let created = harness.order(&id).await.create_time.unwrap();
    let after = |seconds| Some(Timestamp { seconds: created.seconds + seconds, nanos: 0 });
    let attempt = payment::PaymentAttempt {
        attempt: 1,
        first_time: after(3_600),
        end_time: after(3_610),
        tries: 3,
        ..Default::default()
    };
    let payment =
        payment::Payment { attempt: 1, capture_time: after(3_610), attempts: vec![attempt], ..Default::default() };
    let told = |order_id: &str, kind: notification::NotificationKind, seconds| notification::Notification {
        order_id: order_id.to_owned(),
        kind: kind.into(),
        create_time: after(seconds),
        ..Default::default()
    };
    fake.with(|state| {
        state.payments.insert(id.clone(), payment);
        state.notifications = vec![
            told(&id, notification::NotificationKind::OrderReceived, 3_605),
            told(&id, notification::NotificationKind::InvoiceReady, 3_620),
            told("another order", notification::NotificationKind::OrderReceived, 3_620),
        ];
    });
    let (entries, missing) = harness.timeline(&id).await;
    let entries: Vec<_> = entries.iter().map(|(kind, attempt, detail)| (*kind, *attempt, detail.as_str())).collect();
    let expected = [
        (Kind::Accepted, 0, ""),
        (Kind::Paid, 1, ""),
        (Kind::PaymentAttempted, 1, "2 in vain"),
        (Kind::Notified, 0, "ORDER_RECEIVED"),
        (Kind::Charged, 1, ""),
        (Kind::Invoiced, 0, "INV-000001"),
        (Kind::Notified, 0, "INVOICE_READY"),
    ];
    assert_eq!(entries, expected);
    assert_eq!(missing, [""; 0]);
    let away = Harness::start_with(Others { payment_url: &url, ..Default::default() }).await;
    let id = away.place("k").await;
    assert_eq!(away.timeline(&id).await.1, ["notification-service"]);
}
