//! Reading messages back from the journal. Everything here blocks, so it runs on threads that may.

use std::collections::HashMap;

use broker_core::{Delivery, Meta, Seq, Time, TopicId};
use broker_log::{Disk, Found};
use bytes::Bytes;

use super::codec::{Stored, body_of, decode_messages, key_of, message_of};
use super::dead_letter::Provenance;
use super::failure::Failure;
use super::store::Reader;
use crate::engine::Message;

/// Two numbers at most this far apart are fetched by one scan; the messages between them are read for nothing.
const SCAN_GAP_MAX: u64 = 64;
/// How much one scan asks for, in bytes.
const SCAN_BYTES_MAX: u64 = 1 << 20;
/// How many entries one scan asks for.
const SCAN_ENTRIES_MAX: usize = 1_024;

/// What the window of a subscription asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) topic: TopicId,
    pub(super) from: Seq,
    pub(super) messages_max: usize,
    /// The last message of the topic when the load was asked for.
    pub(super) last: Seq,
}

/// A message that goes to its dead-letter topic.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) topic: TopicId,
    pub(super) seq: Seq,
    pub(super) provenance: Provenance,
}

impl Load {
    /// What is in the journal from the first message on, and the number after the last one that was looked at.
    pub(super) fn run<D: Disk>(&self, reader: &broker_log::Reader<D>) -> Result<(Vec<(Seq, Meta)>, Seq), Failure> {
        let mut metas = Vec::new();
        let mut next = self.from;
        loop {
            let wanted = (self.messages_max - metas.len()) as u64;
            let numbers = next.0..=next.0.saturating_add(wanted);
            let mut entries = reader.scan_range(self.topic.0, numbers, SCAN_ENTRIES_MAX, SCAN_BYTES_MAX)?;
            if entries.is_empty() {
                // There may be a gap.
                entries = reader.scan(self.topic.0, next.0, 1, 0)?;
            }
            if entries.is_empty() {
                // What is not there any more was not needed any more.
                return Ok((metas, next.max(self.last.next())));
            }
            for found in entries {
                for (seq, body) in numbered(&found)?.filter(|(seq, _)| *seq >= next) {
                    if metas.len() == self.messages_max || seq > self.last {
                        let next = if seq > self.last { self.last.next() } else { seq };
                        return Ok((metas, next));
                    }
                    metas.push((seq, meta_of(&body).map_err(entry_error(&found))?));
                }
                next = next.max(Seq(found.key.last() + 1));
            }
        }
    }
}

impl Forward {
    /// The message as it will stand in the dead-letter topic, and its attributes there.
    pub(super) fn run(&self, reader: &Reader) -> Result<(Bytes, Meta, HashMap<String, String>), Failure> {
        let missing = || Failure::Missing { topic: self.topic, seq: self.seq };
        let found = reader.lookup(self.topic.0, self.seq.0)?.ok_or_else(missing)?;
        let stored = stored(&found)?;
        let time = stored.time;
        let (_, body) = numbered(&found)?.find(|(seq, _)| *seq == self.seq).ok_or_else(missing)?;
        let mut message = message_of(body).map_err(entry_error(&found))?;
        message.attributes.extend(self.provenance.attributes(time));
        let (body, attributes) = body_of(message);
        let meta = meta_of(&body).map_err(entry_error(&found))?;
        Ok((body, meta, attributes))
    }
}

/// A message with its time, as it was fetched for a delivery.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) delivery: Delivery,
    pub(super) time: Time,
    pub(super) message: Message,
}

/// The messages of deliveries from one topic, in the order of the deliveries; none stands for one that isn't there.
pub(super) fn fetch<D: Disk>(
    reader: &broker_log::Reader<D>,
    topic: TopicId,
    deliveries: &[Delivery],
) -> Result<Vec<Option<Fetched>>, Failure> {
    let mut order: Vec<usize> = (0..deliveries.len()).collect();
    order.sort_by_key(|&at| deliveries[at].seq);
    let mut fetched: Vec<Option<Fetched>> = deliveries.iter().map(|_| None).collect();
    let mut rest = &order[..];
    while let Some((&at, later)) = rest.split_first() {
        let seq = deliveries[at].seq;
        let is_near = |before: &mut Seq, &next: &usize| {
            let before = std::mem::replace(before, deliveries[next].seq);
            (deliveries[next].seq.0 - before.0 <= SCAN_GAP_MAX).then_some(deliveries[next].seq)
        };
        let last = later.iter().scan(seq, is_near).last().unwrap_or(seq);
        let entries = reader.scan_range(topic.0, seq.0..=last.0, SCAN_ENTRIES_MAX, SCAN_BYTES_MAX)?;
        for found in &entries {
            rest = take(found, deliveries, rest, &mut fetched)?;
        }
        // What no entry covers isn't there.
        rest = skip_to(rest, deliveries, entries.last().map_or(seq.0, |found| found.key.last()));
    }
    Ok(fetched)
}

/// Takes from an entry what is wanted of it; answers what is left to find.
fn take<'o>(
    found: &Found,
    deliveries: &[Delivery],
    order: &'o [usize],
    fetched: &mut [Option<Fetched>],
) -> Result<&'o [usize], Failure> {
    let order = if found.key.first == 0 { order } else { skip_to(order, deliveries, found.key.first - 1) };
    let stored = stored(found)?;
    let mut rest = order;
    while let Some((&at, later)) = rest.split_first() {
        let delivery = deliveries[at];
        if !found.key.contains(delivery.seq.0) {
            break;
        }
        let place = usize::try_from(delivery.seq.0 - found.key.first).unwrap_or(usize::MAX);
        let missing = Failure::Missing { topic: TopicId(found.key.stream), seq: delivery.seq };
        let body = stored.bodies.get(place).cloned().ok_or(missing)?;
        let message = message_of(body).map_err(entry_error(found))?;
        fetched[at] = Some(Fetched { delivery, time: stored.time, message });
        rest = later;
    }
    Ok(rest)
}

/// Leaves out what is wanted up to `last`.
fn skip_to<'o>(order: &'o [usize], deliveries: &[Delivery], last: u64) -> &'o [usize] {
    let passed = order.iter().take_while(|&&at| deliveries[at].seq.0 <= last).count();
    &order[passed..]
}

/// What the core wants to know of a message.
pub(super) fn meta_of(body: &Bytes) -> Result<Meta, super::codec::CodecError> {
    Ok(Meta { bytes: u32::try_from(body.len()).unwrap_or(u32::MAX), key: key_of(body)? })
}

/// The messages of an entry with their numbers.
pub(super) fn numbered(found: &Found) -> Result<impl Iterator<Item = (Seq, Bytes)> + use<>, Failure> {
    let stored = stored(found)?;
    Ok((stored.first..).map(Seq).zip(stored.bodies))
}

pub(super) fn stored(found: &Found) -> Result<Stored, Failure> {
    decode_messages(&found.payload).map_err(entry_error(found))
}

fn entry_error(found: &Found) -> impl Fn(super::codec::CodecError) -> Failure + use<> {
    let position = found.position;
    move |source| Failure::Entry { position, source }
}

/// When a message was published, of those from `from` on the first one that is there; with the last number that was
/// published together with it.
fn published(reader: &Reader, topic: TopicId, from: Seq) -> Result<Option<(Seq, Time)>, Failure> {
    let found = reader.scan(topic.0, from.0, 1, 0)?;
    found.first().map(|found| Ok((Seq(found.key.last()), stored(found)?.time))).transpose()
}

/// When the first message from `from` on was published.
pub(super) fn published_at(reader: &Reader, topic: TopicId, from: Seq) -> Result<Option<Time>, Failure> {
    Ok(published(reader, topic, from)?.map(|(_, time)| time))
}

/// Of the messages `first..=last`, the first that was not published before `time`; the number after them if all were.
/// A binary search: times of publication do not go back.
pub(super) fn first_since(reader: &Reader, topic: TopicId, first: Seq, last: Seq, time: Time) -> Result<Seq, Failure> {
    // All that is there below `low` was published before the time, and nothing that is there from `high` on.
    let (mut low, mut high) = (first.0, last.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match published(reader, topic, Seq(middle))? {
            Some((end, published)) if published < time => low = high.min(end.0 + 1),
            _ => high = middle,
        }
    }
    Ok(Seq(low))
}
