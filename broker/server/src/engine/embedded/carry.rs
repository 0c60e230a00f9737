//! Giving space back when a few messages hold a whole segment: they are written again, and the segment goes with the
//! next checkpoint.

use std::collections::{BTreeSet, VecDeque};

use broker_core::{Broker, Seq, TopicId};
use broker_log::{Key, SegmentInfo};

use super::codec::{Payload, Stored, encode_carried};
use super::failure::Failure;
use super::fetch::stored;
use super::store::Reader;

/// A segment is nearly dead when at most this many percent of its bytes are alive.
const LIVE_PERCENT_MAX: u64 = 10;
/// The most messages that are carried out of one segment.
const LIVE_MESSAGES_MAX: usize = 10_000;
/// How many lookups one turn of the engine makes, each for one message and one of those who may need it.
const LOOKUPS_MAX: usize = 10_000;

/// Segments that are looked through, one after the other.
#[derive(Debug)]
pub(super) struct Carry {
    /// The first one is being looked through; of its streams, what is left.
    segments: VecDeque<SegmentInfo>,
    /// What is alive in it.
    live: Vec<(TopicId, Seq)>,
}

/// What comes after a turn of looking.
#[derive(Debug)]
pub(super) enum Step {
    /// Another turn.
    More(Carry),
    /// The messages that are alive in a segment are to be read, and then there is another turn.
    Move(Move, Carry),
    /// Nothing: all segments have been looked through.
    End,
}

/// The messages that are alive in a segment.
#[derive(Debug)]
pub(super) struct Move {
    segment: u64,
    bytes: u64,
    live: Vec<(TopicId, Seq)>,
}

/// Messages that are to be written again, so that their segment can go.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) segment: u64,
    pub(super) entries: Vec<(Key, Payload)>,
}

impl Carry {
    /// The sealed segments that aren't on their way out.
    pub(super) fn choose(segments: &[SegmentInfo], evacuated: &BTreeSet<u64>) -> Option<Self> {
        let stays = |segment: &&SegmentInfo| segment.sealed && !evacuated.contains(&segment.id);
        let segments: VecDeque<_> = segments.iter().filter(stays).cloned().collect();
        (!segments.is_empty()).then_some(Self { segments, live: Vec::new() })
    }

    /// Looks at some messages. Dead ones cost nothing, and a segment with too many live ones is seen at a glance.
    pub(super) fn look(mut self, core: &Broker) -> Step {
        let Some(segment) = self.segments.front_mut() else { return Step::End };
        let mut left = LOOKUPS_MAX;
        while let Some(span) = segment.streams.last_mut() {
            let topic = TopicId(span.stream);
            // What lies at or below the floor is dead, however much it is.
            let floor = core.topic_floor(topic).map_or(span.last, |floor| floor.0);
            span.first = span.first.max(floor.saturating_add(1));
            let mut too_many = core.has_more_live(topic, Seq(span.first), Seq(span.last), LIVE_MESSAGES_MAX as u64);
            while let Some(seq) = core.next_live(topic, Seq(span.first)).filter(|seq| seq.0 <= span.last && !too_many) {
                self.live.push((topic, seq));
                span.first = seq.0 + 1;
                too_many = self.live.len() > LIVE_MESSAGES_MAX;
                left = left.saturating_sub(core.keeper_count(topic));
                if left == 0 && !too_many {
                    return Step::More(self);
                }
            }
            if too_many {
                self.live.clear();
                self.segments.pop_front();
                return Step::More(self);
            }
            segment.streams.pop();
            left = left.saturating_sub(core.keeper_count(topic));
            if left == 0 {
                return Step::More(self);
            }
        }
        let (id, bytes) = (segment.id, segment.bytes);
        self.segments.pop_front();
        Step::Move(Move { segment: id, bytes, live: std::mem::take(&mut self.live) }, self)
    }
}

impl Move {
    /// The entries to write again. None are when the segment holds more live bytes than are worth it.
    pub(super) fn run(&self, reader: &Reader) -> Result<Option<Carried>, Failure> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for &(topic, seq) in &self.live {
            // A copy in another segment is the one that counts.
            let Some(found) = reader.lookup(topic.0, seq.0)?.filter(|found| found.position.segment == self.segment)
            else {
                continue;
            };
            let Stored { first, time, bodies } = stored(&found)?;
            let place = usize::try_from(seq.0 - first).unwrap_or(usize::MAX);
            let body = bodies.get(place).cloned().ok_or(Failure::Missing { topic, seq })?;
            let (key, payload) = encode_carried(topic, Stored { first: seq.0, time, bodies: vec![body] });
            bytes += payload.len() as u64;
            if bytes * 100 > self.bytes * LIVE_PERCENT_MAX {
                return Ok(None);
            }
            entries.push((key, payload));
        }
        Ok(Some(Carried { segment: self.segment, entries }))
    }
}
