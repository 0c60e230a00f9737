//! The service on a real database, without network and broker: events go in, notifications come out.

mod emails;
mod invoices;
mod smtp;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orderflow_proto::orderflow::events::v1 as events;
use orderflow_proto::orderflow::events::v1::order_event::Event as OrderBody;
use orderflow_proto::orderflow::events::v1::payment_event::Event as PaymentBody;
use orderflow_proto::orderflow::notification::v1 as wire;
use orderflow_proto::orderflow::notification::v1::notification_service_server::NotificationService as _;
use orderflow_proto::orderflow::r#type::v1::Money;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::clock::now_us;
use service_kit::consumer::{Handler, Outcome};
use service_kit::db::{self, Database};
use service_kit::event::Event;
use test_database::TestDatabase;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

use crate::app::App;
use crate::consumer::{Invoices, OrderEvents, PaymentEvents, handlers};
use crate::grpc::Rpc;
use crate::store::{MIGRATIONS, Store};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

const PLACED: &str = "orderflow.events.v1.OrderPlaced";
const PAID: &str = "orderflow.events.v1.OrderPaid";
const ORDER_DECLINED: &str = "orderflow.events.v1.OrderDeclined";
const CAPTURED: &str = "orderflow.events.v1.PaymentCaptured";
const DECLINED: &str = "orderflow.events.v1.PaymentDeclined";

struct Harness {
    app: App<Store>,
    rpc: Rpc<Store>,
    orders: OrderEvents<Store>,
    payments: PaymentEvents<Store>,
    invoices: Invoices<Store>,
    database: Database,
    stopping: CancellationToken,
    test: TestDatabase,
}

impl Harness {
    async fn start() -> Self {
        Self::open(TestDatabase::new(), true, now_us).await
    }

    async fn without_emails() -> Self {
        Self::open(TestDatabase::new(), false, now_us).await
    }

    /// The same database, opened again.
    async fn restart(self, now_us: fn() -> i64) -> Self {
        self.stopping.cancel();
        let Self { test, .. } = self;
        Self::open(test, true, now_us).await
    }

    async fn open(test: TestDatabase, sends_emails: bool, now_us: fn() -> i64) -> Self {
        let database = database(&test).await;
        let app = App::new(Store::new(database.clone(), sends_emails), now_us);
        let stopping = CancellationToken::new();
        let (orders, payments, invoices) = handlers(&app);
        let rpc = Rpc::new(app.clone(), stopping.clone());
        Self { app, rpc, orders, payments, invoices, database, stopping, test }
    }

    async fn invoice(&self, event: &Event) -> Outcome {
        within(self.invoices.handle(event, &self.stopping)).await
    }

    async fn order(&self, event: &Event) -> Outcome {
        within(self.orders.handle(event, &self.stopping)).await
    }

    async fn payment(&self, event: &Event) -> Outcome {
        within(self.payments.handle(event, &self.stopping)).await
    }

    async fn list(&self, customer_id: &str) -> Vec<wire::Notification> {
        let request = wire::ListNotificationsRequest {
            customer_id: customer_id.to_owned(),
            page_size: 1_000,
            ..Default::default()
        };
        self.rpc.list_notifications(Request::new(request)).await.unwrap().into_inner().notifications
    }

    async fn watch(&self, customer_id: &str, after_number: i64) -> Watching {
        let request =
            wire::WatchNotificationsRequest { customer_id: customer_id.to_owned(), after_number, ..Default::default() };
        Watching(self.rpc.watch_notifications(Request::new(request)).await.unwrap().into_inner())
    }

    async fn sql(&self, sql: &'static str) {
        let job = self.database.write(move |connection| {
            Box::pin(async move {
                sqlx::query(sql).execute(connection).await?;
                Ok::<_, db::Error>(())
            })
        });
        job.await.unwrap();
    }
}

struct Watching(tokio_stream::wrappers::ReceiverStream<Result<wire::WatchNotificationsResponse, Status>>);

impl Watching {
    async fn next(&mut self) -> Result<wire::Notification, Status> {
        within(self.0.next()).await.expect("the stream ended").map(|response| response.notification.unwrap())
    }

    /// The numbers of the next `count` notifications.
    async fn numbers(&mut self, count: usize) -> Vec<i64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.next().await.unwrap().number);
        }
        numbers
    }
}

async fn database(test: &TestDatabase) -> Database {
    Database::open(test.url(), MIGRATIONS).await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened in time")
}

fn eur(amount_minor: i64) -> Option<Money> {
    Some(Money { currency_code: "EUR".to_owned(), amount_minor })
}

fn order_event(customer_id: &str, body: OrderBody) -> events::OrderEvent {
    events::OrderEvent {
        order_id: "o-1".to_owned(),
        customer_id: customer_id.to_owned(),
        event: Some(body),
        ..Default::default()
    }
}

fn payment_event(customer_id: &str, body: PaymentBody) -> events::PaymentEvent {
    events::PaymentEvent {
        order_id: "o-1".to_owned(),
        customer_id: customer_id.to_owned(),
        amount: eur(1_299),
        event: Some(body),
        ..Default::default()
    }
}

fn placed(customer_id: &str) -> events::OrderEvent {
    let placed = events::OrderPlaced { total: eur(1_299), payment_token: "tok_visa".to_owned(), ..Default::default() };
    order_event(customer_id, OrderBody::Placed(placed))
}

fn message(id: &str, kind: &str, payload: Vec<u8>) -> Event {
    Event {
        id: id.to_owned(),
        kind: kind.to_owned(),
        source: String::new(),
        time: None,
        ordering_key: String::new(),
        payload: payload.into(),
        attributes: HashMap::new(),
        delivery_attempt: None,
    }
}

#[tokio::test]
async fn a_customer_is_told_each_thing_once_and_in_order() {
    let harness = Harness::start().await;
    let paid = order_event("ada", OrderBody::Paid(events::OrderPaid { total: eur(1_299) }));
    let captured = events::PaymentCaptured { charge_id: "ch_1".to_owned() };
    let captured = payment_event("ada", PaymentBody::Captured(captured));
    let placed = message("e-1", PLACED, placed("ada").encode_to_vec());
    let captured = message("e-2", CAPTURED, captured.encode_to_vec());
    let paid = message("e-3", PAID, paid.encode_to_vec());
    for _ in 0..2 {
        assert_eq!(harness.order(&placed).await, Outcome::Done);
        assert_eq!(harness.payment(&captured).await, Outcome::Done);
        assert_eq!(harness.order(&paid).await, Outcome::Done);
    }
    use wire::NotificationKind as Kind;
    let told = harness.list("ada").await;
    let read: Vec<_> = told.iter().map(|n| (n.number, n.kind(), n.event_id.as_str(), n.text.as_str())).collect();
    let expected = [
        (1, Kind::OrderReceived, "e-1", "We have received your order o-1 for 12.99 EUR."),
        (2, Kind::PaymentCaptured, "e-2", "We have charged your card 12.99 EUR for order o-1."),
        (3, Kind::OrderConfirmed, "e-3", "Your order o-1 for 12.99 EUR is paid and confirmed."),
    ];
    assert_eq!(read, expected);
    assert!(told.iter().all(|n| n.customer_id == "ada" && n.order_id == "o-1" && n.create_time.is_some()));
}

#[tokio::test]
async fn a_decline_is_told_once_though_two_events_tell_it() {
    let harness = Harness::start().await;
    let declined = events::PaymentDeclined { reason: "stolen_card".to_owned() };
    let payment = payment_event("ada", PaymentBody::Declined(declined));
    let order = order_event("ada", OrderBody::Declined(events::OrderDeclined { reason: "stolen_card".to_owned() }));
    assert_eq!(harness.payment(&message("e-1", DECLINED, payment.encode_to_vec())).await, Outcome::Done);
    assert_eq!(harness.order(&message("e-2", ORDER_DECLINED, order.encode_to_vec())).await, Outcome::Done);
    let told = harness.list("ada").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind(), wire::NotificationKind::PaymentDeclined);
    assert!(told[0].text.contains("(stolen card)"), "{}", told[0].text);
}

#[tokio::test]
async fn numbers_have_no_gaps_for_any_customer_whatever_comes_at_once_and_twice() {
    let harness = Arc::new(Harness::start().await);
    let mut handled = JoinSet::new();
    for number in 0..120 {
        let customer = ["ada", "bob", "eve"][number % 3];
        // Every event comes twice, with other events in between.
        let event = message(&format!("e-{}", number % 60), PLACED, placed(customer).encode_to_vec());
        let harness = Arc::clone(&harness);
        handled.spawn(async move { harness.order(&event).await });
    }
    for outcome in handled.join_all().await {
        assert_eq!(outcome, Outcome::Done);
    }
    for customer in ["ada", "bob", "eve"] {
        let numbers: Vec<_> = harness.list(customer).await.iter().map(|n| n.number).collect();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "{customer}");
    }
}

#[tokio::test]
async fn an_event_that_the_inbox_has_forgotten_is_still_told_once_and_takes_no_number() {
    let harness = Harness::start().await;
    let event = message("e-1", PLACED, placed("ada").encode_to_vec());
    harness.order(&event).await;
    harness.sql("DELETE FROM inbox").await;
    assert_eq!(harness.order(&event).await, Outcome::Done);
    harness.order(&message("e-2", PLACED, placed("ada").encode_to_vec())).await;
    assert_eq!(harness.list("ada").await.iter().map(|n| n.number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_watcher_gets_what_waited_and_then_what_comes_without_gap_or_double() {
    /// More than one batch of a watch.
    const BEFORE: usize = 150;
    const AFTER: usize = 150;
    let harness = Harness::start().await;
    let keep = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let event = message(&format!("e-{number}"), PLACED, placed("ada").encode_to_vec());
            assert_eq!(harness.order(&event).await, Outcome::Done);
        }
    };
    keep(0..BEFORE).await;
    let watchers = async {
        let mut all = harness.watch("ada", 0).await;
        let mut late = harness.watch("ada", 140).await;
        let (all, late) = tokio::join!(all.numbers(BEFORE + AFTER), late.numbers(BEFORE + AFTER - 140));
        assert_eq!(all, (1..=300).collect::<Vec<_>>());
        assert_eq!(late, (141..=300).collect::<Vec<_>>());
    };
    tokio::join!(watchers, keep(BEFORE..BEFORE + AFTER));
}

#[tokio::test]
async fn a_watcher_hears_of_its_own_customer_only_and_of_the_end() {
    let harness = Harness::start().await;
    let mut ada = harness.watch("ada", 0).await;
    harness.order(&message("e-1", PLACED, placed("bob").encode_to_vec())).await;
    harness.order(&message("e-2", PLACED, placed("ada").encode_to_vec())).await;
    let notification = ada.next().await.unwrap();
    assert_eq!((notification.customer_id.as_str(), notification.event_id.as_str()), ("ada", "e-2"));
    harness.stopping.cancel();
    assert_eq!(ada.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watcher_hears_what_another_instance_on_the_same_database_stored() {
    let harness = Harness::start().await;
    let mut ada = harness.watch("ada", 0).await;
    harness.order(&message("e-1", PLACED, placed("ada").encode_to_vec())).await;
    assert_eq!(ada.next().await.unwrap().number, 1);
    let other = App::new(Store::new(database(&harness.test).await, true), now_us);
    let (orders, _, _) = handlers(&other);
    let event = message("e-2", PLACED, placed("ada").encode_to_vec());
    assert_eq!(within(orders.handle(&event, &harness.stopping)).await, Outcome::Done);
    assert_eq!(ada.next().await.unwrap().number, 2);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_of_the_end_before_the_rest() {
    let harness = Harness::start().await;
    for number in 0..10 {
        harness.order(&message(&format!("e-{number}"), PLACED, placed("ada").encode_to_vec())).await;
    }
    let mut ada = harness.watch("ada", 0).await;
    assert_eq!(ada.next().await.unwrap().number, 1);
    harness.stopping.cancel();
    let mut told = 1;
    let end = loop {
        match ada.next().await {
            Ok(_) => told += 1,
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    assert!(told < 10, "the end came after everything else");
}

#[tokio::test]
async fn poison_is_rejected_with_its_reason_and_nobody_is_told() {
    let harness = Harness::start().await;
    let no_total = events::OrderPlaced { total: None, payment_token: String::new(), ..Default::default() };
    let long_order_id = events::OrderEvent { order_id: "o".repeat(65), ..placed("ada") };
    let orders = [
        (PLACED, vec![0xff; 8], "does not decode"),
        ("something.else", vec![0xff; 8], "does not decode"),
        (PLACED, vec![], "another event"),
        (PAID, placed("ada").encode_to_vec(), "another event"),
        (PLACED, order_event("ada", OrderBody::Placed(no_total)).encode_to_vec(), "`total`"),
        (PLACED, placed("").encode_to_vec(), "`customer_id`"),
        (PLACED, placed(&"c".repeat(65)).encode_to_vec(), "`customer_id`"),
        (PLACED, long_order_id.encode_to_vec(), "`order_id`"),
    ];
    for (kind, payload, reason) in orders {
        assert_rejected(harness.order(&message("e", kind, payload)).await, reason);
    }
    let captured = payment_event("ada", PaymentBody::Captured(events::PaymentCaptured::default()));
    let no_amount = events::PaymentEvent { amount: None, ..captured.clone() };
    let payments = [
        (CAPTURED, vec![0xff; 8], "does not decode"),
        (DECLINED, captured.encode_to_vec(), "another event"),
        (CAPTURED, no_amount.encode_to_vec(), "`amount`"),
    ];
    for (kind, payload, reason) in payments {
        assert_rejected(harness.payment(&message("e", kind, payload)).await, reason);
    }
    for customer in ["ada", "bob"] {
        assert_eq!(harness.list(customer).await, []);
    }
}

#[tokio::test]
async fn events_of_other_types_are_none_of_its_business() {
    let harness = Harness::start().await;
    let eaten = message("e-1", "orderflow.events.v9.OrderEaten", placed("ada").encode_to_vec());
    assert_eq!(harness.order(&eaten).await, Outcome::Done);
    let captured = payment_event("ada", PaymentBody::Captured(events::PaymentCaptured::default()));
    let refunded = message("e-2", "orderflow.events.v9.PaymentRefunded", captured.encode_to_vec());
    assert_eq!(harness.payment(&refunded).await, Outcome::Done);
    assert_eq!(harness.list("ada").await, []);
}

#[tokio::test]
async fn an_unavailable_database_makes_events_wait_and_is_not_a_failed_attempt() {
    use service_kit::breaker::State;
    let harness = Harness::start().await;
    // Without this table a number cannot be taken, so that nothing may be left of the attempt.
    harness.sql("ALTER TABLE customers RENAME TO customers_away").await;
    let event = message("e", PLACED, placed("ada").encode_to_vec());
    let repair = async {
        while harness.orders.database().state() == State::Closed {
            tokio::task::yield_now().await;
        }
        assert_eq!(harness.list("ada").await, []);
        harness.sql("ALTER TABLE customers_away RENAME TO customers").await;
    };
    let (outcome, ()) = tokio::join!(harness.order(&event), repair);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(harness.list("ada").await.len(), 1);
}

#[track_caller]
fn assert_rejected(outcome: Outcome, reason: &str) {
    match outcome {
        Outcome::Reject(told) => assert!(told.contains(reason), "{told} instead of {reason}"),
        other => panic!("{other:?} instead of {reason}"),
    }
}
