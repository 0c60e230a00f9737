//! The service on a real database, without network and broker: messages go in, orders and events come out.

mod checkout;
mod fake;
mod saga;
mod timeline;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orderflow_proto::orderflow::events::v1 as events;
use orderflow_proto::orderflow::order::v1 as wire;
use orderflow_proto::orderflow::order::v1::order_service_server::OrderService as _;
use orderflow_proto::orderflow::r#type::v1::{CheckoutMode, Money};
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::State;
use service_kit::clock::now_us;
use service_kit::consumer::{Handler as _, Outcome};
use service_kit::db::{self, Database};
use service_kit::event::Event;
use sqlx::Row as _;
use test_database::TestDatabase;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

use crate::app::{App, Terms};
use crate::consumer::PaymentEvents;
use crate::grpc::Rpc;
use crate::peers::Peers;
use crate::store::{MIGRATIONS, Store};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

const CAPTURED: &str = "orderflow.events.v1.PaymentCaptured";
const DECLINED: &str = "orderflow.events.v1.PaymentDeclined";

/// Port 1 is reserved: nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

struct Harness {
    app: App<Store>,
    rpc: Arc<Rpc<Store>>,
    handler: PaymentEvents<Store>,
    database: Database,
    stopping: CancellationToken,
    test: Arc<TestDatabase>,
}

/// Where the harness finds others, and how long it waits for them.
struct Others<'a> {
    payment_url: &'a str,
    notification_url: &'a str,
    payment_timeout: Duration,
}

impl Default for Others<'_> {
    fn default() -> Self {
        Self { payment_url: NOBODY, notification_url: NOBODY, payment_timeout: DEADLINE }
    }
}

impl Harness {
    async fn start() -> Self {
        Self::start_with(Others::default()).await
    }

    async fn start_with(others: Others<'_>) -> Self {
        Self::open(Arc::new(TestDatabase::new()), others).await
    }

    /// One more service on the same database, as another process would be: after a crash, or at the same time.
    async fn beside(&self) -> Self {
        Self::open(Arc::clone(&self.test), Others::default()).await
    }

    async fn open(test: Arc<TestDatabase>, others: Others<'_>) -> Self {
        let database = Database::open(test.url(), MIGRATIONS).await.unwrap();
        let terms = Terms { payment_timeout: others.payment_timeout, payment_deadline_us: None };
        let app = App::new(Store::new(database.clone()), terms, now_us);
        let stopping = CancellationToken::new();
        let peers = Peers::new(others.payment_url, others.notification_url, DEADLINE).unwrap();
        let rpc = Arc::new(Rpc::new(app.clone(), peers, stopping.clone()));
        Self { app: app.clone(), rpc, handler: PaymentEvents::new(app), database, stopping, test }
    }

    /// Places an order over 12.00 EUR.
    async fn place(&self, key: &str) -> String {
        self.rpc.place_order(Request::new(request(key))).await.unwrap().into_inner().order.unwrap().order_id
    }

    async fn cancel(&self, order_id: &str) -> Result<wire::Order, Status> {
        let request = wire::CancelOrderRequest { order_id: order_id.to_owned() };
        Ok(self.rpc.cancel_order(Request::new(request)).await?.into_inner().order.unwrap())
    }

    async fn retry(&self, order_id: &str, token: &str) -> Result<wire::Order, Status> {
        let request = wire::RetryPaymentRequest { order_id: order_id.to_owned(), payment_token: token.to_owned() };
        Ok(self.rpc.retry_payment(Request::new(request)).await?.into_inner().order.unwrap())
    }

    /// What GetOrder tells beside the order: its timeline in short, and who is missing from it.
    async fn timeline(&self, order_id: &str) -> (Vec<(wire::TimelineKind, u32, String)>, Vec<String>) {
        let request = wire::GetOrderRequest { order_id: order_id.to_owned() };
        let reply = self.rpc.get_order(Request::new(request)).await.unwrap().into_inner();
        let entries = reply.timeline.iter().map(|entry| (entry.kind(), entry.attempt, entry.detail.clone()));
        (entries.collect(), reply.timeline_missing)
    }

    /// The types of the events about one order that wait in the outbox, oldest first.
    async fn told(&self, order_id: &str) -> Vec<String> {
        let all = self.outbox().await.into_iter().filter(|(_, event)| event.order_id == order_id);
        all.map(|(kind, _)| kind.strip_prefix("orderflow.events.v1.").unwrap().to_owned()).collect()
    }

    /// The jobs that wait in the outbox, oldest first.
    async fn invoice_jobs(&self) -> Vec<events::InvoiceJob> {
        let sql = "SELECT payload FROM outbox WHERE topic = 'invoice-jobs' ORDER BY id";
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(sql).fetch_all(self.database.reads()).await.unwrap();
        rows.iter().map(|payload| events::InvoiceJob::decode(payload.as_slice()).unwrap()).collect()
    }

    /// Takes an outcome of a try as it comes through the queue.
    async fn hear(&self, event: events::PaymentEvent, attempt: u32) -> Outcome {
        use events::payment_event::Event as Body;
        let kind = match event.event.as_ref().unwrap() {
            Body::Captured(_) => CAPTURED,
            Body::Declined(_) => DECLINED,
            Body::Refunded(_) => "orderflow.events.v1.PaymentRefunded",
            Body::Voided(_) => "orderflow.events.v1.PaymentVoided",
        };
        let payload = events::PaymentEvent { attempt, ..event }.encode_to_vec();
        self.handle(&message(&uuid::Uuid::now_v7().to_string(), kind, payload)).await
    }

    async fn order(&self, order_id: &str) -> wire::Order {
        let request = wire::GetOrderRequest { order_id: order_id.to_owned() };
        self.rpc.get_order(Request::new(request)).await.unwrap().into_inner().order.unwrap()
    }

    async fn handle(&self, event: &Event) -> Outcome {
        tokio::time::timeout(DEADLINE, self.handler.handle(event, &self.stopping)).await.expect("the handler hangs")
    }

    /// What waits in the outbox, oldest first.
    async fn outbox(&self) -> Vec<(String, events::OrderEvent)> {
        let sql =
            "SELECT topic, ordering_key, attributes, payload FROM outbox WHERE topic <> 'invoice-jobs' ORDER BY id";
        let rows = sqlx::query(sql).fetch_all(self.database.reads()).await.unwrap();
        let read = |row: &sqlx::any::AnyRow| {
            let event = events::OrderEvent::decode(row.get::<Vec<u8>, _>("payload").as_slice()).unwrap();
            assert_eq!(row.get::<String, _>("topic"), "order-events");
            assert_eq!(row.get::<String, _>("ordering_key"), event.order_id);
            let attributes: HashMap<String, String> = serde_json::from_str(row.get("attributes")).unwrap();
            (attributes["ce-type"].clone(), event)
        };
        rows.iter().map(read).collect()
    }

    async fn sql(&self, sql: &'static str) {
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(sql).execute(connection).await?;
                    Ok::<_, db::Error>(())
                })
            })
            .await
            .unwrap();
    }
}

/// A good request for an order over 12.00 EUR.
fn request(key: &str) -> wire::PlaceOrderRequest {
    let line = wire::OrderLine { sku: "tea".to_owned(), quantity: 2, unit_price: Some(eur(600)) };
    wire::PlaceOrderRequest {
        idempotency_key: key.to_owned(),
        customer_id: "ada".to_owned(),
        lines: vec![line],
        payment_token: "tok_visa".to_owned(),
        ..Default::default()
    }
}

fn eur(amount_minor: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), amount_minor }
}

fn captured(order_id: &str, amount: Money) -> events::PaymentEvent {
    let captured = events::PaymentCaptured { charge_id: "ch_1".to_owned() };
    payment_event(order_id, amount, events::payment_event::Event::Captured(captured))
}

fn declined(order_id: &str, reason: &str) -> events::PaymentEvent {
    let declined = events::PaymentDeclined { reason: reason.to_owned() };
    payment_event(order_id, eur(1_200), events::payment_event::Event::Declined(declined))
}

fn refunded(order_id: &str) -> events::PaymentEvent {
    let refunded = events::PaymentRefunded { refund_id: "re_1".to_owned() };
    payment_event(order_id, eur(1_200), events::payment_event::Event::Refunded(refunded))
}

fn voided(order_id: &str) -> events::PaymentEvent {
    payment_event(order_id, eur(1_200), events::payment_event::Event::Voided(events::PaymentVoided {}))
}

fn payment_event(order_id: &str, amount: Money, event: events::payment_event::Event) -> events::PaymentEvent {
    events::PaymentEvent {
        order_id: order_id.to_owned(),
        customer_id: "ada".to_owned(),
        amount: Some(amount),
        event: Some(event),
        ..Default::default()
    }
}

fn message(id: &str, kind: &str, payload: Vec<u8>) -> Event {
    Event {
        id: id.to_owned(),
        kind: kind.to_owned(),
        source: "payment-service".to_owned(),
        time: None,
        ordering_key: String::new(),
        payload: payload.into(),
        attributes: HashMap::new(),
        delivery_attempt: None,
    }
}

#[tokio::test]
async fn an_outcome_ends_the_order_and_tells_it() {
    let harness = Harness::start().await;
    let (paid, refused) = (harness.place("k-1").await, harness.place("k-2").await);
    let capture = message("m-1", CAPTURED, captured(&paid, eur(1_200)).encode_to_vec());
    let decline = message("m-2", DECLINED, declined(&refused, "stolen_card").encode_to_vec());
    assert_eq!(harness.handle(&capture).await, Outcome::Done);
    assert_eq!(harness.handle(&decline).await, Outcome::Done);

    assert_eq!(harness.order(&paid).await.status(), wire::OrderStatus::Paid);
    let order = harness.order(&refused).await;
    assert_eq!((order.status(), order.decline_reason.as_str()), (wire::OrderStatus::PaymentDeclined, "stolen_card"));
    assert!(order.update_time.unwrap().seconds >= order.create_time.unwrap().seconds);

    let told = harness.outbox().await;
    let kinds: Vec<_> = told.iter().map(|(kind, event)| (kind.as_str(), event.order_id.as_str())).collect();
    let expected = [
        ("orderflow.events.v1.OrderPlaced", paid.as_str()),
        ("orderflow.events.v1.OrderPlaced", refused.as_str()),
        ("orderflow.events.v1.OrderPaid", paid.as_str()),
        ("orderflow.events.v1.OrderDeclined", refused.as_str()),
    ];
    assert_eq!(kinds, expected);
    let placed = events::OrderPlaced {
        total: Some(eur(1_200)),
        payment_token: "tok_visa".to_owned(),
        checkout_mode: CheckoutMode::Asynchronous.into(),
    };
    assert_eq!(told[0].1.event, Some(events::order_event::Event::Placed(placed)));
    let paid = events::OrderPaid { total: Some(eur(1_200)) };
    assert_eq!(told[2].1.event, Some(events::order_event::Event::Paid(paid)));
    let declined = events::OrderDeclined { reason: "stolen_card".to_owned() };
    assert_eq!(told[3].1.event, Some(events::order_event::Event::Declined(declined)));
}

#[tokio::test]
async fn a_duplicate_has_no_second_effect() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    let payload = captured(&id, eur(1_200)).encode_to_vec();
    for message_id in ["m-1", "m-1", "m-2"] {
        assert_eq!(harness.handle(&message(message_id, CAPTURED, payload.clone())).await, Outcome::Done);
        assert_eq!(harness.outbox().await.len(), 2);
    }
}

#[tokio::test]
async fn a_contradiction_is_set_aside_and_changes_nothing() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    harness.handle(&message("m-1", CAPTURED, captured(&id, eur(1_200)).encode_to_vec())).await;
    let paid = harness.order(&id).await;
    let late = message("m-2", DECLINED, declined(&id, "stolen_card").encode_to_vec());
    // Twice: what is set aside is not marked as handled, so that a crash before it is set aside does not lose it.
    for _ in 0..2 {
        let Outcome::Reject(reason) = harness.handle(&late).await else { panic!("a contradiction was not rejected") };
        assert!(reason.contains("contradicts") && reason.contains(&id), "{reason}");
    }
    assert_eq!(harness.order(&id).await, paid);
    assert_eq!(harness.outbox().await.len(), 2);
}

#[tokio::test]
async fn poison_is_rejected_with_its_reason_and_changes_nothing() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    let good = captured(&id, eur(1_200));
    let unknown = "0190163d-8694-739b-aea5-966c26f8ad91";
    let without_amount = events::PaymentEvent { amount: None, ..good.clone() };
    let without_event = events::PaymentEvent { event: None, ..good.clone() };
    let bad_currency = captured(&id, Money { currency_code: "eur".to_owned(), amount_minor: 1_200 });
    let table = [
        (CAPTURED, vec![0xff; 8], "no PaymentEvent"),
        ("something.else", vec![0xff; 8], "no PaymentEvent"),
        (DECLINED, good.encode_to_vec(), "another event"),
        (CAPTURED, without_event.encode_to_vec(), "another event"),
        (CAPTURED, vec![], "another event"),
        (CAPTURED, without_amount.encode_to_vec(), "`amount` is missing"),
        (CAPTURED, bad_currency.encode_to_vec(), "`amount.currency_code`"),
        (CAPTURED, captured(&id, eur(-1)).encode_to_vec(), "`amount.amount_minor`"),
        (CAPTURED, captured("42", eur(1_200)).encode_to_vec(), "`order_id` must be a UUID"),
        (CAPTURED, captured(unknown, eur(1_200)).encode_to_vec(), "there is no order"),
        (CAPTURED, captured(&id, eur(1_199)).encode_to_vec(), "not the total"),
    ];
    let before = harness.order(&id).await;
    for (kind, payload, reason) in table {
        match harness.handle(&message("m", kind, payload)).await {
            Outcome::Reject(told) => assert!(told.contains(reason), "{told} instead of {reason}"),
            other => panic!("{other:?} instead of {reason}"),
        }
        assert_eq!(harness.order(&id).await, before, "{reason}");
    }
    assert_eq!(harness.outbox().await.len(), 1);
}

#[tokio::test]
async fn events_of_other_types_are_none_of_its_business() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    let event = message("m", "orderflow.events.v1.PaymentForgotten", captured(&id, eur(1_200)).encode_to_vec());
    assert_eq!(harness.handle(&event).await, Outcome::Done);
    assert_eq!(harness.order(&id).await.status(), wire::OrderStatus::PendingPayment);
}

#[tokio::test]
async fn an_unavailable_database_makes_outcomes_wait_and_is_not_a_failed_attempt() {
    let harness = Harness::start().await;
    let id = harness.place("k").await;
    // Without its outbox the database takes no outcome: the change and its event are one transaction.
    harness.sql("ALTER TABLE outbox RENAME TO outbox_away").await;
    let event = message("m", CAPTURED, captured(&id, eur(1_200)).encode_to_vec());
    let repair = async {
        while harness.handler.database().state() == State::Closed {
            tokio::task::yield_now().await;
        }
        assert_eq!(harness.order(&id).await.status(), wire::OrderStatus::PendingPayment);
        harness.sql("ALTER TABLE outbox_away RENAME TO outbox").await;
    };
    let (outcome, ()) = tokio::join!(harness.handle(&event), repair);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(harness.order(&id).await.status(), wire::OrderStatus::Paid);
    assert_eq!(harness.outbox().await.len(), 2);
}

#[tokio::test]
async fn a_watcher_sees_the_order_end() {
    let harness = Harness::start().await;
    watch_to_the_end(&harness, &harness).await;
}

#[tokio::test]
async fn a_watcher_sees_an_end_that_another_instance_was_told() {
    let harness = Harness::start().await;
    watch_to_the_end(&harness, &harness.beside().await).await;
}

/// Watches an order at one instance, from its acceptance to its end, of which the message comes to `told`.
async fn watch_to_the_end(watched: &Harness, told: &Harness) {
    let id = watched.place("k").await;
    let request = Request::new(wire::WatchOrderRequest { order_id: id.clone() });
    let mut stream = watched.rpc.watch_order(request).await.unwrap().into_inner();
    let mut next = async || {
        let item = tokio::time::timeout(DEADLINE, stream.next()).await.expect("the stream hangs");
        item.map(|item| item.unwrap().order.unwrap().status())
    };
    assert_eq!(next().await, Some(wire::OrderStatus::PendingPayment));
    let capture = message("m", CAPTURED, captured(&id, eur(1_200)).encode_to_vec());
    assert_eq!(told.handle(&capture).await, Outcome::Done);
    assert_eq!(next().await, Some(wire::OrderStatus::Paid));
    assert_eq!(next().await, None);
}

/// Waits until the condition holds, and fails the test when it does not within the deadline.
async fn until<F: AsyncFnMut() -> bool>(mut condition: F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it did not come true in time");
}
