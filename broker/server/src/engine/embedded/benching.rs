//! The codec, for benchmarks.

use bytes::Bytes;

use broker_core::{Record, Seq, Time, TopicId};

use super::codec::{Bodies, decode_messages, decode_record, encode_record, message_of};
use crate::engine::{Body, Message};

/// Messages as a publisher sends them.
#[derive(Clone, Debug)]
pub struct Messages(Vec<Body>);

impl Messages {
    /// So many messages of this size.
    #[must_use]
    pub fn new(count: usize, bytes: usize) -> Self {
        let data = Bytes::from(vec![7; bytes]);
        Self(vec![Body::from(Message { data, ..Default::default() }); count])
    }
}

/// A publication as the journal holds it.
#[derive(Debug)]
pub struct Encoded(Vec<Bytes>);

impl Encoded {
    /// Encodes messages, as a publish does.
    #[must_use]
    pub fn new(messages: Messages) -> Self {
        let mut bodies = Bodies::default();
        messages.0.iter().for_each(|body| bodies.push(body.encoded()));
        let count = u32::try_from(messages.0.len()).unwrap_or(u32::MAX);
        let bytes = bodies.bytes() as u64;
        let (topic, first, time) = (TopicId(1), Seq(1), Time(1_700_000_000_000));
        let record = Record::Published { topic, first, count, time, bytes, filtered: Vec::new() };
        let mut entries = Vec::new();
        encode_record(&record, bodies, |_, payload| entries.push(payload.pieces().concat().into()));
        Self(entries)
    }

    /// Decodes all messages, as a delivery does; gives how many there are.
    #[must_use]
    pub fn messages(&self) -> usize {
        let stored = self.0.iter().filter_map(|entry| decode_messages(entry).ok());
        stored.flat_map(|stored| stored.bodies).filter_map(|body| message_of(body).ok()).count()
    }

    /// Decodes the record, as a recovery does; tells whether there is one.
    #[must_use]
    pub fn has_record(&self) -> bool {
        self.0.iter().all(|entry| decode_record(entry).is_ok_and(|record| record.is_some()))
    }
}
