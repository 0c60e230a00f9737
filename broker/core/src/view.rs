//! What callers see of the state.

use crate::config::{SubscriptionConfig, TopicConfig};
use crate::ids::{Seq, SubscriptionId, TopicId};

/// A topic as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its id.
    pub id: TopicId,
    /// As it was asked for.
    pub config: TopicConfig,
    /// Whether it is deleted and kept only for the subscriptions that still hold its messages.
    pub deleted: bool,
    /// The number of its last message, [`Seq::ZERO`] before the first.
    pub last: Seq,
}

/// A subscription as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Its id.
    pub id: SubscriptionId,
    /// The topic that its messages are stored under.
    pub topic: TopicId,
    /// Whether that topic is deleted, to be shown as [`crate::DELETED_TOPIC`].
    pub topic_deleted: bool,
    /// As it was asked for.
    pub config: SubscriptionConfig,
}

/// The figures of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Unacked messages, in whatever state.
    pub backlog_messages: u64,
    /// Messages out on a lease.
    pub outstanding_messages: usize,
    /// Their bytes.
    pub outstanding_bytes: u64,
    /// Messages that wait for the end of their backoff.
    pub delayed_messages: usize,
    /// Messages on their way to the dead-letter topic.
    pub forwarding_messages: usize,
    /// Messages that wait for their turn: behind an earlier one of their key, or for a consumer that can take them.
    pub parked_messages: usize,
    /// Messages that are known ahead of their first delivery.
    pub window_messages: usize,
    /// Attached consumers.
    pub consumers: usize,
    /// The newest message below which all are acked.
    pub floor: Seq,
    /// What happened since the subscription was created.
    pub totals: Totals,
    /// What happened since the broker started.
    pub run: RunTotals,
}

/// What happened to a subscription since its creation. Counted from records, so a restart forgets none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages acked, those that went to the dead-letter topic not included.
    pub acked: u64,
    /// Attempts that failed because the consumer gave the message back.
    pub nacked: u64,
    /// Attempts that failed because the deadline passed.
    pub expired: u64,
    /// Messages that went to the dead-letter topic.
    pub dead_lettered: u64,
}

/// What happened to a subscription in this run and left no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Deliveries.
    pub delivered: u64,
    /// Leases that were returned uncounted: the connection of their consumer was lost, or the message never reached it.
    pub returned: u64,
    /// Leases that were revoked because an earlier message of the same key came back.
    pub revoked: u64,
    /// Times that a message could not go to its dead-letter topic because there is none of that name.
    pub forward_retries: u64,
}
