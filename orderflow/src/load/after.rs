//! What is to be seen once a load is over: how long the stack took to work it off, and when each order was paid.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{ListOrdersRequest, Order, OrderStatus};
use tokio::time::{self, Instant};

use super::Latencies;
use crate::audit::{Addresses, Error, channel};
use crate::queues;

/// How often it is looked whether anything still waits, in milliseconds.
const LOOK_MS: u64 = 100;
/// Orders asked for in one page; the service gives no more.
const PAGE_SIZE: i32 = 1_000;

/// Orders that were accepted, by id, with the time at which they were to be placed.
pub(crate) type Accepted = HashMap<String, SystemTime>;

/// What still waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Messages in the queues of the suite.
    pub(crate) messages: u64,
    /// Whether an order waits for its payment. Its event may not be in a queue yet.
    pub(crate) pending: bool,
}

impl Waiting {
    /// Asks order-service and the broker.
    pub(crate) async fn now(addresses: &Addresses) -> Result<Self, Error> {
        let request =
            ListOrdersRequest { status: OrderStatus::PendingPayment.into(), page_size: 1, ..Default::default() };
        let url = &addresses.order_service;
        let pending = OrderServiceClient::new(channel(url)?).list_orders(request).await;
        let pending = !pending.map_err(Error::grpc("order-service", url))?.into_inner().orders.is_empty();
        let messages = queues::waiting(&addresses.broker).await?.into_iter().map(|(_, messages)| messages).sum();
        Ok(Self { messages, pending })
    }

    /// Whether all work is done.
    pub(crate) fn is_nothing(self) -> bool {
        self.messages == 0 && !self.pending
    }
}

/// Waits until nothing waits any more, and tells how long that took. `None` when the time was not enough. A part that
/// does not answer is asked again.
pub(crate) async fn drain(addresses: &Addresses, limit: Duration, mut look: impl FnMut(Waiting)) -> Option<Duration> {
    let started = Instant::now();
    loop {
        if let Ok(waiting) = Waiting::now(addresses).await {
            if waiting.is_nothing() {
                return Some(started.elapsed());
            }
            look(waiting);
        }
        if started.elapsed() + Duration::from_millis(LOOK_MS) > limit {
            return None;
        }
        time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// When each paid order among the accepted ones was paid: when it was to be placed, and how long it took from then.
pub(crate) async fn paid(url: &str, accepted: &Accepted) -> Result<Vec<(SystemTime, Duration)>, Error> {
    let mut client = OrderServiceClient::new(channel(url)?);
    let mut request = ListOrdersRequest { page_size: PAGE_SIZE, ..Default::default() };
    let (mut times, mut left) = (Vec::new(), accepted.len());
    while left > 0 {
        let page = client.list_orders(request.clone()).await.map_err(Error::grpc("order-service", url))?.into_inner();
        for order in page.orders {
            let Some(intended) = accepted.get(&order.order_id) else { continue };
            left -= 1;
            if let Some(paid) = paid_at(&order) {
                times.push((*intended, paid.duration_since(*intended).unwrap_or_default()));
            }
        }
        // Newest first, so that a long history is read only as far as this load goes back.
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(times)
}

/// Adds times up.
pub(crate) fn latencies(times: impl IntoIterator<Item = Duration>) -> Latencies {
    let mut all = Latencies::default();
    times.into_iter().for_each(|took| all.record(took));
    all
}

/// How many were paid a second, from when the first of them was due until the last one was paid.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn per_second(times: &[(SystemTime, Duration)]) -> f64 {
    let first = times.iter().map(|(intended, _)| *intended).min();
    let last = times.iter().map(|(intended, took)| *intended + *took).max();
    let time = first.zip(last).and_then(|(first, last)| last.duration_since(first).ok()).unwrap_or_default();
    if time.is_zero() { 0.0 } else { times.len() as f64 / time.as_secs_f64() }
}

/// A paid order was last changed when it was paid, unless its money is on the way back.
fn paid_at(order: &Order) -> Option<SystemTime> {
    let paid = order.status() == OrderStatus::Paid && !order.refund_pending;
    order.update_time.filter(|_| paid).and_then(|time| SystemTime::try_from(time).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_payments_counts_until_the_last_one() {
        let order = |intended_ms, took_ms| {
            (SystemTime::UNIX_EPOCH + Duration::from_millis(intended_ms), Duration::from_millis(took_ms))
        };
        assert_eq!(per_second(&[order(3_000, 100), order(1_000, 4_000), order(2_000, 500), order(2_500, 0)]), 1.0);
        assert_eq!(per_second(&[]), 0.0);
        assert_eq!(per_second(&[order(1_000, 0)]), 0.0, "no time has passed");
    }

    #[test]
    fn only_paid_orders_have_a_time_of_payment() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let order = |status: OrderStatus, refund_pending| Order {
            status: status.into(),
            refund_pending,
            update_time: Some(time.into()),
            ..Order::default()
        };
        assert_eq!(paid_at(&order(OrderStatus::Paid, false)), Some(time));
        assert_eq!(paid_at(&order(OrderStatus::Paid, true)), None);
        assert_eq!(paid_at(&order(OrderStatus::PendingPayment, false)), None);
        assert_eq!(paid_at(&order(OrderStatus::Cancelled, false)), None);
    }
}
