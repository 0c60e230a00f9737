//! Journal entries: the core's records, with the messages that they publish.

use std::hash::{DefaultHasher, Hash, Hasher};

use broker_core::{
    FailReason, Filtered, KeyHash, LeaseId, Record, SeekTo, Seq, SeqRange, SubscriptionId, Time, TopicId,
};
use broker_log::Key;
use bytes::Bytes;
use fail_points::Fault;
use orderflow_proto::google::pubsub::v1::PubsubMessage;
use prost::Message as _;

use super::bodies::{Bodies, Payload, Place};
use super::policy::{policy_of, policy_to};
use super::settings::{labels_of, labels_to};
use super::wire::{
    Acked, Active, Cut, Entry, Fact, Failed, Forwarded, Messages, Published, Redriven, SnapshotCreated, Sought,
    SubscriptionCreated, SubscriptionUpdated, TopicCreated,
};
use super::{CodecError, body, versioned};
use crate::engine::Message;

/// The fields of [`Entry`] for facts that bring messages, which are written here rather than by the derived code.
const PUBLISHED_TAG: u32 = 6;
const FORWARDED_TAG: u32 = 9;
const REDRIVEN_TAG: u32 = 21;

/// Messages as the journal holds them: consecutive numbers of one topic, published at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::embedded) struct Stored {
    pub(in crate::engine::embedded) first: u64,
    pub(in crate::engine::embedded) time: Time,
    /// Each an encoded [`PubsubMessage`] without id and publish time.
    pub(in crate::engine::embedded) bodies: Vec<Bytes>,
}

/// The entries that a record becomes: one, or several for a publication whose messages are large. `bodies` are the
/// messages that a publication or forwarding brings; other records bring none.
pub(in crate::engine::embedded) fn encode_record(
    record: &Record,
    bodies: Bodies,
    mut put: impl FnMut(Option<Key>, Payload),
) {
    let fact = match record {
        Record::Started { epoch } => Fact::Started(*epoch),
        Record::TopicCreated { id, config } => {
            Fact::TopicCreated(TopicCreated { id: id.0, config: Some(config.into()) })
        }
        Record::TopicDeleted { id } => Fact::TopicDeleted(id.0),
        Record::TopicUpdated { id, config } => {
            Fact::TopicUpdated(TopicCreated { id: id.0, config: Some(config.into()) })
        }
        Record::SubscriptionCreated { id, topic, config, start, time } => {
            Fact::SubscriptionCreated(SubscriptionCreated {
                id: id.0,
                topic: topic.0,
                config: Some(config.into()),
                start: start.0,
                time_ms: time.0,
            })
        }
        Record::SubscriptionUpdated { id, config } => {
            Fact::SubscriptionUpdated(SubscriptionUpdated { id: id.0, config: Some(config.into()) })
        }
        Record::SubscriptionDetached { id } => Fact::SubscriptionDetached(id.0),
        Record::Active { id, time } => Fact::Active(Active { id: id.0, time_ms: time.0 }),
        Record::Sought { id, to, leases } => {
            let (after, snapshot) = match to {
                SeekTo::After(seq) => (seq.0, None),
                SeekTo::Snapshot(name) => (0, Some(name.to_string())),
            };
            Fact::Sought(Sought { id: id.0, after, snapshot, epoch: leases.epoch, lease: leases.number })
        }
        Record::SubscriptionCut { id, before } => Fact::SubscriptionCut(Cut { id: id.0, before: before.0 }),
        Record::TopicCut { id, before } => Fact::TopicCut(Cut { id: id.0, before: before.0 }),
        Record::SnapshotCreated { name, subscription, labels, expires } => Fact::SnapshotCreated(SnapshotCreated {
            name: name.to_string(),
            subscription: subscription.0,
            labels: labels_to(labels),
            expires_ms: expires.0,
        }),
        Record::SnapshotUpdated { name, labels, expires } => Fact::SnapshotUpdated(SnapshotCreated {
            name: name.to_string(),
            subscription: 0,
            labels: labels_to(labels),
            expires_ms: expires.0,
        }),
        Record::SnapshotDeleted { name } => Fact::SnapshotDeleted(name.to_string()),
        Record::PolicySet { resource, policy } => Fact::PolicySet(policy_to(resource, policy)),
        Record::SubscriptionDeleted { id } => Fact::SubscriptionDeleted(id.0),
        Record::Published { topic, first, time, count: _, bytes: _, filtered } => {
            let place = Place { fact_tag: PUBLISHED_TAG, messages_tag: 2 };
            let mut first = first.0;
            for chunk in bodies.into_chunks() {
                let (count, key) = (chunk.count as u64, key(topic.0, first, chunk.count));
                let filtered = filtered_to(filtered, first, chunk.count);
                let messages = Messages { first, time_ms: time.0, ..Default::default() };
                let fact = Published { topic: topic.0, messages: None };
                put(Some(key), chunk.into_payload(place, &fact, &messages, filtered));
                first += count;
            }
            return;
        }
        Record::Acked { subscription, ranges, bytes } => {
            Fact::Acked(Acked { subscription: subscription.0, steps: steps_of(ranges), bytes: *bytes })
        }
        Record::Failed { subscription, seq, attempts, not_before, reason } => Fact::Failed(Failed {
            subscription: subscription.0,
            seq: seq.0,
            attempts: *attempts,
            not_before_ms: not_before.0,
            reason: fail_reason_to(*reason),
        }),
        Record::Forwarded { subscription, seq, to, as_seq, time, bytes: _, source_bytes, filtered } => {
            let place = Place { fact_tag: FORWARDED_TAG, messages_tag: 4 };
            let (subscription, seq, to, source_bytes) = (subscription.0, seq.0, to.0, *source_bytes);
            let fact = Forwarded { subscription, seq, to, messages: None, source_bytes };
            let messages = Messages { first: as_seq.0, time_ms: time.0, ..Default::default() };
            for chunk in bodies.into_chunks() {
                let filtered = filtered_to(filtered, as_seq.0, chunk.count);
                put(Some(key(to, as_seq.0, 1)), chunk.into_payload(place, &fact, &messages, filtered));
            }
            return;
        }
        Record::Redriven { subscription, seq, source_bytes, target, to, as_seq, time, bytes: _ } => {
            let place = Place { fact_tag: REDRIVEN_TAG, messages_tag: 6 };
            let (subscription, seq, target, to) = (subscription.0, seq.0, target.0, to.0);
            let fact = Redriven { subscription, seq, source_bytes: *source_bytes, target, to, messages: None };
            let messages = Messages { first: as_seq.0, time_ms: time.0, ..Default::default() };
            for chunk in bodies.into_chunks() {
                put(Some(key(to, as_seq.0, 1)), chunk.into_payload(place, &fact, &messages, Vec::new()));
            }
            return;
        }
    };
    put(None, versioned(&Entry { fact: Some(fact) }).into());
}

/// The entry that writes messages again.
pub(in crate::engine::embedded) fn encode_carried(topic: TopicId, stored: Stored) -> (Key, Payload) {
    let key = key(topic.0, stored.first, stored.bodies.len());
    let Stored { first, time, bodies } = stored;
    let messages = Messages { first, time_ms: time.0, bodies, filtered: Vec::new() };
    let fact = Fact::Carried(Published { topic: topic.0, messages: Some(messages) });
    (key, versioned(&Entry { fact: Some(fact) }).into())
}

/// The record that an entry holds, if it holds one.
pub(in crate::engine::embedded) fn decode_record(payload: &[u8]) -> Result<Option<Record>, CodecError> {
    let fact = Entry::decode(body(payload)?)?.fact.ok_or(CodecError::Field("fact"))?;
    Ok(Some(match fact {
        Fact::Started(epoch) => Record::Started { epoch },
        Fact::TopicCreated(TopicCreated { id, config }) => {
            let config = config.ok_or(CodecError::Field("topic"))?.try_into()?;
            Record::TopicCreated { id: TopicId(id), config }
        }
        Fact::TopicDeleted(id) => Record::TopicDeleted { id: TopicId(id) },
        Fact::TopicUpdated(TopicCreated { id, config }) => {
            let config = config.ok_or(CodecError::Field("topic"))?.try_into()?;
            Record::TopicUpdated { id: TopicId(id), config }
        }
        Fact::SubscriptionCreated(SubscriptionCreated { id, topic, config, start, time_ms }) => {
            Record::SubscriptionCreated {
                id: SubscriptionId(id),
                topic: TopicId(topic),
                config: config.ok_or(CodecError::Field("subscription"))?.try_into()?,
                start: Seq(start),
                time: Time(time_ms),
            }
        }
        Fact::SubscriptionUpdated(SubscriptionUpdated { id, config }) => {
            let config = config.ok_or(CodecError::Field("subscription"))?.try_into()?;
            Record::SubscriptionUpdated { id: SubscriptionId(id), config }
        }
        Fact::SubscriptionDetached(id) => Record::SubscriptionDetached { id: SubscriptionId(id) },
        Fact::Active(Active { id, time_ms }) => Record::Active { id: SubscriptionId(id), time: Time(time_ms) },
        Fact::Sought(Sought { id, after, snapshot, epoch, lease }) => {
            let to = match snapshot {
                None => SeekTo::After(Seq(after)),
                Some(name) => SeekTo::Snapshot(name.parse().map_err(|_| CodecError::Field("sought.snapshot"))?),
            };
            Record::Sought { id: SubscriptionId(id), to, leases: LeaseId { epoch, number: lease } }
        }
        Fact::SubscriptionCut(Cut { id, before }) => {
            Record::SubscriptionCut { id: SubscriptionId(id), before: Seq(before) }
        }
        Fact::TopicCut(Cut { id, before }) => Record::TopicCut { id: TopicId(id), before: Seq(before) },
        Fact::SnapshotCreated(SnapshotCreated { name, subscription, labels, expires_ms }) => Record::SnapshotCreated {
            name: name.parse().map_err(|_| CodecError::Field("snapshot.name"))?,
            subscription: SubscriptionId(subscription),
            labels: labels_of(labels)?,
            expires: Time(expires_ms),
        },
        Fact::SnapshotUpdated(SnapshotCreated { name, subscription: _, labels, expires_ms }) => {
            Record::SnapshotUpdated {
                name: name.parse().map_err(|_| CodecError::Field("snapshot.name"))?,
                labels: labels_of(labels)?,
                expires: Time(expires_ms),
            }
        }
        Fact::SnapshotDeleted(name) => {
            Record::SnapshotDeleted { name: name.parse().map_err(|_| CodecError::Field("snapshot.name"))? }
        }
        Fact::PolicySet(policy) => {
            let (resource, policy) = policy_of(policy)?;
            Record::PolicySet { resource, policy }
        }
        Fact::SubscriptionDeleted(id) => Record::SubscriptionDeleted { id: SubscriptionId(id) },
        Fact::Published(Published { topic, messages }) => {
            let messages = numbered(messages)?;
            let count = u32::try_from(messages.bodies.len()).map_err(|_| CodecError::Field("messages"))?;
            let (first, time) = (Seq(messages.first), Time(messages.time_ms));
            let (bytes, filtered) = (size(&messages.bodies), filtered_of(&messages)?);
            Record::Published { topic: TopicId(topic), first, count, time, bytes, filtered }
        }
        Fact::Acked(Acked { subscription, steps, bytes }) => {
            Record::Acked { subscription: SubscriptionId(subscription), ranges: ranges_of(&steps)?, bytes }
        }
        Fact::Failed(Failed { subscription, seq, attempts, not_before_ms, reason }) => Record::Failed {
            subscription: SubscriptionId(subscription),
            seq: Seq(seq),
            attempts,
            not_before: Time(not_before_ms),
            reason: fail_reason_of(reason)?,
        },
        Fact::Forwarded(Forwarded { subscription, seq, to, messages, source_bytes }) => {
            let messages = single(messages)?;
            Record::Forwarded {
                subscription: SubscriptionId(subscription),
                seq: Seq(seq),
                to: TopicId(to),
                as_seq: Seq(messages.first),
                time: Time(messages.time_ms),
                bytes: size(&messages.bodies),
                source_bytes,
                filtered: filtered_of(&messages)?,
            }
        }
        Fact::Redriven(Redriven { subscription, seq, source_bytes, target, to, messages }) => {
            let messages = single(messages)?;
            Record::Redriven {
                subscription: SubscriptionId(subscription),
                seq: Seq(seq),
                source_bytes,
                target: SubscriptionId(target),
                to: TopicId(to),
                as_seq: Seq(messages.first),
                time: Time(messages.time_ms),
                bytes: size(&messages.bodies),
            }
        }
        Fact::Carried(_) => return Ok(None),
    }))
}

/// Messages of a publication: at least one, with numbers that there are.
fn numbered(messages: Option<Messages>) -> Result<Messages, CodecError> {
    let has_numbers = |messages: &Messages| {
        let after = messages.first.checked_add(messages.bodies.len() as u64);
        messages.first > 0 && !messages.bodies.is_empty() && after.is_some()
    };
    messages.filter(has_numbers).ok_or(CodecError::Field("messages"))
}

/// The one message that goes to another topic.
fn single(messages: Option<Messages>) -> Result<Messages, CodecError> {
    numbered(messages.filter(|messages| messages.bodies.len() == 1))
}

/// The messages that an entry holds.
pub(in crate::engine::embedded) fn decode_messages(payload: &Bytes) -> Result<Stored, CodecError> {
    body(payload)?;
    // Decoding from `Bytes` shares the bodies with the payload instead of copying them.
    let fact = Entry::decode(payload.slice(1..))?.fact;
    let messages = match fact {
        Some(Fact::Published(Published { messages, .. }) | Fact::Carried(Published { messages, .. })) => messages,
        Some(Fact::Forwarded(Forwarded { messages, .. }) | Fact::Redriven(Redriven { messages, .. })) => messages,
        _ => None,
    };
    let Messages { first, time_ms, bodies, filtered: _ } = messages.ok_or(CodecError::Field("messages"))?;
    Ok(Stored { first, time: Time(time_ms), bodies })
}

/// The message in a body.
pub(in crate::engine::embedded) fn message_of(stored: Bytes) -> Result<Message, CodecError> {
    let PubsubMessage { data, attributes, ordering_key, .. } = PubsubMessage::decode(stored)?;
    Ok(Message { data, attributes, ordering_key })
}

/// The hash of the ordering key in a body, if it has one. It is never persisted.
pub(in crate::engine::embedded) fn key_of(stored: &Bytes) -> Result<Option<KeyHash>, CodecError> {
    /// Of a [`PubsubMessage`], the ordering key alone; everything else is skipped.
    #[derive(Clone, PartialEq, prost::Message)]
    struct KeyOnly {
        #[prost(string, tag = "5")]
        ordering_key: String,
    }
    Ok(hash_of(&KeyOnly::decode(stored.clone())?.ordering_key))
}

/// The hash of an ordering key; none of the empty one, which says that there is no order.
pub(in crate::engine::embedded) fn hash_of(ordering_key: &str) -> Option<KeyHash> {
    if ordering_key.is_empty() || fail_points::broken(Fault::BrokerIgnoresOrder) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    ordering_key.hash(&mut hasher);
    Some(KeyHash(hasher.finish()))
}

fn key(stream: u32, first: u64, count: usize) -> Key {
    Key { stream, first, count: u32::try_from(count).unwrap_or(u32::MAX) }
}

/// What is filtered of a chunk of a publication.
fn filtered_to(filtered: &[Filtered], first: u64, count: usize) -> Vec<Acked> {
    let last = first + count as u64 - 1;
    let within = |range: &SeqRange| {
        let (from, to) = (range.first.0.max(first), range.last.0.min(last));
        (from <= to).then_some(SeqRange { first: Seq(from), last: Seq(to) })
    };
    let of_chunk = |Filtered { subscription, ranges, bytes: _ }: &Filtered| {
        let ranges: Vec<SeqRange> = ranges.iter().filter_map(within).collect();
        // The bodies stand beside it and tell their size.
        (!ranges.is_empty()).then(|| Acked { subscription: subscription.0, steps: steps_of(&ranges), bytes: None })
    };
    filtered.iter().filter_map(of_chunk).collect()
}

fn filtered_of(messages: &Messages) -> Result<Vec<Filtered>, CodecError> {
    let of = |Acked { subscription, steps, bytes: _ }: &Acked| {
        let ranges = ranges_of(steps)?;
        let bytes = ranges.iter().map(|range| size(within(messages, range))).sum();
        Ok(Filtered { subscription: SubscriptionId(*subscription), ranges, bytes })
    };
    messages.filtered.iter().map(of).collect()
}

/// The bodies of a range of messages, as far as they are there.
fn within<'a>(messages: &'a Messages, range: &SeqRange) -> &'a [Bytes] {
    let place = |seq: u64| usize::try_from(seq.saturating_sub(messages.first)).unwrap_or(usize::MAX);
    let end = place(range.last.0.saturating_add(1)).min(messages.bodies.len());
    messages.bodies.get(place(range.first.0)..end).unwrap_or_default()
}

fn size(bodies: &[Bytes]) -> u64 {
    bodies.iter().map(|body| body.len() as u64).sum()
}

fn steps_of(ranges: &[SeqRange]) -> Vec<u64> {
    let mut end = 0;
    let mut steps = Vec::with_capacity(2 * ranges.len());
    for range in ranges {
        steps.extend([range.first.0 - end, range.last.0 - range.first.0]);
        end = range.last.0;
    }
    steps
}

fn ranges_of(steps: &[u64]) -> Result<Vec<SeqRange>, CodecError> {
    let mut end = 0_u64;
    let (pairs, rest) = steps.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CodecError::Field("acked.steps"));
    }
    let range = |&[gap, more]: &[u64; 2]| {
        let first = end.checked_add(gap)?;
        end = first.checked_add(more)?;
        Some(SeqRange { first: Seq(first), last: Seq(end) })
    };
    pairs.iter().map(range).collect::<Option<_>>().ok_or(CodecError::Field("acked.steps"))
}

pub(super) fn fail_reason_to(reason: FailReason) -> u32 {
    match reason {
        FailReason::Nacked => 1,
        FailReason::Expired => 2,
        FailReason::Lost => 3,
    }
}

pub(super) fn fail_reason_of(reason: u32) -> Result<FailReason, CodecError> {
    match reason {
        1 => Ok(FailReason::Nacked),
        2 => Ok(FailReason::Expired),
        3 => Ok(FailReason::Lost),
        _ => Err(CodecError::Field("reason")),
    }
}

#[cfg(test)]
mod tests;
