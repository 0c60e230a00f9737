//! Checkpoints: all durable state of the core.

use std::collections::BTreeMap;

use broker_core as core;
use broker_core::{
    AckedSet, LeaseId, Seq, Snapshot, SubscriptionId, SubscriptionSnapshot, Time, TopicId, TopicSnapshot, Totals,
};
use bytes::Bytes;
use prost::Message as _;

use super::policy::{policy_of, policy_to};
use super::record::{fail_reason_of, fail_reason_to};
use super::settings::{SubscriptionConfig, TopicConfig, labels_of, labels_to};
use super::wire::Policy;
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
    #[prost(message, repeated, tag = "6")]
    bookmarks: Vec<Bookmark>,
    #[prost(message, repeated, tag = "10")]
    policies: Vec<Policy>,
    #[prost(uint64, tag = "11")]
    policy_revision_last: u64,
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
    #[prost(uint64, optional, tag = "5")]
    kept_from: Option<u64>,
    #[prost(uint64, tag = "6")]
    bytes: u64,
    #[prost(message, repeated, tag = "7")]
    aimed: Vec<Aimed>,
}

/// What was redriven to one subscription.
#[derive(Clone, PartialEq, prost::Message)]
struct Aimed {
    #[prost(uint32, tag = "1")]
    target: u32,
    #[prost(message, optional, tag = "2")]
    messages: Option<Settled>,
}

/// Settled messages.
#[derive(Clone, PartialEq, prost::Message)]
struct Settled {
    #[prost(uint64, tag = "1")]
    floor: u64,
    /// What is settled above the floor, in the portable Roaring format.
    #[prost(bytes = "bytes", tag = "2")]
    above: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bookmark {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    topic: u32,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "4")]
    expires_ms: u64,
    #[prost(message, optional, tag = "5")]
    acked: Option<Settled>,
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
    #[prost(uint64, tag = "11")]
    lost_total: u64,
    #[prost(uint64, tag = "12")]
    filtered_total: u64,
    #[prost(uint64, tag = "13")]
    too_old_total: u64,
    #[prost(message, optional, tag = "14")]
    gone: Option<Settled>,
    #[prost(message, optional, tag = "15")]
    filtered: Option<Settled>,
    #[prost(bool, tag = "16")]
    detached: bool,
    #[prost(uint64, tag = "17")]
    active_ms: u64,
    #[prost(uint32, tag = "18")]
    leases_over_epoch: u32,
    #[prost(uint64, tag = "19")]
    leases_over_number: u64,
    #[prost(uint64, tag = "20")]
    redriven_total: u64,
    #[prost(uint64, tag = "21")]
    settled_bytes: u64,
    #[prost(bool, tag = "22")]
    bytes_exact: bool,
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
        bookmarks: snapshot.bookmarks.iter().map(Bookmark::from).collect(),
        policies: snapshot.policies.iter().map(|(resource, policy)| policy_to(resource, policy)).collect(),
        policy_revision_last: snapshot.policy_revision_last,
    })
}

pub(in crate::engine::embedded) fn decode_checkpoint(bytes: &[u8]) -> Result<Snapshot, CodecError> {
    let Checkpoint {
        epoch,
        topic_id_last,
        subscription_id_last,
        topics,
        subscriptions,
        bookmarks,
        policies,
        policy_revision_last,
    } = Checkpoint::decode(body(bytes)?)?;
    Ok(Snapshot {
        epoch,
        topic_id_last,
        subscription_id_last,
        topics: topics.into_iter().map(TopicSnapshot::try_from).collect::<Result<_, _>>()?,
        subscriptions: subscriptions.into_iter().map(SubscriptionSnapshot::try_from).collect::<Result<_, _>>()?,
        bookmarks: bookmarks.into_iter().map(core::Bookmark::try_from).collect::<Result<_, _>>()?,
        policies: policies.into_iter().map(policy_of).collect::<Result<_, _>>()?,
        policy_revision_last,
    })
}

impl From<&TopicSnapshot> for Topic {
    fn from(topic: &TopicSnapshot) -> Self {
        let TopicSnapshot { id, config, deleted, last, kept_from, bytes, aimed } = topic;
        let aimed_at =
            |(target, set): &(SubscriptionId, AckedSet)| Aimed { target: target.0, messages: Some(set.into()) };
        Self {
            id: id.0,
            config: Some(config.into()),
            deleted: *deleted,
            last: last.0,
            kept_from: kept_from.map(|seq| seq.0),
            bytes: *bytes,
            aimed: aimed.iter().map(aimed_at).collect(),
        }
    }
}

impl TryFrom<Topic> for TopicSnapshot {
    type Error = CodecError;

    fn try_from(topic: Topic) -> Result<Self, CodecError> {
        let Topic { id, config, deleted, last, kept_from, bytes, aimed } = topic;
        let aimed_at = |Aimed { target, messages }| {
            let messages: Settled = messages.ok_or(CodecError::Field("aimed.messages"))?;
            Ok((SubscriptionId(target), messages.try_into()?))
        };
        Ok(Self {
            id: TopicId(id),
            config: config.ok_or(CodecError::Field("topic.config"))?.try_into()?,
            deleted,
            last: Seq(last),
            kept_from: kept_from.map(Seq),
            bytes,
            aimed: aimed.into_iter().map(aimed_at).collect::<Result<_, CodecError>>()?,
        })
    }
}

impl From<&AckedSet> for Settled {
    fn from(set: &AckedSet) -> Self {
        Self { floor: set.floor().0, above: set.above_to_bytes().into() }
    }
}

impl TryFrom<Settled> for AckedSet {
    type Error = CodecError;

    fn try_from(settled: Settled) -> Result<Self, CodecError> {
        Self::from_parts(Seq(settled.floor), &settled.above).map_err(|_| CodecError::Field("settled.above"))
    }
}

impl From<&core::Bookmark> for Bookmark {
    fn from(bookmark: &core::Bookmark) -> Self {
        let core::Bookmark { name, topic, labels, expires, acked } = bookmark;
        Self {
            name: name.to_string(),
            topic: topic.0,
            labels: labels_to(labels),
            expires_ms: expires.0,
            acked: Some(acked.into()),
        }
    }
}

impl TryFrom<Bookmark> for core::Bookmark {
    type Error = CodecError;

    fn try_from(bookmark: Bookmark) -> Result<Self, CodecError> {
        let Bookmark { name, topic, labels, expires_ms, acked } = bookmark;
        Ok(Self {
            name: name.parse().map_err(|_| CodecError::Field("bookmark.name"))?,
            topic: TopicId(topic),
            labels: labels_of(labels)?,
            expires: Time(expires_ms),
            acked: acked.ok_or(CodecError::Field("bookmark.acked"))?.try_into()?,
        })
    }
}

impl From<&SubscriptionSnapshot> for Subscription {
    fn from(subscription: &SubscriptionSnapshot) -> Self {
        // Every field is named, so that one which is added can't be forgotten here.
        let SubscriptionSnapshot {
            id,
            topic,
            config,
            acked,
            failures,
            totals,
            settled_bytes,
            bytes_exact,
            gone,
            filtered,
            detached,
            active,
            leases_over,
        } = subscription;
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
            lost_total: totals.lost,
            filtered_total: totals.filtered,
            too_old_total: totals.too_old,
            gone: gone.as_ref().map(Settled::from),
            filtered: filtered.as_ref().map(Settled::from),
            detached: *detached,
            active_ms: active.0,
            leases_over_epoch: leases_over.epoch,
            leases_over_number: leases_over.number,
            redriven_total: totals.redriven,
            settled_bytes: *settled_bytes,
            bytes_exact: *bytes_exact,
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
                lost: subscription.lost_total,
                filtered: subscription.filtered_total,
                too_old: subscription.too_old_total,
                redriven: subscription.redriven_total,
            },
            settled_bytes: subscription.settled_bytes,
            bytes_exact: subscription.bytes_exact,
            gone: subscription.gone.map(AckedSet::try_from).transpose()?,
            filtered: subscription.filtered.map(AckedSet::try_from).transpose()?,
            detached: subscription.detached,
            active: Time(subscription.active_ms),
            leases_over: LeaseId { epoch: subscription.leases_over_epoch, number: subscription.leases_over_number },
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
        let mut config = core::TopicConfig::new(topic.clone());
        config.retention = Some(core::Retention::default());
        let (id, subscription) = (TopicId(1), SubscriptionId(2));
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        let failed = |seq, attempts, reason| {
            let (seq, not_before) = (Seq(seq), Time(77));
            core::Record::Failed { subscription, seq, attempts, not_before, reason }
        };
        let mut config_of = core::SubscriptionConfig::new(name, topic);
        config_of.filter = Some("attributes:a".parse().unwrap());
        config_of.retain_acked = true;
        let mut other =
            core::SubscriptionConfig::new("projects/p/subscriptions/other".parse().unwrap(), config.name.clone());
        other.expiration = None;
        let filtered = vec![core::Filtered { subscription, ranges: vec![range(4, 4), range(8, 9)], bytes: 30 }];
        let leases = LeaseId { epoch: 1, number: 6 };
        for record in [
            core::Record::Started { epoch: 1 },
            core::Record::TopicCreated { id, config },
            core::Record::SubscriptionCreated {
                id: subscription,
                topic: id,
                config: config_of,
                start: Seq(0),
                time: Time(3),
            },
            core::Record::SubscriptionCreated {
                id: SubscriptionId(3),
                topic: id,
                config: other,
                start: Seq(0),
                time: Time(4),
            },
            core::Record::Published { topic: id, first: Seq(1), count: 10, time: Time(5), bytes: 100, filtered },
            core::Record::Acked { subscription, ranges: vec![range(1, 2), range(5, 6)], bytes: Some(40) },
            core::Record::Redriven {
                subscription,
                seq: Seq(10),
                source_bytes: 10,
                target: SubscriptionId(3),
                to: id,
                as_seq: Seq(11),
                time: Time(6),
                bytes: 5,
            },
            failed(3, 1, FailReason::Nacked),
            failed(3, 2, FailReason::Expired),
            failed(7, 1, FailReason::Nacked),
            core::Record::SnapshotCreated {
                name: "projects/p/snapshots/monday".parse().unwrap(),
                subscription,
                labels: core::Labels::new([("k".to_owned(), "v".to_owned())].into()).unwrap(),
                expires: Time(99),
            },
            core::Record::TopicCut { id, before: Seq(2) },
            core::Record::SubscriptionCut { id: SubscriptionId(3), before: Seq(4) },
            core::Record::Sought { id: SubscriptionId(3), to: core::SeekTo::After(Seq(5)), leases },
            core::Record::SubscriptionDetached { id: SubscriptionId(3) },
            core::Record::Active { id: subscription, time: Time(7) },
            core::Record::PolicySet {
                resource: core::Resource::Subscription(subscription),
                policy: core::Policy { revision: 5, body: vec![9] },
            },
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
