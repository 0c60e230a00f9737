//! What an engine tells of itself, and how it takes dead letters back.

use broker_core::{Failure, MessageState, Rates, RunTotals, SubscriptionName, Time, TopicName, Totals};

use super::{Message, MessageId, Subscription};

/// How everything stands.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    /// In the order of their names.
    pub(crate) subscriptions: Vec<SubscriptionStats>,
    /// Those that are not deleted, in the order of their names.
    pub(crate) topics: Vec<TopicStats>,
    pub(crate) journal: JournalStats,
    /// When the engine was started.
    pub(crate) started: Time,
    /// When all this was so.
    pub(crate) time: Time,
}

/// What the engine keeps on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalStats {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    /// Since the start.
    pub(crate) syncs: u64,
}

/// How one subscription stands.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionStats {
    pub(crate) subscription: Subscription,
    pub(crate) backlog_messages: u64,
    pub(crate) backlog_bytes: u64,
    /// Whether the bytes are counted; if not, they are reckoned.
    pub(crate) backlog_bytes_exact: bool,
    /// When the oldest message of the backlog was published.
    pub(crate) oldest_unacked: Option<Time>,
    pub(crate) outstanding_messages: u64,
    pub(crate) outstanding_bytes: u64,
    pub(crate) delayed_messages: u64,
    pub(crate) consumers: u32,
    /// Since the subscription was created.
    pub(crate) totals: Totals,
    /// Since the engine was started.
    pub(crate) run: RunTotals,
    pub(crate) rates: Rates,
}

/// How one topic stands.
#[derive(Clone, Debug)]
pub(crate) struct TopicStats {
    pub(crate) name: TopicName,
    pub(crate) stats: broker_core::TopicStats,
}

/// What is to be shown of a backlog.
#[derive(Clone, Debug)]
pub(crate) struct Peek {
    /// Only these; all if there are none.
    pub(crate) ids: Vec<MessageId>,
    /// What comes after this one.
    pub(crate) after: Option<MessageId>,
    pub(crate) messages_max: usize,
    /// Data is cut to so many bytes.
    pub(crate) data_bytes_max: usize,
}

/// A part of a backlog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peeked {
    pub(crate) messages: Vec<PeekedMessage>,
    /// The last message that was looked at, if there may be more behind it.
    pub(crate) last: Option<MessageId>,
}

/// An unacked message.
#[derive(Clone, Debug)]
pub(crate) struct PeekedMessage {
    pub(crate) message_id: MessageId,
    pub(crate) publish_time: Time,
    /// With as much of its data as was asked for.
    pub(crate) message: Message,
    /// Of all of its data.
    pub(crate) data_bytes: usize,
    pub(crate) state: MessageState,
    pub(crate) failure: Option<Failure>,
}

/// Which dead letters go back.
#[derive(Clone, Debug)]
pub(crate) struct Redrive {
    /// Only these; all that are there when it begins if there are none.
    pub(crate) ids: Vec<MessageId>,
    /// The most that go back.
    pub(crate) messages_max: u64,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redriven {
    pub(crate) redriven: u64,
    pub(crate) skipped: u64,
    /// The first [`SKIPPED_SHOWN_MAX`] of those that stay.
    pub(crate) shown: Vec<Skipped>,
}

/// The most messages that are named as staying where they are.
pub(crate) const SKIPPED_SHOWN_MAX: usize = 100;

/// A dead letter that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) message_id: MessageId,
    pub(crate) why: SkipReason,
    /// Where it says that it came from.
    pub(crate) source: Option<SubscriptionName>,
}

/// Why a dead letter stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// A consumer holds it, or it is on its way to the next dead-letter topic.
    Outstanding,
    /// It does not say where it came from.
    SourceUnknown,
    /// There is no such subscription any more.
    SourceNotFound,
    /// That subscription is detached.
    SourceDetached,
    /// It is not in the backlog.
    NotInBacklog,
}
