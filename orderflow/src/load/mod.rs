//! A load of orders as many customers make it who do not wait for each other.
//!
//! **Invariant:** the loop is open. An order is placed when it is due, whether those before have been answered or not,
//! and its time counts from when it was due. A service that stalls shows in every order that came meanwhile.
//!
//! **Invariant:** all choices follow from the seed of the [`Plan`].

pub(crate) mod after;
mod command;
mod drive;
mod mix;
mod plan;
mod shop;
mod summary;
mod tally;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, SystemTime};

use orderflow_proto::orderflow::order::v1::Order;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub(crate) use self::command::execute;
pub use self::command::{Config, ORDERS_MAX};
pub use self::mix::{DEADLINE_MS, Kind, MIX_WEIGHT_MAX, Mix, MixError};
pub use self::plan::{Arrival, Arrivals, CUSTOMERS_MAX, DURATION_S_MAX, Plan, RATE_PER_S_MAX, RATE_PER_S_MIN};
pub use self::tally::{Latencies, Spread, Tally};
use crate::audit;

/// How many orders may be unanswered at the same time; one that is due beyond them is refused here.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// Over how many connections the orders are spread.
const CONNECTIONS: usize = 4;

/// What came of one order.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Counts the orders of a plan from 0.
    pub number: u64,
    /// What the order was meant to go through.
    pub kind: Kind,
    /// When it was to be placed.
    pub intended: SystemTime,
    /// How much later it was sent.
    pub late: Duration,
    /// From when it was to be placed to the answer.
    pub took: Duration,
    /// Whether the order was made by an earlier load of the same seed.
    pub repeated: bool,
    /// The order, or why there is none.
    pub result: Result<&'a Order, &'a Refusal>,
}

/// Why an order was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// Too many before it have not been answered. It was not sent.
    #[error("{IN_FLIGHT_MAX} orders are unanswered already")]
    InFlight,
    /// order-service said so, or did not answer.
    #[error(transparent)]
    Status(#[from] Status),
}

impl Refusal {
    /// The reason in a word or two: the code in lower case, or `not_sent`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InFlight => "not_sent",
            Self::Status(status) => code_name(status.code()),
        }
    }
}

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rate is out of its limits.
    #[error("a rate of {0} orders per second is not within {RATE_PER_S_MIN} to {RATE_PER_S_MAX}")]
    Rate(f64),
    /// The duration is out of its limits.
    #[error("the duration must be more than zero and at most {DURATION_S_MAX} s")]
    Duration,
    /// The number of customers is out of its limits.
    #[error("{0} customers are not within 1 to {CUSTOMERS_MAX}")]
    Customers(u32),
    /// More orders than one command can follow.
    #[error("{0:.0} orders are more than the {ORDERS_MAX:.0} that one load can follow: lower the rate or the duration")]
    Orders(f64),
    /// ctrl-c can't be listened to.
    #[error("ctrl-c can't be caught: {0}")]
    Signals(#[source] io::Error),
    /// Somebody pressed ctrl-c.
    #[error("ctrl-c broke it off")]
    Interrupted,
    /// The address is none, or nobody could tell what became of the orders.
    #[error(transparent)]
    Ask(#[from] audit::Error),
}

/// Places the orders of a plan at order-service's `url` until they are all answered. After a cancellation none is
/// placed any more, and those that are on their way are waited for.
///
/// Each order is given to `observe` when it is answered. What that does should be quick: it is done between two orders.
pub async fn run(
    url: &str,
    plan: &Plan,
    token: CancellationToken,
    observe: impl FnMut(&Outcome<'_>) + Send,
) -> Result<Tally, Error> {
    plan.check()?;
    let shop = shop::OrderService::new(url, plan.patience)?;
    Ok(drive::drive(shop, plan, token, observe).await)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
