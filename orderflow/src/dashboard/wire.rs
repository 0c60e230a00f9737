//! What the page is told, as JSON. The names are a contract with the page's script: they are only ever added to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::Sums;

/// Everything that the page shows of the present.
#[derive(Debug, Serialize)]
pub(super) struct State {
    pub(super) time_ms: i64,
    pub(super) version: &'static str,
    pub(super) owns_processes: bool,
    pub(super) data_dir: Option<String>,
    pub(super) parts: Vec<PartState>,
    pub(super) broker: BrokerState,
    pub(super) topics: Vec<TopicState>,
    pub(super) queues: Vec<QueueState>,
    pub(super) orders: OrdersState,
    pub(super) load: Option<LoadState>,
    pub(super) acquirer: Option<AcquirerState>,
    pub(super) dead_letters: Option<u64>,
    pub(super) books: BooksState,
    pub(super) headline: Headline,
}

/// How one process is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PartState {
    pub(super) part: String,
    pub(super) kind: &'static str,
    pub(super) address: String,
    pub(super) pid: Option<u32>,
    pub(super) alive: bool,
    pub(super) healthy: bool,
    pub(super) state: String,
    pub(super) commands: BTreeMap<&'static str, String>,
}

/// Whether the figures of the queues are fresh.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BrokerState {
    pub(super) reached: bool,
    pub(super) seen_ms: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct TopicState {
    pub(super) id: String,
    pub(super) published_per_s: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct QueueState {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) consumer: String,
    pub(super) backlog: u64,
    pub(super) outstanding: u64,
    pub(super) delayed: u64,
    pub(super) oldest_age_ms: Option<i64>,
    pub(super) published_per_s: f64,
    pub(super) delivered_per_s: f64,
    pub(super) acked_per_s: f64,
    pub(super) consumers: u32,
    pub(super) dead_lettered: u64,
}

/// Counted since the page's server started; rates and latencies are those of the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct OrdersState {
    pub(super) accepted: u64,
    pub(super) paid: u64,
    pub(super) accepted_per_s: f64,
    pub(super) paid_per_s: f64,
    pub(super) latency_p50_ms: Option<u64>,
    pub(super) latency_p99_ms: Option<u64>,
}

/// The steady load, while there is one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LoadState {
    pub(super) rate_per_s: f64,
    pub(super) mix: Option<String>,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) started_ms: i64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct AcquirerState {
    pub(super) mode: crate::acquirer::Mode,
    pub(super) percent: u8,
}

/// What the audit says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BooksStatus {
    /// They could not be read, or not yet.
    #[default]
    Unknown,
    /// Everything fits.
    Balanced,
    /// What does not fit waits for messages that are on their way.
    InFlight,
    /// Something does not fit, and nothing is on its way that could mend it.
    Wrong,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct BooksState {
    pub(super) status: BooksStatus,
    pub(super) read_at_ms: Option<i64>,
    pub(super) sums: Option<Sums>,
    pub(super) mismatches: Vec<String>,
    pub(super) mismatches_total: usize,
    /// Where the status is `wrong`: what made it so, dead letters apart.
    pub(super) wrong: Vec<String>,
    pub(super) error: Option<String>,
}

/// How much the headline worries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    /// Nothing is on its way, and everything fits.
    Balanced,
    /// Orders are on their way, as they should be.
    Moving,
    /// A part is down, or a queue is behind: it comes right by itself.
    Behind,
    /// Somebody has to look at it.
    Wrong,
    /// It can't be told yet.
    Unknown,
}

/// How the stack is, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Headline {
    pub(super) tone: Tone,
    pub(super) words: String,
    /// The part of the page that tells more: its element's id.
    pub(super) target: &'static str,
}

impl Headline {
    pub(super) fn new(tone: Tone, words: String, target: &'static str) -> Self {
        Self { tone, words, target }
    }
}

/// One second for the charts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    pub(super) time_ms: i64,
    pub(super) accepted: u64,
    pub(super) paid: u64,
    pub(super) queued: u64,
    pub(super) latency_p50_ms: Option<u64>,
    pub(super) latency_p99_ms: Option<u64>,
}

/// A time in which a part was not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outage {
    pub(super) part: String,
    pub(super) from_ms: i64,
    pub(super) to_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct History {
    pub(super) samples: Vec<Sample>,
    pub(super) outages: Vec<Outage>,
}
