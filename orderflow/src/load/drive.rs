//! Places orders when they are due, whether those before have been answered or not.

use std::time::{Duration, SystemTime};

use orderflow_proto::orderflow::order::v1::Order;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::plan::Arrival;
use super::shop::Shop;
use super::{IN_FLIGHT_MAX, Kind, Outcome, Plan, Refusal, Tally};

/// How finely order-service tells when an order was made.
const CREATE_TIME_STEP: Duration = Duration::from_millis(1);

/// An order that was answered.
struct Answered {
    number: u64,
    kind: Kind,
    intended: Instant,
    sent: Instant,
    answered: Instant,
    result: Result<Order, Refusal>,
    cancel_failed: bool,
}

/// Places the orders of a plan, and gives each to `observe` when it is answered. The plan was checked before.
pub(super) async fn drive<S: Shop>(
    shop: S,
    plan: &Plan,
    token: CancellationToken,
    mut observe: impl FnMut(&Outcome<'_>) + Send,
) -> Tally {
    let (start, start_time) = (Instant::now(), SystemTime::now());
    let (mut tally, mut in_flight) = (Tally::default(), JoinSet::new());
    let mut conclude = |tally: &mut Tally, answered: &Answered| {
        let outcome = answered.outcome(start, start_time);
        tally.add(&outcome);
        tally.cancels_failed += u64::from(answered.cancel_failed);
        observe(&outcome);
    };
    let mut arrivals = plan.arrivals();
    let mut next = arrivals.next();
    let timer = time::sleep_until(start);
    tokio::pin!(timer);
    loop {
        if let Some(arrival) = &next {
            timer.as_mut().reset(start + arrival.at);
        }
        tokio::select! {
            () = &mut timer, if next.is_some() => {
                // The clock ticks in milliseconds: several may be due.
                while let Some(arrival) = next.take_if(|arrival| start + arrival.at <= Instant::now()) {
                    next = arrivals.next();
                    if in_flight.len() < IN_FLIGHT_MAX {
                        in_flight.spawn(place(shop.clone(), arrival, start));
                    } else {
                        conclude(&mut tally, &Answered::turned_away(&arrival, start));
                    }
                }
            }
            Some(answered) = in_flight.join_next() => {
                if let Ok(answered) = answered {
                    conclude(&mut tally, &answered);
                }
            }
            () = token.cancelled(), if next.is_some() => next = None,
            else => break,
        }
        if next.is_none() && tally.offered_for.is_zero() {
            tally.offered_for = start.elapsed();
        }
    }
    tally
}

async fn place<S: Shop>(shop: S, arrival: Arrival, start: Instant) -> Answered {
    let Arrival { number, kind, at, request } = arrival;
    let sent = Instant::now();
    let result = shop.place(number, request).await;
    let answered = Instant::now();
    let cancel_failed = match &result {
        Ok(order) if kind == Kind::Cancelled => shop.cancel(number, order.order_id.clone()).await.is_err(),
        _ => false,
    };
    let result = result.map_err(Refusal::Status);
    Answered { number, kind, intended: start + at, sent, answered, result, cancel_failed }
}

impl Answered {
    fn turned_away(arrival: &Arrival, start: Instant) -> Self {
        let (now, &Arrival { number, kind, at, .. }) = (Instant::now(), arrival);
        let result = Err(Refusal::InFlight);
        Self { number, kind, intended: start + at, sent: now, answered: now, result, cancel_failed: false }
    }

    fn outcome(&self, start: Instant, start_time: SystemTime) -> Outcome<'_> {
        let created = self.result.as_ref().ok().and_then(|order| order.create_time);
        let created = created.and_then(|time| SystemTime::try_from(time).ok());
        Outcome {
            number: self.number,
            kind: self.kind,
            intended: start_time + (self.intended - start),
            late: self.sent - self.intended,
            took: self.answered - self.intended,
            repeated: created.is_some_and(|created| created + CREATE_TIME_STEP <= start_time),
            result: self.result.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_order_counts_from_when_it_was_due_and_not_from_when_it_was_sent() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let answered = Answered {
            number: 3,
            kind: Kind::Paid,
            intended: start + ms(1_000),
            sent: start + ms(1_400),
            answered: start + ms(1_500),
            result: Ok(Order::default()),
            cancel_failed: false,
        };
        let outcome = answered.outcome(start, SystemTime::UNIX_EPOCH);
        assert_eq!((outcome.late, outcome.took), (ms(400), ms(500)));
        assert_eq!(outcome.intended, SystemTime::UNIX_EPOCH + ms(1_000));
    }

    #[test]
    fn an_order_that_was_there_before_the_load_is_a_repeated_one() {
        let (start, now) = (Instant::now(), SystemTime::now());
        let repeated = |created: SystemTime| {
            let order = Order { create_time: Some(created.into()), ..Order::default() };
            let (intended, kind) = (start, Kind::Paid);
            let answered = Answered {
                number: 0,
                kind,
                intended,
                sent: start,
                answered: start,
                result: Ok(order),
                cancel_failed: false,
            };
            answered.outcome(start, now).repeated
        };
        assert!(repeated(now - Duration::from_secs(1)));
        assert!(!repeated(now + Duration::from_secs(1)));
        assert!(!repeated(now - Duration::from_micros(999)), "it was made in the millisecond in which the load began");
    }
}
