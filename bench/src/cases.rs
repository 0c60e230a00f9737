//! What is measured.

use std::fmt;
use std::time::Duration;

/// A case: what every side is put through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Case {
    /// Batches from one publisher, several of them under way at a time.
    Publish { batch: usize, bytes: usize },
    /// What was published before is delivered and acked.
    Deliver,
    /// Publish, deliver and ack at the same time.
    Together,
    /// Like `Together`, but each message goes to ten subscriptions.
    FanOut,
    /// Batches of 100 to a thousand topics in turn.
    Topics,
    /// Single messages at times that do not wait for answers.
    Latency { per_s: u32 },
    /// Publish, deliver and ack with ten million messages in the queue; then the server is killed and started again.
    Backlog,
}

/// The messages of the deep queue.
pub(crate) const BACKLOG_MESSAGES: u64 = 10_000_000;
/// The same in a quick run.
pub(crate) const BACKLOG_MESSAGES_QUICK: u64 = 500_000;
/// Subscriptions that a message fans out to.
pub(crate) const FAN_OUT: usize = 10;
/// Topics that are published to in turn.
pub(crate) const TOPICS: usize = 1_000;
/// The size of a message where the case does not say.
pub(crate) const BYTES_DEFAULT: usize = 100;

/// All cases, in the order of the report.
pub(crate) const CASES: [Case; 14] = [
    Case::Publish { batch: 1, bytes: 100 },
    Case::Publish { batch: 10, bytes: 100 },
    Case::Publish { batch: 100, bytes: 100 },
    Case::Publish { batch: 1_000, bytes: 100 },
    Case::Publish { batch: 100, bytes: 1_000 },
    Case::Publish { batch: 100, bytes: 10_000 },
    Case::Deliver,
    Case::Together,
    Case::FanOut,
    Case::Topics,
    Case::Latency { per_s: 1_000 },
    Case::Latency { per_s: 5_000 },
    Case::Latency { per_s: 10_000 },
    Case::Backlog,
];

impl Case {
    /// Publish requests that are under way at a time.
    pub(crate) fn in_flight(self) -> usize {
        match self {
            Self::Publish { batch: 1..=10, .. } => 64,
            Self::Publish { batch: 100, bytes: ..=1_000 } | Self::Topics => 32,
            _ => 8,
        }
    }

    /// Messages of one request.
    pub(crate) fn batch(self) -> usize {
        match self {
            Self::Publish { batch, .. } => batch,
            Self::Latency { .. } => 1,
            Self::Topics | Self::Together | Self::FanOut | Self::Backlog => 100,
            Self::Deliver => 1_000,
        }
    }

    /// The size of each message's body.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Publish { bytes, .. } => bytes,
            _ => BYTES_DEFAULT,
        }
    }

    /// What it measures, for people.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Publish { batch, bytes } => {
                format!("publish, batches of {batch}, {bytes} B each, {} in flight", self.in_flight())
            }
            Self::Deliver => "deliver and ack what was published before".to_owned(),
            Self::Together => "publish, deliver and ack at the same time".to_owned(),
            Self::FanOut => format!("the same with {FAN_OUT} subscriptions; deliveries"),
            Self::Topics => format!("publish to {TOPICS} topics in turn, batches of 100"),
            Self::Latency { per_s } => format!("publish {per_s} single messages a second, open loop"),
            Self::Backlog => format!("publish, deliver and ack on top of up to {BACKLOG_MESSAGES} waiting messages"),
        }
    }

    /// Whether once is enough: it takes minutes, most of them to fill the queue.
    pub(crate) fn runs_once(self) -> bool {
        self == Self::Backlog
    }

    /// Whether it gives latencies rather than a rate.
    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::Latency { .. })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish { batch, bytes: BYTES_DEFAULT } => write!(f, "publish-{batch}"),
            Self::Publish { batch, bytes } => write!(f, "publish-{batch}x{bytes}"),
            Self::Deliver => f.write_str("deliver"),
            Self::Together => f.write_str("together"),
            Self::FanOut => f.write_str("fan-out"),
            Self::Topics => f.write_str("topics"),
            Self::Latency { per_s } => write!(f, "latency-{per_s}"),
            Self::Backlog => f.write_str("backlog"),
        }
    }
}

/// How long things are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Before anything counts.
    pub(crate) warm_up: Duration,
    /// What counts.
    pub(crate) measured: Duration,
    /// The most messages that are published before a delivery is measured.
    pub(crate) preload_messages: u64,
    /// And how long that may take.
    pub(crate) preload: Duration,
    /// The messages of the deep queue.
    pub(crate) backlog_messages: u64,
    /// And how long it may take to publish them; a side that is slower has as many as it gets.
    pub(crate) backlog: Duration,
}

impl Extent {
    /// For a table.
    pub(crate) const FULL: Self = Self {
        warm_up: Duration::from_millis(300),
        measured: Duration::from_millis(1_500),
        preload_messages: 600_000,
        preload: Duration::from_secs(3),
        backlog_messages: BACKLOG_MESSAGES,
        backlog: Duration::from_secs(40),
    };
    /// For a first look.
    pub(crate) const QUICK: Self = Self {
        warm_up: Duration::from_millis(100),
        measured: Duration::from_millis(500),
        preload_messages: 200_000,
        preload: Duration::from_secs(1),
        backlog_messages: BACKLOG_MESSAGES_QUICK,
        backlog: Duration::from_secs(5),
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own() {
        let names: BTreeSet<String> = CASES.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), CASES.len());
        assert_eq!(Case::Publish { batch: 100, bytes: 10_000 }.to_string(), "publish-100x10000");
    }
}
