//! What can go wrong.

use crate::ids::{ConsumerId, Seq, SubscriptionId, TopicId};
use crate::names::{NameError, SnapshotName, SubscriptionName, TopicName};

/// Why a call was refused. A refused call has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name is taken by a topic.
    #[error("topic `{0}` already exists")]
    TopicExists(TopicName),
    /// The name is taken by a subscription.
    #[error("subscription `{0}` already exists")]
    SubscriptionExists(SubscriptionName),
    /// The name is taken by a snapshot.
    #[error("snapshot `{0}` already exists")]
    SnapshotExists(SnapshotName),
    /// There is no such topic.
    #[error("topic `{0}` does not exist")]
    TopicNotFound(TopicName),
    /// There is no such subscription.
    #[error("subscription `{0}` does not exist")]
    SubscriptionNotFound(SubscriptionName),
    /// There is no such snapshot.
    #[error("snapshot `{0}` does not exist")]
    SnapshotNotFound(SnapshotName),
    /// The subscription is cut off its topic for good: it can only be looked at, changed and deleted.
    #[error("subscription `{0}` is detached from its topic")]
    Detached(SubscriptionName),
    /// A value is outside of its range.
    #[error("`{field}`: {why}")]
    InvalidArgument {
        /// The field by its name in the public API.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A limit is reached.
    #[error("no more than {max} {what} are possible")]
    ResourceExhausted {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The caller gave the same consumer id twice.
    #[error("consumer `{0}` is already attached")]
    ConsumerAttached(ConsumerId),
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Error::InvalidArgument { field: "name", why: error.to_string() }
    }
}

/// A record or snapshot that cannot follow from what came before it: the journal is not ours, or a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An epoch that is not the next one.
    #[error("epoch {found} follows epoch {last}")]
    Epoch {
        /// The epoch that stands.
        last: u32,
        /// The epoch that was to follow.
        found: u32,
    },
    /// An id or name that is taken already, or that is not newer than all before it.
    #[error("topic {0} is created twice")]
    TopicTwice(TopicId),
    /// An id or name that is taken already, or that is not newer than all before it.
    #[error("subscription {0} is created twice")]
    SubscriptionTwice(SubscriptionId),
    /// The topic is not there, or was deleted.
    #[error("topic {0} does not exist")]
    TopicUnknown(TopicId),
    /// The subscription is not there.
    #[error("subscription {0} does not exist")]
    SubscriptionUnknown(SubscriptionId),
    /// The subscription is detached, or is detached twice.
    #[error("subscription {0} is detached")]
    SubscriptionDetached(SubscriptionId),
    /// A snapshot's name that is taken already.
    #[error("snapshot `{0}` is created twice")]
    SnapshotTwice(SnapshotName),
    /// The snapshot is not there.
    #[error("snapshot `{0}` does not exist")]
    SnapshotUnknown(SnapshotName),
    /// A setting that never changes, or a snapshot of another topic.
    #[error("`{0}` does not fit what stands")]
    Misfit(String),
    /// The numbers of a topic's messages have a gap or repeat.
    #[error("message {found} follows message {last} of topic {topic}")]
    Gap {
        /// The topic.
        topic: TopicId,
        /// Its last message.
        last: Seq,
        /// The message that was to follow.
        found: Seq,
    },
    /// A message that the topic never had, or that the subscription has settled already.
    #[error("message {seq} is not unacked in subscription {subscription}")]
    NotUnacked {
        /// The subscription.
        subscription: SubscriptionId,
        /// The message.
        seq: Seq,
    },
    /// A count of failed attempts that does not grow by one.
    #[error("message {seq} of subscription {subscription} has failed attempt {found} after {last}")]
    Attempts {
        /// The subscription.
        subscription: SubscriptionId,
        /// The message.
        seq: Seq,
        /// The count that stands.
        last: u32,
        /// The count that was to follow.
        found: u32,
    },
    /// A set of messages that does not decode.
    #[error("the set of acked messages does not decode: {0}")]
    SeqSet(String),
}
