//! Messages on their way into the journal.
//!
//! They are put down once, as the entry will hold them: one behind the other in one buffer. Nothing on the way looks at them
//! again, and the journal copies them straight into its frames.

use std::collections::HashMap;

use bytes::Bytes;
use orderflow_proto::google::pubsub::v1::PubsubMessage;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::VERSION;
use super::wire::{Acked, Messages};
use crate::engine::Message;

/// A chunk is closed when it has this many bytes of bodies, so that reading one message does not read thousands.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Memory for a little more than is expected costs less than moving what is there.
const MARGIN_BYTES: usize = 32;
/// The field of [`Messages`] that holds a body.
const BODY_TAG: u32 = 3;

/// The messages of a publication, in chunks that become an entry each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine::embedded) struct Bodies {
    chunks: Vec<Chunk>,
    bytes: usize,
    /// How much memory is worth having ahead, in bytes.
    expected_bytes: usize,
}

/// Messages that go into one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The field `bodies` of [`Messages`], as often as there are messages.
    encoded: Vec<u8>,
    /// How many there are.
    pub(super) count: usize,
    /// Their size, without what stands before each.
    bytes: usize,
}

/// What an entry holds: the bodies, and what stands before and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine::embedded) struct Payload {
    head: Vec<u8>,
    bodies: Vec<u8>,
    tail: Vec<u8>,
}

/// Where the messages of a fact stand in an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The field of the fact in the entry.
    pub(super) fact_tag: u32,
    /// The field of the messages in the fact.
    pub(super) messages_tag: u32,
}

impl Bodies {
    /// None yet, but as many as this many bytes hold.
    pub(in crate::engine::embedded) fn with_capacity(expected_bytes: usize) -> Self {
        Self { expected_bytes, ..Default::default() }
    }

    /// Adds an encoded message.
    pub(in crate::engine::embedded) fn push(&mut self, body: &[u8]) {
        self.room(body.len()).extend_from_slice(body);
    }

    /// The size of all.
    pub(in crate::engine::embedded) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }

    /// Where the next body goes, with what stands before it written already.
    fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.chunks.last().is_none_or(|chunk| chunk.bytes >= CHUNK_BYTES) {
            let more_bytes = self.expected_bytes.saturating_sub(self.bytes).min(CHUNK_BYTES);
            let encoded = Vec::with_capacity(more_bytes.max(bytes) + MARGIN_BYTES);
            self.chunks.push(Chunk { encoded, ..Default::default() });
        }
        self.bytes += bytes;
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        chunk.count += 1;
        chunk.bytes += bytes;
        encode_key(BODY_TAG, WireType::LengthDelimited, &mut chunk.encoded);
        encode_varint(bytes as u64, &mut chunk.encoded);
        &mut chunk.encoded
    }
}

impl From<&[Bytes]> for Bodies {
    fn from(encoded: &[Bytes]) -> Self {
        let mut bodies = Self::default();
        encoded.iter().for_each(|body| bodies.push(body));
        bodies
    }
}

impl From<Bytes> for Bodies {
    fn from(encoded: Bytes) -> Self {
        Self::from(&[encoded][..])
    }
}

impl Chunk {
    /// The entry with a fact, of which `fact` has everything but the messages, and `messages` of these everything but the
    /// bodies and what is filtered.
    pub(super) fn into_payload(
        self,
        place: Place,
        fact: &impl prost::Message,
        messages: &Messages,
        filtered: Vec<Acked>,
    ) -> Payload {
        let tail =
            if filtered.is_empty() { Vec::new() } else { Messages { filtered, ..Default::default() }.encode_to_vec() };
        let messages_bytes = messages.encoded_len() + self.encoded.len() + tail.len();
        let Place { fact_tag, messages_tag } = place;
        let before_messages = fact.encoded_len() + key_len(messages_tag) + encoded_len_varint(messages_bytes as u64);
        let fact_bytes = before_messages + messages_bytes;
        let head_bytes = 1 + key_len(fact_tag) + encoded_len_varint(fact_bytes as u64) + before_messages;
        let mut head = Vec::with_capacity(head_bytes + messages.encoded_len());
        head.push(VERSION);
        encode_key(fact_tag, WireType::LengthDelimited, &mut head);
        encode_varint(fact_bytes as u64, &mut head);
        fact.encode_raw(&mut head);
        encode_key(messages_tag, WireType::LengthDelimited, &mut head);
        encode_varint(messages_bytes as u64, &mut head);
        messages.encode_raw(&mut head);
        Payload { head, bodies: self.encoded, tail }
    }
}

impl Payload {
    pub(in crate::engine::embedded) fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// What is stored, one behind the other.
    pub(in crate::engine::embedded) fn pieces(&self) -> [&[u8]; 3] {
        [&self.head, &self.bodies, &self.tail]
    }

    /// The same in one piece.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::engine::embedded) fn to_vec(&self) -> Vec<u8> {
        self.pieces().concat()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self { head: bytes, ..Default::default() }
    }
}

/// A message as the journal holds it.
fn stored(message: Message) -> PubsubMessage {
    let Message { data, attributes, ordering_key } = message;
    PubsubMessage { data, attributes, ordering_key, ..Default::default() }
}

/// The body of a message, and its attributes, which filters look at.
pub(in crate::engine::embedded) fn body_of(message: Message) -> (Bytes, HashMap<String, String>) {
    let stored = stored(message);
    (stored.encode_to_vec().into(), stored.attributes)
}
