//! Figures of the process. One process is one service, so they are the process's own: whoever has something to count
//! counts it here, and [`register`] adds what only one service has.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What a call of an unknown method is counted as: names that a caller makes up must not grow the page.
const UNKNOWN_METHOD: &str = "unknown";

static FIGURES: LazyLock<Figures> = LazyLock::new(Figures::new);

struct Figures {
    registry: Mutex<Registry>,
    calls: Family<Call, Counter>,
    call_seconds: Family<Method, Histogram, fn() -> Histogram>,
    messages: Family<Handled, Counter>,
    message_seconds: Family<Subscription, Histogram, fn() -> Histogram>,
    published: Family<Topic, Counter>,
    waiting: Gauge,
    commits: Counter,
    writes: Counter,
    commit_seconds: Histogram,
    breakers: Family<Breaker, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    subscription: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Subscription {
    subscription: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Breaker {
    of: &'static str,
}

impl Figures {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("orderflow");
        let figures = Self {
            registry: Mutex::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            messages: Family::default(),
            message_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            published: Family::default(),
            waiting: Gauge::default(),
            commits: Counter::default(),
            writes: Counter::default(),
            commit_seconds: seconds(),
            breakers: Family::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        registry.register("rpc_requests", "Calls by method and gRPC code", figures.calls.clone());
        let help = "From the head of a call to the head of its answer";
        registry.register_with_unit("rpc_duration", help, Unit::Seconds, figures.call_seconds.clone());
        registry.register("messages", "Messages by what became of them", figures.messages.clone());
        let help = "From the start to the end of handling a message";
        registry.register_with_unit("message_duration", help, Unit::Seconds, figures.message_seconds.clone());
        registry.register("outbox_published", "Events that the broker took", figures.published.clone());
        registry.register("outbox_waiting", "Events that wait for the broker", figures.waiting.clone());
        registry.register("database_commits", "Transactions that reached the disk", figures.commits.clone());
        registry.register("database_writes", "Writes that shared them", figures.writes.clone());
        let help = "From the begin to the end of a transaction";
        registry.register_with_unit("database_commit_duration", help, Unit::Seconds, figures.commit_seconds.clone());
        registry.register("breaker_open", "1 while something is taken for unavailable", figures.breakers.clone());
        *figures.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        figures
    }
}

/// Adds figures that only one service has. Their names begin with `orderflow_`.
pub fn register(add: impl FnOnce(&mut Registry)) {
    add(&mut FIGURES.registry.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A histogram of seconds, from half a millisecond to about half a minute.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 17))
}

pub(super) fn encoded() -> String {
    let mut page = String::new();
    let registry = FIGURES.registry.lock().unwrap_or_else(PoisonError::into_inner);
    // Writing into a string does not fail.
    encode(&mut page, &registry).ok();
    page
}

pub(crate) fn called(path: &str, code: tonic::Code, took: Duration) {
    let method = if code == tonic::Code::Unimplemented { UNKNOWN_METHOD } else { path.trim_start_matches('/') };
    FIGURES.calls.get_or_create(&Call { method: method.to_owned(), code: code_name(code) }).inc();
    FIGURES.call_seconds.get_or_create(&Method { method: method.to_owned() }).observe(took.as_secs_f64());
}

pub(crate) fn handled(subscription: &str, outcome: &'static str, took: Duration) {
    FIGURES.messages.get_or_create(&Handled { subscription: subscription.to_owned(), outcome }).inc();
    let subscription = Subscription { subscription: subscription.to_owned() };
    FIGURES.message_seconds.get_or_create(&subscription).observe(took.as_secs_f64());
}

pub(crate) fn published(topic: &str) {
    FIGURES.published.get_or_create(&Topic { topic: topic.to_owned() }).inc();
}

pub(crate) fn waiting(events: i64) {
    FIGURES.waiting.set(events);
}

pub(crate) fn committed(writes: usize, took: Duration) {
    FIGURES.commits.inc();
    FIGURES.writes.inc_by(writes as u64);
    FIGURES.commit_seconds.observe(took.as_secs_f64());
}

pub(crate) fn breaker(of: &'static str, is_open: bool) {
    FIGURES.breakers.get_or_create(&Breaker { of }).set(i64::from(is_open));
}

/// The code as gRPC's documentation writes it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
