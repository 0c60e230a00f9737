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
