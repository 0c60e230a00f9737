//! What is written to the journal: each record is the whole fact, enough to replay it without any other knowledge.

use crate::config::{SubscriptionConfig, TopicConfig};
use crate::ids::{Seq, SubscriptionId, Time, TopicId};

/// A durable change. State changes by [`Record`]s only, live and in replay alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The broker started; leases of all earlier epochs are over.
    Started {
        /// One more than the epoch before, from 1.
        epoch: u32,
    },
    /// A topic was created.
    TopicCreated {
        /// Its id, for good.
        id: TopicId,
        /// As it was asked for.
        config: TopicConfig,
    },
    /// A topic was deleted. What its subscriptions hold stays deliverable.
    TopicDeleted {
        /// Which.
        id: TopicId,
    },
    /// A subscription was created.
    SubscriptionCreated {
        /// Its id, for good.
        id: SubscriptionId,
        /// Its topic.
        topic: TopicId,
        /// As it was asked for.
        config: SubscriptionConfig,
        /// The last message of the topic that the subscription does not see.
        start: Seq,
    },
    /// A subscription was deleted, with all that it held.
    SubscriptionDeleted {
        /// Which.
        id: SubscriptionId,
    },
    /// Messages were published. The caller adds their bodies when it encodes the record.
    Published {
        /// The topic.
        topic: TopicId,
        /// The number of the first message.
        first: Seq,
        /// How many, at least one.
        count: u32,
        /// When.
        time: Time,
    },
    /// Messages were acked.
    Acked {
        /// By which subscription.
        subscription: SubscriptionId,
        /// Which, ascending, without overlap.
        ranges: Vec<SeqRange>,
    },
    /// A delivery attempt failed.
    Failed {
        /// In which subscription.
        subscription: SubscriptionId,
        /// Which message.
        seq: Seq,
        /// How many attempts have failed, this one included.
        attempts: u32,
        /// When the message may be delivered again.
        not_before: Time,
        /// Why.
        reason: FailReason,
    },
    /// A message went to the dead-letter topic: the publication there and the ack at the source in one. The caller adds
    /// the body when it encodes the record.
    Forwarded {
        /// The subscription that gave it up.
        subscription: SubscriptionId,
        /// Its number in the topic of that subscription.
        seq: Seq,
        /// The dead-letter topic.
        to: TopicId,
        /// Its number in the dead-letter topic.
        as_seq: Seq,
        /// When.
        time: Time,
    },
}

/// Messages `first..=last` of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqRange {
    /// The first one.
    pub first: Seq,
    /// The last one, not below the first.
    pub last: Seq,
}

impl SeqRange {
    /// How many.
    pub fn count(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }
}

/// Why a delivery attempt counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// The consumer gave it back.
    Nacked,
    /// The ack deadline passed.
    Expired,
}
