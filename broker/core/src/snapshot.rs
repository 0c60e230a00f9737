//! All durable state as plain data, for the caller to encode.

use crate::acked::AckedSet;
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::ids::{Seq, SubscriptionId, Time, TopicId};
use crate::record::FailReason;
use crate::view::Totals;

/// All durable state. It covers exactly the records that were given out or applied before it was taken, also those
/// that are not durable yet: the caller stores it only after they are, and replays only what came after them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The last epoch that began, 0 before the first.
    pub epoch: u32,
    /// The highest topic id that was ever given.
    pub topic_id_last: u32,
    /// The highest subscription id that was ever given.
    pub subscription_id_last: u32,
    /// By id.
    pub topics: Vec<TopicSnapshot>,
    /// By id.
    pub subscriptions: Vec<SubscriptionSnapshot>,
}

/// One topic in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSnapshot {
    /// Its id.
    pub id: TopicId,
    /// As it was asked for.
    pub config: TopicConfig,
    /// Whether it is deleted and kept for its subscriptions.
    pub deleted: bool,
    /// The number of its last message.
    pub last: Seq,
}

/// One subscription in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionSnapshot {
    /// Its id.
    pub id: SubscriptionId,
    /// Its topic.
    pub topic: TopicId,
    /// As it was asked for.
    pub config: SubscriptionConfig,
    /// What it has settled.
    pub acked: AckedSet,
    /// The unacked messages that have failed, by number.
    pub failures: Vec<(Seq, Failure)>,
    /// What happened to it.
    pub totals: Totals,
}

/// The failed attempts of one unacked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How many attempts have failed.
    pub attempts: u32,
    /// When the message may be delivered again.
    pub not_before: Time,
    /// Why the last attempt failed.
    pub reason: FailReason,
}
