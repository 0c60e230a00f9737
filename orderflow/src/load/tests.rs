//! The generator against shops that stall and refuse. Nothing here depends on how fast the machine is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use orderflow_proto::orderflow::order::v1::PlaceOrderRequest;
use tokio::sync::watch;
use tokio::time::timeout;

use super::drive::drive;
use super::shop::Shop;
use super::*;

/// Whatever a test waits for has happened by then, or never will.
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers nobody until it is opened, and then everybody.
#[derive(Clone)]
struct Closed {
    came: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

impl Closed {
    fn new() -> Self {
        Self { came: watch::Sender::new(0), open: watch::Sender::new(false) }
    }

    /// Waits until so many orders have come.
    async fn has_seen(&self, orders: u64) {
        let mut came = self.came.subscribe();
        timeout(DEADLINE, came.wait_for(|came| *came >= orders)).await.expect("orders keep coming").unwrap();
    }
}

impl Shop for Closed {
    async fn place(&self, number: u64, _: PlaceOrderRequest) -> Result<Order, Status> {
        self.came.send_modify(|came| *came += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        Ok(Order { order_id: number.to_string(), ..Order::default() })
    }

    async fn cancel(&self, _: u64, _: String) -> Result<(), Status> {
        Ok(())
    }
}

/// Refuses what has an odd number, and keeps count of what it is asked to cancel.
#[derive(Clone, Default)]
struct Moody {
    cancels: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<PlaceOrderRequest>>>,
}

impl Shop for Moody {
    async fn place(&self, number: u64, request: PlaceOrderRequest) -> Result<Order, Status> {
        self.requests.lock().unwrap().push(request);
        if number % 2 == 1 { Err(Status::unavailable("no")) } else { Ok(Order::default()) }
    }

    async fn cancel(&self, number: u64, _: String) -> Result<(), Status> {
        self.cancels.fetch_add(1, Ordering::SeqCst);
        if number.is_multiple_of(4) { Err(Status::unavailable("no")) } else { Ok(()) }
    }
}

fn plan(rate_per_s: f64, duration_ms: u64) -> Plan {
    Plan {
        rate_per_s,
        duration: Some(Duration::from_millis(duration_ms)),
        customers: 10,
        mix: Mix::only(Kind::Paid),
        seed: 7,
        synchronous: false,
        patience: Duration::ZERO,
    }
}

#[tokio::test]
async fn orders_go_out_although_none_before_them_was_answered() {
    let (plan, shop) = (plan(1_000.0, 200), Closed::new());
    let due: Vec<Duration> = plan.arrivals().map(|arrival| arrival.at).collect();
    let all = u64::try_from(due.len()).unwrap();
    let opening = async {
        // A generator that waits for an answer before it goes on never gets here.
        shop.has_seen(all).await;
        shop.open.send_replace(true);
    };
    let mut times = vec![Duration::ZERO; due.len()];
    let driving = drive(shop.clone(), &plan, CancellationToken::new(), |outcome| {
        times[usize::try_from(outcome.number).unwrap()] = outcome.took;
    });
    let (tally, ()) = tokio::join!(driving, opening);
    assert_eq!((tally.offered, tally.accepted), (all, all));
    let last = due.last().unwrap();
    for (at, took) in due.iter().zip(times) {
        // Nobody was answered before the last order was due.
        assert!(took >= *last - *at, "the order of {at:?} took {took:?}");
    }
}

#[tokio::test]
async fn more_orders_than_may_be_in_flight_are_refused_with_a_reason_of_their_own() {
    let (plan, shop) = (plan(10_000.0, 1_000), Closed::new());
    let open = shop.open.clone();
    let tally = drive(shop, &plan, CancellationToken::new(), |outcome| {
        assert!(*open.borrow() || outcome.result.is_err(), "nobody is answered before the limit is reached");
        open.send_replace(true);
    })
    .await;
    let limit = u64::try_from(IN_FLIGHT_MAX).unwrap();
    assert!(tally.accepted >= limit, "{tally:?}");
    assert!(tally.refused["not_sent"] >= 1);
    assert_eq!(tally.offered, tally.accepted + tally.refused["not_sent"]);
}

#[tokio::test]
async fn refusals_are_counted_by_code_and_each_outcome_is_told_once() {
    let plan = Plan { mix: "paid=1,cancelled=1".parse().unwrap(), ..plan(1_000.0, 300) };
    let (shop, mut seen) = (Moody::default(), std::collections::BTreeSet::new());
    let tally = drive(shop.clone(), &plan, CancellationToken::new(), |outcome| {
        assert_eq!(outcome.result.is_err(), outcome.number % 2 == 1);
        assert!(seen.insert(outcome.number));
    })
    .await;
    let offered = plan.arrivals().count() as u64;
    assert_eq!((tally.offered, seen.len() as u64), (offered, offered));
    assert_eq!((tally.accepted, tally.refused["unavailable"]), (offered.div_ceil(2), offered / 2));
    let cancelled = plan.arrivals().filter(|order| order.kind == Kind::Cancelled && order.number % 2 == 0);
    let cancelled: Vec<u64> = cancelled.map(|order| order.number).collect();
    assert_eq!(shop.cancels.load(Ordering::SeqCst), cancelled.len() as u64);
    assert_eq!(tally.kinds[&Kind::Cancelled], cancelled.len() as u64);
    assert_eq!(tally.cancels_failed, cancelled.iter().filter(|number| number.is_multiple_of(4)).count() as u64);
    let mut keys: Vec<String> = shop.requests.lock().unwrap().iter().map(|r| r.idempotency_key.clone()).collect();
    let mut planned: Vec<String> = plan.arrivals().map(|order| order.request.idempotency_key).collect();
    keys.sort();
    planned.sort();
    assert_eq!(keys, planned);
}

#[tokio::test]
async fn a_cancelled_load_places_nothing_more_and_waits_for_what_is_on_its_way() {
    let (plan, shop) = (Plan { duration: None, ..plan(500.0, 1) }, Closed::new());
    let token = CancellationToken::new();
    let ending = async {
        shop.has_seen(20).await;
        token.cancel();
        shop.open.send_replace(true);
    };
    let driving = timeout(DEADLINE, drive(shop.clone(), &plan, token.clone(), |_| {}));
    let (tally, ()) = tokio::join!(driving, ending);
    let tally = tally.expect("a cancelled load ends");
    assert!(tally.offered >= 20);
    assert_eq!((tally.accepted, *shop.came.borrow()), (tally.offered, tally.offered));
}

#[test]
fn a_load_beyond_its_limits_is_refused_before_anything_is_placed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |plan: Plan| runtime.block_on(run("http://127.0.0.1:1", &plan, CancellationToken::new(), |_| {}));
    assert!(matches!(run(plan(0.0, 1)), Err(Error::Rate(_))));
    assert!(matches!(run(Plan { customers: 0, ..plan(1.0, 1) }), Err(Error::Customers(0))));
}
