use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::watchers::Watchers;
use super::*;
use crate::domain::{
    CheckoutMode, CustomerId, Effect, Lines, Money, OrderLine, OrderStatus, Outcome, PaymentToken, Quantity, Sku,
};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(10);

const TERMS: Terms = Terms { payment_timeout: Duration::from_secs(3), payment_deadline_us: None };

/// Answers nobody: no order here is charged within its request.
#[derive(Clone)]
struct Nobody;

impl Payments for Nobody {
    async fn charge(&self, _: &Order, _: Duration) -> Charge {
        Charge::NoAnswer("nobody is there".to_owned())
    }
}

/// Orders in memory, with a hook that runs between the read of an order and its return.
#[derive(Debug, Default)]
struct Memory {
    orders: Mutex<HashMap<OrderId, Order>>,
    /// The app on this store, and the outcome that arrives during the next read.
    arrives_during_read: Mutex<Option<PaymentOutcome>>,
    app: OnceLock<App<Memory>>,
    /// How many of the next reads fail, as while a database is away.
    reads_failing: AtomicUsize,
}

impl Orders for Memory {
    async fn place(&self, order: Order, _: IdempotencyKey, _: Fingerprint) -> Result<Placed, StoreError> {
        self.orders.lock().unwrap().insert(order.id, order.clone());
        Ok(Placed::New(order))
    }

    async fn change<F>(&self, _: Option<String>, id: OrderId, decide: F) -> Result<Changed, StoreError>
    where
        F: Fn(&mut Order) -> Happening + Send + Sync + 'static,
    {
        let mut orders = self.orders.lock().unwrap();
        let Some(order) = orders.get_mut(&id) else { return Ok(Changed::Unknown) };
        match decide(order) {
            Ok(Effect::Told(_)) => Ok(Changed::To(order.clone())),
            Ok(Effect::Nothing | Effect::Noted(_)) => Ok(Changed::Nothing(order.clone())),
            Err(refusal) => Ok(Changed::Refused(refusal)),
        }
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let fails = |left: usize| left.checked_sub(1);
        if self.reads_failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err(StoreError::Unavailable("the database is away".into()));
        }
        let read = self.orders.lock().unwrap().get(&id).cloned();
        let arriving = self.arrives_during_read.lock().unwrap().take();
        if let (Some(outcome), Some(app)) = (arriving, self.app.get()) {
            Box::pin(app.settle("m".to_owned(), id, outcome)).await?;
        }
        Ok(read)
    }

    async fn steps(&self, _: OrderId) -> Result<Vec<Step>, StoreError> {
        Ok(Vec::new())
    }

    async fn due(&self, limit: u32) -> Result<Vec<(OrderId, TimestampUs)>, StoreError> {
        let mut due: Vec<_> =
            self.orders.lock().unwrap().values().filter_map(|order| Some((order.id, order.due()?.0))).collect();
        due.sort_by_key(|(_, at)| *at);
        due.truncate(limit as usize);
        Ok(due)
    }

    async fn list(&self, _: Filter, _: Option<OrderId>, _: u32) -> Result<Vec<Order>, StoreError> {
        Ok(Vec::new())
    }
}

fn app() -> App<Memory> {
    let app = App::new(Memory::default(), TERMS, || 1_700_000_000_000_000);
    app.store.app.set(app.clone()).unwrap();
    app
}

fn new_order() -> NewOrder {
    let line = OrderLine {
        sku: Sku::parse("tea").unwrap(),
        quantity: Quantity::new(1).unwrap(),
        unit_price: Money::new("EUR".parse().unwrap(), 500).unwrap(),
    };
    NewOrder {
        customer_id: CustomerId::parse("ada").unwrap(),
        customer_email: None,
        lines: Lines::new(vec![line]).unwrap(),
        payment_token: PaymentToken::default(),
        checkout_mode: CheckoutMode::Asynchronous,
        payment_deadline_us: None,
    }
}

async fn placed(app: &App<Memory>) -> Order {
    app.place(new_order(), IdempotencyKey::parse("k").unwrap(), Fingerprint(String::new()), &Nobody).await.unwrap()
}

fn captured() -> PaymentOutcome {
    PaymentOutcome { attempt: 1, outcome: Outcome::Captured(total()) }
}

fn total() -> Money {
    Money::new("EUR".parse().unwrap(), 500).unwrap()
}

const PAID: OrderStatus = OrderStatus::Paid { refund_pending: false };

/// All that a watch tells until it ends.
async fn statuses(mut watch: Watch<Memory>) -> Vec<OrderStatus> {
    let mut statuses = Vec::new();
    while let Some(order) = tokio::time::timeout(DEADLINE, watch.next()).await.expect("the watch hangs").unwrap() {
        statuses.push(order.status);
    }
    statuses
}

#[tokio::test]
async fn a_change_between_the_read_and_the_first_reply_is_not_missed() {
    let app = app();
    let order = placed(&app).await;
    *app.store.arrives_during_read.lock().unwrap() = Some(captured());
    let watch = app.watch(order.id).await.unwrap();
    assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, PAID]);
}

#[tokio::test]
async fn a_watch_on_an_order_that_waits_for_nothing_tells_it_once_and_ends() {
    let app = app();
    let order = placed(&app).await;
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    assert_eq!(statuses(app.watch(order.id).await.unwrap()).await, [PAID]);
}

#[tokio::test]
async fn every_watcher_hears_of_a_change_and_old_news_is_left_out() {
    let app = app();
    let order = placed(&app).await;
    let watches = [app.watch(order.id).await.unwrap(), app.watch(order.id).await.unwrap()];
    app.watchers.tell(&order);
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    for watch in watches {
        assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, PAID]);
    }
}

#[tokio::test]
async fn a_watcher_that_was_too_slow_reads_the_order_again() {
    let app = app();
    let order = placed(&app).await;
    let watch = app.watch(order.id).await.unwrap();
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    // Old news pushes the real one out of the channel.
    for _ in 0..100 {
        app.watchers.tell(&order);
    }
    assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, PAID]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_what_another_instance_has_done_also_when_the_database_was_away_meanwhile() {
    let app = app();
    let order = placed(&app).await;
    let watch = app.watch(order.id).await.unwrap();
    // Nobody here is told: it is done by another process.
    let now = app.now();
    app.store.change(None, order.id, move |order| order.settle(captured(), now)).await.unwrap();
    app.store.reads_failing.store(2, Ordering::SeqCst);
    assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, PAID]);
    assert_eq!(app.store.reads_failing.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_watch_on_a_refund_that_is_under_way_ends_with_the_refund() {
    let app = app();
    let order = placed(&app).await;
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    app.cancel(order.id).await.unwrap();
    let watch = app.watch(order.id).await.unwrap();
    let refunded = PaymentOutcome { attempt: 1, outcome: Outcome::Refunded(total()) };
    app.settle("m-2".to_owned(), order.id, refunded).await.unwrap();
    assert_eq!(statuses(watch).await, [OrderStatus::Paid { refund_pending: true }, OrderStatus::Refunded]);
}

#[tokio::test]
async fn watching_an_unknown_order_takes_no_place() {
    let app = app();
    let id = OrderId::from_uuid(Uuid::now_v7());
    assert!(matches!(app.watch(id).await, Err(Error::NotFound(unknown)) if unknown == id));
    assert!(app.watchers.is_empty());
}

#[test]
fn watches_are_limited_and_give_their_places_back() {
    let watchers = Arc::<Watchers>::default();
    let (one, other) = (OrderId::from_uuid(Uuid::now_v7()), OrderId::from_uuid(Uuid::now_v7()));
    let mut watches: Vec<_> = (1..WATCHES_MAX).map(|_| watchers.subscribe(one).unwrap()).collect();
    watches.push(watchers.subscribe(other).unwrap());
    assert!(watchers.subscribe(other).is_none());
    watches.pop();
    watches.push(watchers.subscribe(one).unwrap());
    watches.clear();
    assert!(watchers.is_empty());
}
