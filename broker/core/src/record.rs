//! What is written to the journal: each record is the whole fact, enough to replay it without any other knowledge.

use crate::config::{Labels, SubscriptionConfig, TopicConfig};
use crate::ids::{LeaseId, Seq, SubscriptionId, Time, TopicId};
use crate::names::SnapshotName;
use crate::policy::{Policy, Resource};

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
    /// The settings of a topic changed.
    TopicUpdated {
        /// Which.
        id: TopicId,
        /// All of them, as they are from now on.
        config: TopicConfig,
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
        /// When.
        time: Time,
    },
    /// The settings of a subscription changed.
    SubscriptionUpdated {
        /// Which.
        id: SubscriptionId,
        /// All of them, as they are from now on.
        config: SubscriptionConfig,
    },
    /// A subscription was cut off its topic, with the loss of all that it held.
    SubscriptionDetached {
        /// Which.
        id: SubscriptionId,
    },
    /// Somebody used a subscription. Written down now and then only, see [`crate::ACTIVE_RECORD_MS`].
    Active {
        /// Which.
        id: SubscriptionId,
        /// When.
        time: Time,
    },
    /// A subscription went to another place in its topic: all failed attempts are forgotten.
    Sought {
        /// Which.
        id: SubscriptionId,
        /// Where to.
        to: SeekTo,
        /// This lease and all before it are over.
        leases: LeaseId,
    },
    /// A subscription gave up all messages before one, as too old: unacked ones, and acked ones that it had kept.
    SubscriptionCut {
        /// Which.
        id: SubscriptionId,
        /// The first message that is not too old.
        before: Seq,
    },
    /// A topic no longer keeps messages before one by itself.
    TopicCut {
        /// Which.
        id: TopicId,
        /// The first message that it still keeps.
        before: Seq,
    },
    /// A snapshot was taken of what a subscription has acked.
    SnapshotCreated {
        /// Its name.
        name: SnapshotName,
        /// Of which subscription.
        subscription: SubscriptionId,
        /// What its owner noted on it.
        labels: Labels,
        /// When it will be deleted.
        expires: Time,
    },
    /// A snapshot was changed.
    SnapshotUpdated {
        /// Which.
        name: SnapshotName,
        /// What its owner notes on it from now on.
        labels: Labels,
        /// When it will be deleted.
        expires: Time,
    },
    /// A snapshot was deleted, or has expired.
    SnapshotDeleted {
        /// Which.
        name: SnapshotName,
    },
    /// A resource got another access policy.
    PolicySet {
        /// Which.
        resource: Resource,
        /// The policy as it is from now on.
        policy: Policy,
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
        /// Their size, all together.
        bytes: u64,
        /// What does not match the filters of subscriptions: settled there from the start.
        filtered: Vec<Filtered>,
    },
    /// Messages were acked.
    Acked {
        /// By which subscription.
        subscription: SubscriptionId,
        /// Which, ascending, without overlap.
        ranges: Vec<SeqRange>,
        /// Their size, all together; none if it is not known of each.
        bytes: Option<u64>,
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
        /// Its size there.
        bytes: u64,
        /// Its size where it came from, if that is known.
        source_bytes: Option<u64>,
        /// The subscriptions of the dead-letter topic whose filters it does not match.
        filtered: Vec<Filtered>,
    },
    /// A dead letter went back: published to one subscription alone, and acked where it was, in one. The caller adds the
    /// body when it encodes the record.
    Redriven {
        /// The subscription that had it as a dead letter.
        subscription: SubscriptionId,
        /// Its number in the topic of that subscription.
        seq: Seq,
        /// Its size there.
        source_bytes: u64,
        /// The subscription that it goes to. All others of its topic count it as settled.
        target: SubscriptionId,
        /// The topic of that subscription, which may be deleted by name.
        to: TopicId,
        /// Its number in that topic.
        as_seq: Seq,
        /// When.
        time: Time,
        /// Its size there.
        bytes: u64,
    },
}

/// The messages of one publication that a subscription does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Whose filter.
    pub subscription: SubscriptionId,
    /// Which messages, ascending, without overlap, at least one.
    pub ranges: Vec<SeqRange>,
    /// Their size, all together.
    pub bytes: u64,
}

/// Where a subscription goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// To right behind a message: it and all before it count as acked, and all after it that are still there as unacked.
    After(Seq),
    /// To where a subscription of the same topic stood when the snapshot was taken.
    Snapshot(SnapshotName),
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

    /// Ascending numbers as ranges; a number that stands there twice counts once.
    pub(crate) fn all(seqs: &[Seq]) -> Vec<SeqRange> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        for seq in seqs {
            match ranges.last_mut() {
                Some(range) if *seq <= range.last.next() => range.last = *seq,
                _ => ranges.push((*seq).into()),
            }
        }
        ranges
    }
}

impl From<Seq> for SeqRange {
    fn from(seq: Seq) -> Self {
        SeqRange { first: seq, last: seq }
    }
}

/// Why a delivery attempt counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// The consumer gave it back.
    Nacked,
    /// The ack deadline passed.
    Expired,
    /// The connection of its consumer was lost while it was out alone, as a suspect.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range_and_doubles_count_once() {
        let seqs = [1, 2, 2, 3, 7, 9, 9].map(Seq);
        let expected = [(1, 3), (7, 7), (9, 9)].map(|(first, last)| SeqRange { first: Seq(first), last: Seq(last) });
        assert_eq!(SeqRange::all(&seqs), expected);
    }
}
