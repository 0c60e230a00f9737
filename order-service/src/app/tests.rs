use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::watchers::Watchers;
use super::*;
use crate::domain::{Lines, Money, OrderLine, PaymentToken, Quantity, Sku};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(10);

/// Orders in memory, with a hook that runs between the read of an order and its return.
#[derive(Debug, Default)]
struct Memory {
    orders: Mutex<HashMap<OrderId, Order>>,
    /// The app on this store, and the outcome that arrives during the next read.
    arrives_during_read: Mutex<Option<PaymentOutcome>>,
    app: OnceLock<App<Memory>>,
}

impl Orders for Memory {
    async fn place(&self, order: Order, _: IdempotencyKey, _: Fingerprint) -> Result<Placed, StoreError> {
        self.orders.lock().unwrap().insert(order.id, order.clone());
        Ok(Placed::New(order))
    }

    async fn change<F>(&self, _: String, id: OrderId, decide: F) -> Result<Changed, StoreError>
    where
        F: FnOnce(&mut Order) -> Result<Option<OrderEvent>, OutcomeError> + Send + 'static,
    {
        let mut orders = self.orders.lock().unwrap();
        let Some(order) = orders.get_mut(&id) else { return Ok(Changed::Unknown) };
        match decide(order) {
            Ok(Some(_)) => Ok(Changed::To(order.clone())),
            Ok(None) => Ok(Changed::Nothing),
            Err(error) => Ok(Changed::Refused(error)),
        }
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let read = self.orders.lock().unwrap().get(&id).cloned();
        let arriving = self.arrives_during_read.lock().unwrap().take();
        if let (Some(outcome), Some(app)) = (arriving, self.app.get()) {
            Box::pin(app.settle("m".to_owned(), id, outcome)).await?;
        }
        Ok(read)
    }

    async fn list(&self, _: Filter, _: Option<OrderId>, _: u32) -> Result<Vec<Order>, StoreError> {
        Ok(Vec::new())
    }
}

fn app() -> App<Memory> {
    let app = App::new(Memory::default(), || 1_700_000_000_000_000);
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
        lines: Lines::new(vec![line]).unwrap(),
        payment_token: PaymentToken::default(),
    }
}

async fn placed(app: &App<Memory>) -> Order {
    app.place(new_order(), IdempotencyKey::parse("k").unwrap(), Fingerprint(String::new())).await.unwrap()
}

fn captured() -> PaymentOutcome {
    PaymentOutcome::Captured(Money::new("EUR".parse().unwrap(), 500).unwrap())
}

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
    assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, OrderStatus::Paid]);
}

#[tokio::test]
async fn a_watch_on_a_final_order_tells_it_once_and_ends() {
    let app = app();
    let order = placed(&app).await;
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    assert_eq!(statuses(app.watch(order.id).await.unwrap()).await, [OrderStatus::Paid]);
}

#[tokio::test]
async fn every_watcher_hears_of_a_change_and_old_news_is_left_out() {
    let app = app();
    let order = placed(&app).await;
    let watches = [app.watch(order.id).await.unwrap(), app.watch(order.id).await.unwrap()];
    app.watchers.tell(&order);
    app.settle("m".to_owned(), order.id, captured()).await.unwrap();
    for watch in watches {
        assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, OrderStatus::Paid]);
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
    assert_eq!(statuses(watch).await, [OrderStatus::PendingPayment, OrderStatus::Paid]);
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
