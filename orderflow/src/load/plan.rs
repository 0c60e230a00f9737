//! What a load is to be, and the orders that follow from it. Pure: the same plan gives the same orders at the same
//! times.

use std::time::Duration;

use orderflow_proto::orderflow::order::v1::{OrderLine, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::{CheckoutMode, Money};

use super::{Error, Kind, Mix};

/// The least orders per second.
pub const RATE_PER_S_MIN: f64 = 0.1;
/// The most orders per second.
pub const RATE_PER_S_MAX: f64 = 10_000.0;
/// The most customers that orders are spread over.
pub const CUSTOMERS_MAX: u32 = 1_000_000;
/// The longest load that has an end, in seconds.
pub const DURATION_S_MAX: u64 = 86_400;

/// The currency of every order.
const CURRENCY: &str = "EUR";
/// What can be ordered, and what one costs in minor units.
const ARTICLES: [(&str, i64); 6] =
    [("tea", 1_299), ("coffee", 899), ("mug", 1_450), ("kettle", 4_990), ("biscuits", 349), ("honey", 720)];
/// Lines that an order has at most.
const LINES_MAX: usize = 3;
/// Pieces that a line has at most.
const QUANTITY_MAX: u32 = 4;

/// What a load is to be. Everything that is random in it follows from the seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Orders per second, on average: [`RATE_PER_S_MIN`] to [`RATE_PER_S_MAX`].
    pub rate_per_s: f64,
    /// How long orders are placed, at most [`DURATION_S_MAX`]. Without it: until cancelled.
    pub duration: Option<Duration>,
    /// Over how many customers the orders are spread: 1 to [`CUSTOMERS_MAX`].
    pub customers: u32,
    /// What kinds of orders.
    pub mix: Mix,
    /// Orders, customers, idempotency keys and times follow from it. A stack knows the orders of a seed that it had
    /// before, and answers with them.
    pub seed: u64,
    /// Whether orders are charged within the request, unless their kind says so anyway.
    pub synchronous: bool,
    /// How long a customer asks again while there is no answer; zero for one try.
    pub patience: Duration,
}

/// One order of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Counts the orders of a plan from 0.
    pub number: u64,
    /// What the order is meant to go through.
    pub kind: Kind,
    /// When it is to be placed, from the start of the load.
    pub at: Duration,
    /// What is asked for.
    pub request: PlaceOrderRequest,
}

/// The orders of a plan in the order of their times.
#[derive(Debug)]
pub struct Arrivals {
    plan: Plan,
    gaps: fastrand::Rng,
    number: u64,
    at: Duration,
}

impl Plan {
    /// Checks every limit.
    pub fn check(&self) -> Result<(), Error> {
        if !(RATE_PER_S_MIN..=RATE_PER_S_MAX).contains(&self.rate_per_s) {
            return Err(Error::Rate(self.rate_per_s));
        }
        if self.duration.is_some_and(|duration| duration.is_zero() || duration > Duration::from_secs(DURATION_S_MAX)) {
            return Err(Error::Duration);
        }
        if !(1..=CUSTOMERS_MAX).contains(&self.customers) {
            return Err(Error::Customers(self.customers));
        }
        Ok(())
    }

    /// The orders of the plan; without a duration they have no end.
    pub fn arrivals(&self) -> Arrivals {
        // The gaps are drawn apart from the orders: at another rate come the same orders.
        let gaps = fastrand::Rng::with_seed(self.seed);
        Arrivals { plan: self.clone(), gaps, number: 0, at: Duration::ZERO }
    }

    fn order(&self, number: u64) -> (Kind, PlaceOrderRequest) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let kind = self.mix.choose(&mut random);
        let customer = random.u32(1..=self.customers);
        let lines = (0..random.usize(1..=LINES_MAX)).map(|_| {
            let (sku, amount_minor) = ARTICLES[random.usize(..ARTICLES.len())];
            let unit_price = Money { currency_code: CURRENCY.to_owned(), amount_minor };
            let quantity = random.u32(1..=QUANTITY_MAX);
            OrderLine { sku: sku.to_owned(), quantity, unit_price: Some(unit_price) }
        });
        let synchronous = self.synchronous || kind == Kind::Synchronous;
        let mode = if synchronous { CheckoutMode::Synchronous } else { CheckoutMode::Asynchronous };
        let request = PlaceOrderRequest {
            idempotency_key: format!("load-{:016x}-{number}", self.seed),
            customer_id: format!("customer-{customer}"),
            lines: lines.collect(),
            payment_token: kind.card().to_owned(),
            checkout_mode: mode.into(),
            payment_deadline: kind.deadline().map(|deadline| prost_types::Duration {
                seconds: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(deadline.subsec_nanos()).unwrap_or_default(),
            }),
            customer_email: String::new(),
        };
        (kind, request)
    }
}

impl Arrival {
    /// What the order costs, in minor units.
    pub fn total_minor(&self) -> i64 {
        let price = |line: &OrderLine| line.unit_price.as_ref().map_or(0, |price| price.amount_minor);
        self.request.lines.iter().map(|line| i64::from(line.quantity) * price(line)).sum()
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    /// Customers do not know of each other, so the gaps between them are exponential.
    fn next(&mut self) -> Option<Arrival> {
        let gap_s = -(1.0 - self.gaps.f64()).ln() / self.plan.rate_per_s;
        self.at += Duration::from_secs_f64(gap_s);
        if self.plan.duration.is_some_and(|duration| self.at >= duration) {
            return None;
        }
        let number = self.number;
        self.number += 1;
        let (kind, request) = self.plan.order(number);
        Some(Arrival { number, kind, at: self.at, request })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan() -> Plan {
        Plan {
            rate_per_s: 100.0,
            duration: Some(Duration::from_secs(20)),
            customers: 50,
            mix: "paid=3,declined=1,deadline=1".parse().unwrap(),
            seed: 42,
            synchronous: false,
            patience: Duration::ZERO,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_orders_at_the_same_times_and_another_does_not() {
        let all: Vec<Arrival> = plan().arrivals().collect();
        assert_eq!(all, plan().arrivals().collect::<Vec<_>>());
        let other: Vec<Arrival> = Plan { seed: 43, ..plan() }.arrivals().collect();
        assert_ne!(all[0].at, other[0].at);
        let keys = |all: &[Arrival]| -> BTreeSet<String> {
            all.iter().map(|arrival| arrival.request.idempotency_key.clone()).collect()
        };
        assert_eq!(keys(&all).len(), all.len(), "each order has its own key");
        assert!(keys(&all).is_disjoint(&keys(&other)));
    }

    /// Reports name seeds: a run must be repeatable with a later version, too.
    #[test]
    fn the_first_order_of_a_seed_stays_what_it_is() {
        let first = plan().arrivals().next().unwrap();
        let told = (first.kind, first.at.as_micros(), first.request.customer_id.as_str(), first.total_minor());
        assert_eq!(told, (Kind::Deadline, 15_644, "customer-35", 3_417));
    }

    #[test]
    fn at_another_rate_and_in_another_mode_come_the_same_orders() {
        let fast = Plan { rate_per_s: 1_000.0, synchronous: true, ..plan() };
        for (one, other) in plan().arrivals().zip(fast.arrivals()).take(100) {
            assert_eq!((one.kind, &one.request.lines), (other.kind, &other.request.lines));
            assert_eq!(other.request.checkout_mode(), CheckoutMode::Synchronous);
        }
    }

    #[test]
    fn arrivals_keep_the_rate_and_end_with_the_duration() {
        let all: Vec<Arrival> = plan().arrivals().collect();
        assert!((1_850..2_150).contains(&all.len()), "{} orders instead of about 2000", all.len());
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(all.last().unwrap().at < Duration::from_secs(20));
        let short = all.windows(2).filter(|pair| pair[1].at - pair[0].at < Duration::from_millis(5)).count();
        assert!(short > all.len() / 4, "exponential gaps are often short: {short} of {}", all.len());
    }

    #[test]
    fn orders_are_within_what_the_service_takes_and_differ() {
        let all: Vec<Arrival> = plan().arrivals().collect();
        assert!(all.iter().all(|arrival| arrival.total_minor() > 0));
        let customers: BTreeSet<&str> = all.iter().map(|arrival| arrival.request.customer_id.as_str()).collect();
        assert_eq!(customers.len(), 50);
        for arrival in &all {
            assert_eq!(arrival.request.payment_deadline.is_some(), arrival.kind == Kind::Deadline);
            assert_eq!(arrival.request.payment_token == "tok_insufficient_funds", arrival.kind == Kind::Declined);
        }
    }

    #[test]
    fn limits_are_allowed_and_what_is_beyond_them_is_refused() {
        let second = Duration::from_secs(1);
        let longest = Duration::from_secs(DURATION_S_MAX);
        for good in [
            Plan { rate_per_s: RATE_PER_S_MIN, ..plan() },
            Plan { rate_per_s: RATE_PER_S_MAX, ..plan() },
            Plan { duration: None, ..plan() },
            Plan { duration: Some(longest), ..plan() },
            Plan { customers: 1, ..plan() },
            Plan { customers: CUSTOMERS_MAX, ..plan() },
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            Plan { rate_per_s: 0.09, ..plan() },
            Plan { rate_per_s: 10_000.1, ..plan() },
            Plan { rate_per_s: f64::NAN, ..plan() },
            Plan { duration: Some(Duration::ZERO), ..plan() },
            Plan { duration: Some(longest + second), ..plan() },
            Plan { customers: 0, ..plan() },
            Plan { customers: CUSTOMERS_MAX + 1, ..plan() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
