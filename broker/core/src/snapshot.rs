//! All durable state as plain data, for the caller to encode.

use crate::acked::AckedSet;
use crate::config::{Labels, SubscriptionConfig, TopicConfig};
use crate::ids::{LeaseId, Seq, SubscriptionId, Time, TopicId};
use crate::names::SnapshotName;
use crate::policy::{Policy, Resource};
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
    /// What users call snapshots, by name.
    pub bookmarks: Vec<Bookmark>,
    /// The access policies that were set.
    pub policies: Vec<(Resource, Policy)>,
    /// The highest revision that was ever given to a policy.
    pub policy_revision_last: u64,
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
    /// With a retention of its own: it keeps every message after this one.
    pub kept_from: Option<Seq>,
    /// The size of all messages that were ever published to it.
    pub bytes: u64,
    /// What was redriven to one subscription, and is none of the others' business.
    pub aimed: Vec<(SubscriptionId, AckedSet)>,
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
    /// Of the bytes of its topic, those that it has settled or never had to.
    pub settled_bytes: u64,
    /// Whether that is counted; if not, it is reckoned.
    pub bytes_exact: bool,
    /// What no seek brings back, a part of `acked`; none when that is all of it.
    pub gone: Option<AckedSet>,
    /// With a filter: what does not match it, and what was never held against it. A part of `acked`.
    pub filtered: Option<AckedSet>,
    /// Whether it is cut off its topic.
    pub detached: bool,
    /// When it was last used, as far as that is written down.
    pub active: Time,
    /// The leases that the last seek ended: this one and all before it.
    pub leases_over: LeaseId,
}

/// What a snapshot of the public API holds: where a subscription stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Bookmark {
    /// Its name.
    pub name: SnapshotName,
    /// The topic of its subscription.
    pub topic: TopicId,
    /// What its owner noted on it.
    pub labels: Labels,
    /// When it is deleted.
    pub expires: Time,
    /// What the subscription had acked.
    pub acked: AckedSet,
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
