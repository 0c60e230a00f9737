//! Checkpoints: all durable state of the core.

use broker_core as core;
use broker_core::{
    AckedSet, Seq, Snapshot, SubscriptionId, SubscriptionSnapshot, Time, TopicId, TopicSnapshot, Totals,
};
use bytes::Bytes;
use prost::Message as _;

use super::record::{fail_reason_of, fail_reason_to};
use super::settings::{SubscriptionConfig, TopicConfig};
use super::{CodecError, body, versioned};

#[derive(Clone, PartialEq, prost::Message)]
struct Checkpoint {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(uint32, tag = "2")]
    topic_id_last: u32,
    #[prost(uint32, tag = "3")]
    subscription_id_last: u32,
    #[prost(message, repeated, tag = "4")]
    topics: Vec<Topic>,
    #[prost(message, repeated, tag = "5")]
    subscriptions: Vec<Subscription>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Topic {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "2")]
    config: Option<TopicConfig>,
    #[prost(bool, tag = "3")]
    deleted: bool,
    #[prost(uint64, tag = "4")]
    last: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Subscription {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "2")]
    topic: u32,
    #[prost(message, optional, tag = "3")]
    config: Option<SubscriptionConfig>,
    #[prost(uint64, tag = "4")]
    acked_floor: u64,
    /// What is acked above the floor, in the portable Roaring format.
    #[prost(bytes = "bytes", tag = "5")]
    acked_above: Bytes,
    #[prost(message, repeated, tag = "6")]
    failures: Vec<Failure>,
    #[prost(uint64, tag = "7")]
    acked_total: u64,
    #[prost(uint64, tag = "8")]
    nacked_total: u64,
    #[prost(uint64, tag = "9")]
    expired_total: u64,
    #[prost(uint64, tag = "10")]
    dead_lettered_total: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Failure {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint32, tag = "2")]
    attempts: u32,
    #[prost(uint64, tag = "3")]
    not_before_ms: u64,
    #[prost(uint32, tag = "4")]
    reason: u32,
}

pub(in crate::engine::embedded) fn encode_checkpoint(snapshot: &Snapshot) -> Vec<u8> {
    versioned(&Checkpoint {
        epoch: snapshot.epoch,
        topic_id_last: snapshot.topic_id_last,
        subscription_id_last: snapshot.subscription_id_last,
        topics: snapshot.topics.iter().map(Topic::from).collect(),
        subscriptions: snapshot.subscriptions.iter().map(Subscription::from).collect(),
    })
}

pub(in crate::engine::embedded) fn decode_checkpoint(bytes: &[u8]) -> Result<Snapshot, CodecError> {
    let Checkpoint { epoch, topic_id_last, subscription_id_last, topics, subscriptions } =
        Checkpoint::decode(body(bytes)?)?;
    Ok(Snapshot {
        epoch,
        topic_id_last,
        subscription_id_last,
        topics: topics.into_iter().map(TopicSnapshot::try_from).collect::<Result<_, _>>()?,
        subscriptions: subscriptions.into_iter().map(SubscriptionSnapshot::try_from).collect::<Result<_, _>>()?,
    })
}

impl From<&TopicSnapshot> for Topic {
    fn from(topic: &TopicSnapshot) -> Self {
        let TopicSnapshot { id, config, deleted, last } = topic;
        Self { id: id.0, config: Some(config.into()), deleted: *deleted, last: last.0 }
    }
}

impl TryFrom<Topic> for TopicSnapshot {
    type Error = CodecError;

    fn try_from(topic: Topic) -> Result<Self, CodecError> {
        let Topic { id, config, deleted, last } = topic;
        let config = config.ok_or(CodecError::Field("topic.config"))?.try_into()?;
        Ok(Self { id: TopicId(id), config, deleted, last: Seq(last) })
    }
}

impl From<&SubscriptionSnapshot> for Subscription {
    fn from(subscription: &SubscriptionSnapshot) -> Self {
        let SubscriptionSnapshot { id, topic, config, acked, failures, totals } = subscription;
        let failure = |(seq, failure): &(Seq, core::Failure)| Failure {
            seq: seq.0,
            attempts: failure.attempts,
            not_before_ms: failure.not_before.0,
            reason: fail_reason_to(failure.reason),
        };
        Self {
            id: id.0,
            topic: topic.0,
            config: Some(config.into()),
            acked_floor: acked.floor().0,
            acked_above: acked.above_to_bytes().into(),
            failures: failures.iter().map(failure).collect(),
            acked_total: totals.acked,
            nacked_total: totals.nacked,
            expired_total: totals.expired,
            dead_lettered_total: totals.dead_lettered,
        }
    }
}

impl TryFrom<Subscription> for SubscriptionSnapshot {
    type Error = CodecError;

    fn try_from(subscription: Subscription) -> Result<Self, CodecError> {
        let failure = |failure: &Failure| {
            let Failure { seq, attempts, not_before_ms, reason } = *failure;
            let reason = fail_reason_of(reason)?;
            Ok((Seq(seq), core::Failure { attempts, not_before: Time(not_before_ms), reason }))
        };
        Ok(Self {
            id: SubscriptionId(subscription.id),
            topic: TopicId(subscription.topic),
            config: subscription.config.ok_or(CodecError::Field("subscription.config"))?.try_into()?,
            acked: AckedSet::from_parts(Seq(subscription.acked_floor), &subscription.acked_above)
                .map_err(|_| CodecError::Field("subscription.acked_above"))?,
            failures: subscription.failures.iter().map(failure).collect::<Result<_, CodecError>>()?,
            totals: Totals {
                acked: subscription.acked_total,
                nacked: subscription.nacked_total,
                expired: subscription.expired_total,
                dead_lettered: subscription.dead_lettered_total,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use broker_core::{FailReason, SeqRange};

    use super::*;

    fn snapshot() -> Snapshot {
        let topic: core::TopicName = "projects/p/topics/orders".parse().unwrap();
        let name = "projects/p/subscriptions/payment".parse().unwrap();
        let mut recovery = core::Recovery::new();
        let config = core::TopicConfig { name: topic.clone(), labels: core::Labels::default() };
        let (id, subscription) = (TopicId(1), SubscriptionId(2));
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        let failed = |seq, attempts, reason| {
            let (seq, not_before) = (Seq(seq), Time(77));
            core::Record::Failed { subscription, seq, attempts, not_before, reason }
        };
        let config_of = core::SubscriptionConfig::new(name, topic);
        for record in [
            core::Record::Started { epoch: 1 },
            core::Record::TopicCreated { id, config },
            core::Record::SubscriptionCreated { id: subscription, topic: id, config: config_of, start: Seq(0) },
            core::Record::Published { topic: id, first: Seq(1), count: 10, time: Time(5) },
            core::Record::Acked { subscription, ranges: vec![range(1, 2), range(5, 6)] },
            failed(3, 1, FailReason::Nacked),
            failed(3, 2, FailReason::Expired),
            failed(7, 1, FailReason::Nacked),
            core::Record::TopicDeleted { id },
        ] {
            recovery.apply(&record).unwrap();
        }
        recovery.snapshot()
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let snapshot = snapshot();
        assert_eq!(decode_checkpoint(&encode_checkpoint(&snapshot)).unwrap(), snapshot);
        assert_eq!(decode_checkpoint(&encode_checkpoint(&Snapshot::default())).unwrap(), Snapshot::default());
    }

    #[test]
    fn bytes_that_are_no_checkpoint_are_refused_and_never_panic() {
        assert_eq!(decode_checkpoint(&[]), Err(CodecError::Empty));
        assert_eq!(decode_checkpoint(&[9, 1]), Err(CodecError::Version(9)));
        let snapshot = snapshot();
        let bytes = encode_checkpoint(&snapshot);
        for cut in 0..bytes.len() {
            assert_ne!(decode_checkpoint(&bytes[..cut]).as_ref(), Ok(&snapshot), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x81;
            decode_checkpoint(&flipped).ok();
        }
    }
}
