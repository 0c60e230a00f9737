//! What callers see of the state.

use crate::config::{Labels, Retention, SubscriptionConfig, TopicConfig};
use crate::ids::{Seq, SubscriptionId, Time, TopicId};
use crate::names::{SnapshotName, TopicName};
use crate::output::Keeper;
use crate::snapshot::Failure;

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
    /// Whether it is cut off its topic.
    pub detached: bool,
    /// As it was asked for.
    pub config: SubscriptionConfig,
}

/// A snapshot as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotView {
    /// Its name.
    pub name: SnapshotName,
    /// The topic that it keeps messages of.
    pub topic: TopicId,
    /// The name of that topic, none when it is deleted.
    pub topic_name: Option<TopicName>,
    /// What its owner noted on it.
    pub labels: Labels,
    /// When it is deleted.
    pub expires: Time,
}

/// Somebody who keeps messages for a time, and from where on: what the caller needs to find a [`crate::Cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Who.
    pub keeper: Keeper,
    /// Under which topic the messages are stored.
    pub topic: TopicId,
    /// For how long.
    pub retention: Retention,
    /// The oldest message that it keeps. As long as this one is young enough, there is nothing to cut.
    pub oldest: Seq,
    /// The last message of the topic.
    pub last: Seq,
}

/// The figures of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SubscriptionStats {
    /// Unacked messages, in whatever state.
    pub backlog_messages: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// Whether those are counted; if not, they are reckoned from the average size.
    pub backlog_bytes_exact: bool,
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
    /// Messages that connections were lost with again and again, and that wait to be tried alone or are.
    pub suspect_messages: usize,
    /// Attached consumers.
    pub consumers: usize,
    /// The newest message below which all are acked.
    pub floor: Seq,
    /// The oldest unacked message.
    pub oldest_unacked: Option<Seq>,
    /// What happened since the subscription was created.
    pub totals: Totals,
    /// What happened since the broker started.
    pub run: RunTotals,
    /// What happens now.
    pub rates: Rates,
}

/// How much happens to a subscription in a second: over the last [`crate::RATE_WINDOW_MS`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Messages published that it sees.
    pub published: f64,
    /// Deliveries.
    pub delivered: f64,
    /// Messages acked.
    pub acked: f64,
}

/// The figures of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopicStats {
    /// Subscriptions that are not detached.
    pub subscriptions: usize,
    /// Messages since its creation.
    pub published_messages: u64,
    /// Their bytes.
    pub published_bytes: u64,
    /// From the oldest message that anybody needs to the newest.
    pub retained_messages: u64,
    /// The bytes of these, reckoned from the average size.
    pub retained_bytes: u64,
    /// Messages in a second, over the last [`crate::RATE_WINDOW_MS`].
    pub published_rate: f64,
}

/// An unacked message, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Which.
    pub seq: Seq,
    /// Where it is.
    pub state: MessageState,
    /// Its failed attempts, if it has any.
    pub failure: Option<Failure>,
}

/// Where an unacked message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// For a consumer, or behind an earlier message of its key.
    Waiting,
    /// On a lease that ends then.
    Outstanding(Time),
    /// For the end of its backoff.
    Delayed(Time),
    /// On its way to the dead-letter topic.
    Forwarding,
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
    /// Attempts that failed because the connection of the consumer was lost, with nothing but this message on it.
    pub lost: u64,
    /// Messages that went to the dead-letter topic.
    pub dead_lettered: u64,
    /// Messages that do not match the filter.
    pub filtered: u64,
    /// Messages that nobody had acked when they became too old.
    pub too_old: u64,
    /// Messages that went back, as dead letters, to where they came from.
    pub redriven: u64,
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
