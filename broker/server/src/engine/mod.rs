//! The seam between the gRPC layer and whatever keeps the messages.
//!
//! **Invariant:** the gRPC layer talks to an [`Engine`] only, in the terms of this module: names, settings, messages,
//! leases, ack ids. How an engine numbers and stores them is its own affair.

mod body;
pub(crate) mod embedded;
mod inspect;
pub(crate) mod replicated;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use broker_core::{
    AckDeadline, Labels, Policy, ProjectName, ResourceName, Retention, SnapshotName, SubscriptionConfig,
    SubscriptionName, Time, TopicConfig, TopicName,
};
use bytes::Bytes;
use tokio::sync::watch;

pub(crate) use body::{Body, Field, Fields, MessageIds, Pieces, Unusual};
pub(crate) use inspect::{
    JournalStats, Peek, Peeked, PeekedMessage, Redrive, Redriven, SKIPPED_SHOWN_MAX, SkipReason, Skipped, Stats,
    SubscriptionStats, TopicStats,
};

/// How long a snapshot lives that keeps no message, in milliseconds: 7 days. The age of the oldest message that it keeps
/// is taken from that.
pub(crate) const SNAPSHOT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;
/// How long a snapshot must live at least to be taken, in milliseconds: an hour.
pub(crate) const SNAPSHOT_MS_MIN: u64 = 60 * 60 * 1_000;

/// What keeps topics, subscriptions and messages, and gives messages out on leases.
///
/// A call that changes something returns once the change is durable.
pub(crate) trait Engine: Clone + Send + Sync + 'static {
    /// A stream of leases.
    type Leases: Leases;

    /// Creates a topic.
    fn create_topic(&self, config: TopicConfig) -> impl Future<Output = Result<(), Error>> + Send;
    /// A topic's settings.
    fn topic(&self, name: TopicName) -> impl Future<Output = Result<TopicConfig, Error>> + Send;
    /// The topics of a project by name.
    fn topics(
        &self,
        project: ProjectName,
        page: Page<TopicName>,
    ) -> impl Future<Output = Result<Vec<TopicConfig>, Error>> + Send;
    /// Changes a topic's settings to what `change` makes of those that stand; answers with the new ones.
    fn update_topic(
        &self,
        name: TopicName,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Error> + Send + 'static,
    ) -> impl Future<Output = Result<TopicConfig, Error>> + Send;
    /// Deletes a topic; its subscriptions keep what they hold.
    fn delete_topic(&self, name: TopicName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Creates a subscription. It sees what is published from now on.
    fn create_subscription(&self, config: SubscriptionConfig) -> impl Future<Output = Result<(), Error>> + Send;
    /// A subscription's settings.
    fn subscription(&self, name: SubscriptionName) -> impl Future<Output = Result<Subscription, Error>> + Send;
    /// The subscriptions of a project by name.
    fn subscriptions(
        &self,
        project: ProjectName,
        page: Page<SubscriptionName>,
    ) -> impl Future<Output = Result<Vec<Subscription>, Error>> + Send;
    /// The subscriptions of a topic by name.
    fn topic_subscriptions(
        &self,
        topic: TopicName,
        page: Page<SubscriptionName>,
    ) -> impl Future<Output = Result<Vec<SubscriptionName>, Error>> + Send;
    /// Changes a subscription's settings to what `change` makes of those that stand; answers with the new ones.
    fn update_subscription(
        &self,
        name: SubscriptionName,
        change: impl FnOnce(&SubscriptionConfig) -> Result<SubscriptionConfig, Error> + Send + 'static,
    ) -> impl Future<Output = Result<Subscription, Error>> + Send;
    /// Cuts a subscription off its topic, for good; it loses all that it holds.
    fn detach_subscription(&self, name: SubscriptionName) -> impl Future<Output = Result<(), Error>> + Send;
    /// Takes a subscription to another place in its topic. All its leases end.
    fn seek(&self, name: SubscriptionName, to: Seek) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a snapshot of what a subscription has acked. How long it lives depends on how old its backlog is.
    fn create_snapshot(
        &self,
        name: SnapshotName,
        subscription: SubscriptionName,
        labels: Labels,
    ) -> impl Future<Output = Result<Snapshot, Error>> + Send;
    /// A snapshot as it stands.
    fn snapshot(&self, name: SnapshotName) -> impl Future<Output = Result<Snapshot, Error>> + Send;
    /// The snapshots of a project by name.
    fn snapshots(
        &self,
        project: ProjectName,
        page: Page<SnapshotName>,
    ) -> impl Future<Output = Result<Vec<Snapshot>, Error>> + Send;
    /// The snapshots of a topic by name.
    fn topic_snapshots(
        &self,
        topic: TopicName,
        page: Page<SnapshotName>,
    ) -> impl Future<Output = Result<Vec<SnapshotName>, Error>> + Send;
    /// Sets a snapshot's labels and the time when it expires to what `change` makes of it; answers with the new one.
    fn update_snapshot(
        &self,
        name: SnapshotName,
        change: impl FnOnce(&Snapshot) -> Result<(Labels, Time), Error> + Send + 'static,
    ) -> impl Future<Output = Result<Snapshot, Error>> + Send;
    /// Deletes a snapshot; what only it has kept is gone.
    fn delete_snapshot(&self, name: SnapshotName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes a subscription with all that it holds.
    fn delete_subscription(&self, name: SubscriptionName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Publishes messages; their ids come back in the same order.
    fn publish(&self, topic: TopicName, bodies: Vec<Body>) -> impl Future<Output = Result<MessageIds, Error>> + Send;

    /// Leases some messages. Safe to cancel: what is under way then goes back, and no attempt is counted.
    fn pull(
        &self,
        subscription: SubscriptionName,
        pull: Pull,
    ) -> impl Future<Output = Result<Vec<Lease>, Error>> + Send;
    /// Opens a stream of leases.
    fn subscribe(
        &self,
        subscription: SubscriptionName,
        flow: Flow,
    ) -> impl Future<Output = Result<Self::Leases, Error>> + Send;
    /// Acks what the ids stand for. An id whose lease has ended is no error.
    fn acknowledge(
        &self,
        subscription: SubscriptionName,
        ack_ids: Vec<AckId>,
    ) -> impl Future<Output = Result<Confirmation, Error>> + Send;
    /// Lets leases end `deadline_ms` from now; 0 gives the messages back. A lease that has ended is no error.
    fn modify_ack_deadline(
        &self,
        subscription: SubscriptionName,
        changes: Vec<DeadlineChange>,
    ) -> impl Future<Output = Result<Confirmation, Error>> + Send;

    /// Takes back leases whose messages never reached a consumer: no attempt is counted. Those that have ended, and ids
    /// that are none, are passed over.
    fn give_back(&self, ack_ids: Vec<AckId>);

    /// The subscriptions of all projects whose messages are pushed.
    fn pushed(&self) -> impl Future<Output = Result<Vec<Subscription>, Error>> + Send;
    /// Tells that the answer of [`pushed`](Self::pushed) may be another one from now on.
    fn push_changes(&self) -> watch::Receiver<u64>;

    /// The access policy of a resource; the default one if none was set.
    fn policy(&self, resource: ResourceName) -> impl Future<Output = Result<Policy, Error>> + Send;
    /// Sets the access policy of a resource to what `change` makes of the one that stands; answers with the new one.
    fn update_policy(
        &self,
        resource: ResourceName,
        change: impl FnOnce(&Policy) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> impl Future<Output = Result<Policy, Error>> + Send;

    /// How everything stands.
    fn stats(&self) -> impl Future<Output = Result<Stats, Error>> + Send;
    /// Shows a part of a backlog, the oldest messages first. Takes nothing from it.
    fn peek(&self, subscription: SubscriptionName, peek: Peek) -> impl Future<Output = Result<Peeked, Error>> + Send;
    /// Takes dead letters back to the subscriptions that they came from, and to no other.
    fn redrive(
        &self,
        subscription: SubscriptionName,
        redrive: Redrive,
    ) -> impl Future<Output = Result<Redriven, Error>> + Send;
}

/// A stream of leases. Dropping it ends it like [`Ending::Graceful`].
pub(crate) trait Leases: Send + 'static {
    /// A handle that changes the stream while somebody waits for its next leases.
    type Control: LeaseControl;

    /// The next leases, at least one. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Lease>, Error>> + Send;
    /// Whether messages with one ordering key come in order.
    fn is_ordered(&self) -> bool;
    /// Whether only the lease that stands can ack a message, as the subscription has it now.
    fn is_exactly_once(&self) -> bool;
    /// A handle for changes.
    fn control(&self) -> Self::Control;
    /// Ends the stream.
    fn end(self, ending: Ending);
}

/// Changes a stream of leases.
pub(crate) trait LeaseControl: Send + Sync + 'static {
    /// Sets how long later leases last.
    fn set_ack_deadline(&self, deadline: AckDeadline) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How a stream of leases ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The consumer lives on: its leases run to their deadlines, and it may still ack them.
    Graceful,
    /// The consumer is gone: its leases go back at once, and no attempt is counted.
    ConnectionLost,
}

/// A message as it was published: parsed, within its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) data: Bytes,
    pub(crate) attributes: HashMap<String, String>,
    /// Empty: unordered.
    pub(crate) ordering_key: String,
}

/// A message that somebody holds until a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) ack_id: AckId,
    pub(crate) message_id: MessageId,
    pub(crate) publish_time_ms: u64,
    /// The how-manieth delivery this is, if the subscription has a dead-letter policy.
    pub(crate) attempt: Option<u32>,
    pub(crate) message: Message,
}

/// Names a lease to its engine; opaque text to everybody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AckId(pub(crate) String);

/// Names a message; unique in its topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageId(pub(crate) String);

/// A new deadline for one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadlineChange {
    pub(crate) ack_id: AckId,
    pub(crate) deadline_ms: u32,
}

/// What became of a request on leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// Whether the subscription promises that what is confirmed holds. If it does not, a failure is none of the
    /// client's concern.
    pub(crate) exactly_once: bool,
    /// What was done, or had been done before.
    pub(crate) done: Vec<AckId>,
    /// The leases that have ended, or never were: trying again does not help.
    pub(crate) failed: Vec<AckId>,
}

/// Where a subscription goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// To the first message that was not published before this time; behind the last one if the time has yet to come.
    Time(Time),
    /// To where the snapshot was taken.
    Snapshot(SnapshotName),
}

/// What a stream of leases asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// The most messages that are out at a time; 0 leaves it to the engine.
    pub(crate) messages_max: u32,
    /// The most bytes that are out at a time; 0 leaves it to the engine.
    pub(crate) bytes_max: u64,
    /// How long each lease lasts.
    pub(crate) ack_deadline: AckDeadline,
}

/// What a pull asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pull {
    /// The most messages.
    pub(crate) messages_max: u32,
    /// The most bytes, unless the first message has more; 0 leaves it to the engine.
    pub(crate) bytes_max: u64,
    /// How long each lease lasts; none leaves it to the subscription.
    pub(crate) ack_deadline: Option<AckDeadline>,
    /// How long it waits for the first message.
    pub(crate) patience: Duration,
    /// Who asks.
    pub(crate) taker: Taker,
}

/// Who takes messages: a subscription has either the one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    /// A client that pulls.
    Client,
    /// The broker itself, to push them.
    Pusher,
}

/// A part of a list that is sorted by name.
#[derive(Clone, Debug)]
pub(crate) struct Page<N> {
    /// The last name of the page before.
    pub(crate) after: Option<N>,
    /// The most that is wanted.
    pub(crate) limit: usize,
}

/// A subscription's settings as they stand.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) config: SubscriptionConfig,
    /// The topic was deleted since.
    pub(crate) topic_deleted: bool,
    /// For how long the topic keeps messages by itself.
    pub(crate) topic_retention: Option<Retention>,
    /// It was cut off its topic.
    pub(crate) detached: bool,
}

impl Subscription {
    /// A subscription that was just created.
    pub(crate) fn new(config: SubscriptionConfig) -> Self {
        Self { config, topic_deleted: false, topic_retention: None, detached: false }
    }
}

/// A snapshot as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) name: SnapshotName,
    /// None once it is deleted.
    pub(crate) topic: Option<TopicName>,
    pub(crate) labels: Labels,
    pub(crate) expires: Time,
}

/// Why an engine refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The core refused.
    #[error(transparent)]
    Refused(#[from] broker_core::Error),
    /// An ack id that no engine of this kind gave out.
    #[error("`{0}` is not an ack id")]
    AckId(String),
    /// A change of settings that cannot be.
    #[error("`{field}`: {why}")]
    Setting { field: String, why: String },
    /// Leases that were needed have ended, or never were.
    #[error("{} of the ack ids stand for no lease any more", .0.len())]
    Leases(Vec<AckId>),
    /// A snapshot would expire at once.
    #[error("`{0}` holds a message so old that a snapshot would not last an hour")]
    BacklogTooOld(SubscriptionName),
    /// A client pulls what is pushed, or the broker pushes what is pulled.
    #[error("messages of subscription `{subscription}` can't be taken by {}", match .by { Taker::Client => "pulling, since they are pushed", Taker::Pusher => "pushing, since they are pulled" })]
    Taker { subscription: SubscriptionName, by: Taker },
    /// Somebody else has changed the policy.
    #[error("the policy of `{0}` is not the one that the etag names any more")]
    PolicyChanged(ResourceName),
    /// Too much is waiting already.
    #[error("the broker is busy: {0} is full")]
    Busy(&'static str),
    /// The engine stops, or has failed.
    #[error("the broker is stopping")]
    Unavailable,
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
