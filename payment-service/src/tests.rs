//! The service on a real database, without network and broker: messages go in, charges, payments and events come out.

mod saga;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orderflow_proto::orderflow::events::v1 as events;
use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::payment::v1::payment_service_server::PaymentService as _;
use orderflow_proto::orderflow::r#type::v1::Money;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::State;
use service_kit::clock::now_us;
use service_kit::consumer::{Handler as _, Outcome};
use service_kit::db::{self, Database};
use service_kit::event::Event;
use sqlx::Row as _;
use test_database::TestDatabase;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::Request;

use crate::app::{Acquirer, App, Asking, NoAnswer};
use crate::consumer::OrderEvents;
use crate::domain::{Answer, CancelAnswer, Charge, ChargeKey};
use crate::grpc::Rpc;
use crate::store::{MIGRATIONS, Store};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

const PLACED: &str = "orderflow.events.v1.OrderPlaced";
const ORDER_ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
const OTHER_ORDER_ID: &str = "0190163d-8694-739b-aea5-966c26f8ad92";

/// An acquirer with a ledger. Cards say what becomes of them: `tok_stolen_card` is declined, `tok_nonsense` refused.
#[derive(Clone, Debug)]
struct Ledger {
    /// Every request for a charge, in order.
    requests: Arc<Mutex<Vec<Charge>>>,
    /// What stands under each key.
    accounts: Arc<Mutex<HashMap<String, Account>>>,
    up: Arc<watch::Sender<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Account {
    Captured(i64),
    Refunded(i64),
    Declined,
    Blocked,
}

impl Ledger {
    fn requests(&self) -> Vec<Charge> {
        self.requests.lock().unwrap().clone()
    }

    fn account(&self, key: &str) -> Option<Account> {
        self.accounts.lock().unwrap().get(key).copied()
    }

    async fn answering(&self, asking: Asking<'_>) -> Result<(), NoAnswer> {
        let Some(stopping) = asking.stopping else {
            let away = NoAnswer::Unavailable { reason: "away".to_owned(), asked: false };
            return if self.answers() { Ok(()) } else { Err(away) };
        };
        let mut up = self.up.subscribe();
        tokio::select! {
            up = up.wait_for(|up| *up) => drop(up.unwrap()),
            () = stopping.cancelled() => return Err(NoAnswer::Interrupted),
        }
        Ok(())
    }
}

impl Acquirer for Ledger {
    async fn charge(&self, charge: &Charge, asking: Asking<'_>) -> Result<Answer, NoAnswer> {
        self.requests.lock().unwrap().push(charge.clone());
        self.answering(asking).await?;
        let mut accounts = self.accounts.lock().unwrap();
        let key = charge.key().to_string();
        let account = match charge.card.as_str() {
            "tok_stolen_card" => Account::Declined,
            "tok_nonsense" => return Err(NoAnswer::Refused("status 400".to_owned())),
            _ => Account::Captured(charge.amount.amount_minor()),
        };
        match *accounts.entry(key.clone()).or_insert(account) {
            Account::Captured(_) => Ok(Answer::Captured { charge_id: format!("ch_{key}") }),
            Account::Declined => Ok(Answer::Declined { reason: "stolen_card".to_owned() }),
            Account::Refunded(_) | Account::Blocked => Ok(Answer::Cancelled),
        }
    }

    async fn cancel(&self, key: ChargeKey, asking: Asking<'_>) -> Result<CancelAnswer, NoAnswer> {
        self.answering(asking).await?;
        let mut accounts = self.accounts.lock().unwrap();
        let key = key.to_string();
        let account = accounts.entry(key.clone()).or_insert(Account::Blocked);
        let (Account::Captured(amount_minor) | Account::Refunded(amount_minor)) = *account else {
            return Ok(CancelAnswer::NothingTaken);
        };
        *account = Account::Refunded(amount_minor);
        let amount = crate::domain::Money::new("EUR".parse().unwrap(), amount_minor).unwrap();
        Ok(CancelAnswer::Refunded { charge_id: format!("ch_{key}"), refund_id: format!("re_{key}"), amount })
    }

    fn answers(&self) -> bool {
        *self.up.borrow()
    }
}

struct Harness {
    rpc: Rpc<Store, Ledger>,
    handler: OrderEvents<Store, Ledger>,
    ledger: Ledger,
    database: Database,
    stopping: CancellationToken,
    _test: TestDatabase,
}

impl Harness {
    async fn start() -> Self {
        let test = TestDatabase::new();
        let database = Database::open(test.url(), MIGRATIONS).await.unwrap();
        let up = Arc::new(watch::channel(true).0);
        let ledger = Ledger { requests: Arc::default(), accounts: Arc::default(), up };
        let app = App::new(Store::new(database.clone()), ledger.clone(), now_us);
        let (rpc, handler) = (Rpc::new(app.clone(), TaskTracker::new()), OrderEvents::new(app));
        Self { rpc, handler, ledger, database, stopping: CancellationToken::new(), _test: test }
    }

    async fn handle(&self, event: &Event) -> Outcome {
        tokio::time::timeout(DEADLINE, self.handler.handle(event, &self.stopping)).await.expect("the handler hangs")
    }

    async fn payments(&self) -> Vec<wire::Payment> {
        let request = Request::new(wire::ListPaymentsRequest::default());
        self.rpc.list_payments(request).await.unwrap().into_inner().payments
    }

    async fn payment(&self) -> wire::Payment {
        let request = Request::new(wire::GetPaymentRequest { order_id: ORDER_ID.to_owned() });
        self.rpc.get_payment(request).await.unwrap().into_inner().payment.unwrap()
    }

    async fn charge(&self, request: wire::ChargeRequest) -> Result<wire::Payment, tonic::Status> {
        Ok(self.rpc.charge(Request::new(request)).await?.into_inner().payment.unwrap())
    }

    /// The types of the events that wait in the outbox, oldest first, without their package.
    async fn told(&self) -> Vec<String> {
        let name = |(kind, _): &(String, _)| kind.rsplit('.').next().unwrap().to_owned();
        self.outbox().await.iter().map(name).collect()
    }

    /// What waits in the outbox, oldest first.
    async fn outbox(&self) -> Vec<(String, events::PaymentEvent)> {
        let sql = "SELECT topic, ordering_key, attributes, payload FROM outbox ORDER BY id";
        let rows = sqlx::query(sql).fetch_all(self.database.reads()).await.unwrap();
        let read = |row: &sqlx::any::AnyRow| {
            let event = events::PaymentEvent::decode(row.get::<Vec<u8>, _>("payload").as_slice()).unwrap();
            assert_eq!(row.get::<String, _>("topic"), "payment-events");
            assert_eq!(row.get::<String, _>("ordering_key"), event.order_id);
            let attributes: HashMap<String, String> = serde_json::from_str(row.get("attributes")).unwrap();
            (attributes["ce-type"].clone(), event)
        };
        rows.iter().map(read).collect()
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

fn eur(amount_minor: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), amount_minor }
}

fn placed(order_id: &str, card: &str) -> events::OrderEvent {
    let placed = events::OrderPlaced { total: Some(eur(1_200)), payment_token: card.to_owned(), ..Default::default() };
    events::OrderEvent {
        order_id: order_id.to_owned(),
        customer_id: "ada".to_owned(),
        event: Some(events::order_event::Event::Placed(placed)),
        ..Default::default()
    }
}

fn message(id: &str, kind: &str, payload: &events::OrderEvent) -> Event {
    raw_message(id, kind, payload.encode_to_vec())
}

fn raw_message(id: &str, kind: &str, payload: Vec<u8>) -> Event {
    Event {
        id: id.to_owned(),
        kind: kind.to_owned(),
        source: "order-service".to_owned(),
        time: None,
        ordering_key: String::new(),
        payload: payload.into(),
        attributes: HashMap::new(),
        delivery_attempt: None,
    }
}

#[tokio::test]
async fn an_order_is_charged_and_the_outcome_is_told() {
    let harness = Harness::start().await;
    assert_eq!(harness.handle(&message("m", PLACED, &placed(ORDER_ID, "tok_visa"))).await, Outcome::Done);

    let requests = harness.ledger.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].order_id.to_string().as_str(), requests[0].amount.amount_minor()), (ORDER_ID, 1_200));
    let payment = harness.payments().await.remove(0);
    assert_eq!((payment.order_id.as_str(), payment.customer_id.as_str()), (ORDER_ID, "ada"));
    assert_eq!((payment.status(), payment.amount), (wire::PaymentStatus::Captured, Some(eur(1_200))));
    assert_eq!((payment.charge_id.as_str(), payment.decline_reason.as_str()), (&*format!("ch_{ORDER_ID}"), ""));
    let captured = events::PaymentCaptured { charge_id: format!("ch_{ORDER_ID}") };
    let event = events::PaymentEvent {
        order_id: ORDER_ID.to_owned(),
        customer_id: "ada".to_owned(),
        amount: Some(eur(1_200)),
        attempt: 1,
        event: Some(events::payment_event::Event::Captured(captured)),
    };
    assert_eq!(harness.outbox().await, [("orderflow.events.v1.PaymentCaptured".to_owned(), event)]);
}

#[tokio::test]
async fn a_decline_is_an_answer_and_is_not_tried_again() {
    let harness = Harness::start().await;
    for message_id in ["m-1", "m-1", "m-2"] {
        let event = message(message_id, PLACED, &placed(ORDER_ID, "tok_stolen_card"));
        assert_eq!(harness.handle(&event).await, Outcome::Done);
    }
    assert_eq!(harness.ledger.requests().len(), 1);
    let payment = harness.payments().await.remove(0);
    assert_eq!((payment.status(), payment.decline_reason.as_str()), (wire::PaymentStatus::Declined, "stolen_card"));
    let outbox = harness.outbox().await;
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].0, "orderflow.events.v1.PaymentDeclined");
    let declined = events::PaymentDeclined { reason: "stolen_card".to_owned() };
    assert_eq!(outbox[0].1.event, Some(events::payment_event::Event::Declined(declined)));
}

#[tokio::test]
async fn duplicates_at_once_make_one_payment_and_one_event() {
    let harness = Harness::start().await;
    // Two messages that ask for the same charge, each delivered twice, all under way before the acquirer answers.
    harness.ledger.up.send_replace(false);
    let messages = ["m-1", "m-2"].map(|id| message(id, PLACED, &placed(ORDER_ID, "tok_visa")));
    let back = async {
        while harness.ledger.requests().len() < 4 {
            tokio::task::yield_now().await;
        }
        harness.ledger.up.send_replace(true);
    };
    let [one, two] = &messages;
    let handled =
        async { tokio::join!(harness.handle(one), harness.handle(two), harness.handle(one), harness.handle(two)) };
    let (outcomes, ()) = tokio::join!(handled, back);
    assert_eq!(outcomes, (Outcome::Done, Outcome::Done, Outcome::Done, Outcome::Done));
    assert_eq!(harness.payments().await.len(), 1);
    assert_eq!(harness.outbox().await.len(), 1);
}

#[tokio::test]
async fn a_crash_between_charge_and_commit_asks_again_with_the_same_key() {
    let harness = Harness::start().await;
    harness.ledger.up.send_replace(false);
    let event = message("m", PLACED, &placed(ORDER_ID, "tok_visa"));
    let asked = async {
        while harness.ledger.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = harness.handle(&event) => panic!("{outcome:?} without an answer"),
        // The handler is dropped here, as by a crash: asked, but nothing kept.
        () = asked => {}
    }
    assert_eq!((harness.payment().await.status(), harness.outbox().await.len()), (wire::PaymentStatus::Pending, 0));
    harness.ledger.up.send_replace(true);
    assert_eq!(harness.handle(&event).await, Outcome::Done);
    let requests = harness.ledger.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    assert_eq!((harness.payments().await.len(), harness.outbox().await.len()), (1, 1));
}

#[tokio::test]
async fn an_outage_of_the_acquirer_delays_only_what_needs_it() {
    let harness = Harness::start().await;
    let known = message("m-1", PLACED, &placed(ORDER_ID, "tok_visa"));
    harness.handle(&known).await;
    harness.ledger.up.send_replace(false);
    let waiting = message("m-2", PLACED, &placed(OTHER_ORDER_ID, "tok_visa"));
    let meanwhile = async {
        while harness.ledger.requests().len() < 2 {
            tokio::task::yield_now().await;
        }
        // A duplicate of what is settled needs no acquirer.
        let again = message("m-3", PLACED, &placed(ORDER_ID, "tok_visa"));
        assert_eq!(harness.handle(&again).await, Outcome::Done);
        // Who looks at the one that waits sees why.
        let payment = harness.payments().await.remove(0);
        assert_eq!((payment.order_id.as_str(), payment.status()), (OTHER_ORDER_ID, wire::PaymentStatus::Pending));
        assert_eq!(payment.attempts[0].detail, "the acquirer does not answer");
        harness.ledger.up.send_replace(true);
    };
    let (outcome, ()) = tokio::join!(harness.handle(&waiting), meanwhile);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(harness.payments().await.len(), 2);
}

#[tokio::test]
async fn a_stop_during_an_outage_is_not_a_failed_attempt() {
    let harness = Harness::start().await;
    harness.ledger.up.send_replace(false);
    let event = message("m", PLACED, &placed(ORDER_ID, "tok_visa"));
    let stop = async {
        while harness.ledger.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        harness.stopping.cancel();
    };
    let (outcome, ()) = tokio::join!(harness.handle(&event), stop);
    assert_eq!(outcome, Outcome::Interrupted);
    assert_eq!((harness.payment().await.status(), harness.outbox().await.len()), (wire::PaymentStatus::Pending, 0));
}

#[tokio::test]
async fn a_charge_that_the_acquirer_refuses_is_a_failed_attempt_with_its_reason() {
    let harness = Harness::start().await;
    match harness.handle(&message("m", PLACED, &placed(ORDER_ID, "tok_nonsense"))).await {
        Outcome::Retry(reason) => assert!(reason.contains("status 400"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((harness.payments().await.len(), harness.outbox().await.len()), (0, 0));
}

#[tokio::test]
async fn an_unavailable_database_makes_orders_wait_and_is_not_a_failed_attempt() {
    let harness = Harness::start().await;
    // Without its outbox the database takes no payment: the payment and its event are one transaction.
    harness.sql("ALTER TABLE outbox RENAME TO outbox_away").await;
    let event = message("m", PLACED, &placed(ORDER_ID, "tok_visa"));
    let repair = async {
        while harness.handler.database().state() == State::Closed {
            tokio::task::yield_now().await;
        }
        assert_eq!(harness.payments().await, []);
        harness.sql("ALTER TABLE outbox_away RENAME TO outbox").await;
    };
    let (outcome, ()) = tokio::join!(harness.handle(&event), repair);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(harness.ledger.requests().len(), 1);
    assert_eq!((harness.payments().await.len(), harness.outbox().await.len()), (1, 1));
}

#[tokio::test]
async fn poison_is_rejected_with_its_reason_and_nobody_is_charged() {
    let harness = Harness::start().await;
    let total = |total: Option<Money>| {
        let placed = events::OrderPlaced { total, payment_token: "tok_visa".to_owned(), ..Default::default() };
        let event = Some(events::order_event::Event::Placed(placed));
        events::OrderEvent { order_id: ORDER_ID.to_owned(), customer_id: "ada".to_owned(), event, ..Default::default() }
            .encode_to_vec()
    };
    let good = placed(ORDER_ID, "tok_visa");
    let paid = events::order_event::Event::Paid(events::OrderPaid { total: Some(eur(1_200)) });
    let table = [
        (vec![0xff; 8], "no OrderEvent"),
        (vec![], "`order_id`"),
        (events::OrderEvent { event: Some(paid), ..good.clone() }.encode_to_vec(), "another event"),
        (total(None), "`total` is missing"),
        (total(Some(eur(0))), "`total.amount_minor`"),
        (total(Some(eur(-1))), "`total.amount_minor`"),
        (total(Some(Money { currency_code: "euro".to_owned(), amount_minor: 1 })), "`total.currency_code`"),
        (placed("42", "tok_visa").encode_to_vec(), "`order_id`"),
        (placed(ORDER_ID, "").encode_to_vec(), "`payment_token`"),
        (placed(ORDER_ID, &"t".repeat(65)).encode_to_vec(), "`payment_token`"),
        (events::OrderEvent { customer_id: String::new(), ..good }.encode_to_vec(), "`customer_id`"),
    ];
    for (payload, reason) in table {
        match harness.handle(&raw_message("m", PLACED, payload)).await {
            Outcome::Reject(told) => assert!(told.contains(reason), "{told} instead of {reason}"),
            other => panic!("{other:?} instead of {reason}"),
        }
    }
    let Outcome::Reject(_) = harness.handle(&raw_message("m", "something.else", vec![0xff; 8])).await else {
        panic!("bytes that do not decode were not rejected");
    };
    assert_eq!(harness.ledger.requests(), []);
    assert_eq!((harness.payments().await.len(), harness.outbox().await.len()), (0, 0));
}

#[tokio::test]
async fn other_events_of_an_order_cost_nothing() {
    let harness = Harness::start().await;
    let paid = events::order_event::Event::Paid(events::OrderPaid { total: Some(eur(1_200)) });
    let paid = events::OrderEvent { event: Some(paid), ..placed(ORDER_ID, "tok_visa") };
    assert_eq!(harness.handle(&message("m", "orderflow.events.v1.OrderPaid", &paid)).await, Outcome::Done);
    assert_eq!(harness.handle(&message("m", "orderflow.events.v9.OrderEaten", &paid)).await, Outcome::Done);
    assert_eq!(harness.ledger.requests(), []);
}
