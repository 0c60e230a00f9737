use bytes::{Buf, BufMut};
use crc32fast::Hasher;

use crate::{Error, SEGMENT_HEADER_BYTES};

/// The size of what stands before every payload, in bytes.
pub const FRAME_HEADER_BYTES: u64 = 32;

/// The largest payload of one entry, in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 16 << 20;

pub(crate) const HEADER_LEN: usize = 32;
const CRC_LEN: usize = 4;

/// In a frame without a key, the value of the stream field that makes it a mark.
const MARK: u32 = 1;

/// The numbers `first..first + count` of a stream. Within one stream, two keys are equal or have no number in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The stream that the numbers belong to.
    pub stream: u32,
    /// The first number.
    pub first: u64,
    /// How many numbers there are; at least one.
    pub count: u32,
}

impl Key {
    /// The last number.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Whether `number` is one of the key's.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        (self.first..=self.last()).contains(&number)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_range() { Ok(()) } else { Err(Error::BadKey { first: self.first, count: self.count }) }
    }

    fn is_range(&self) -> bool {
        self.count > 0 && self.first.checked_add(u64::from(self.count)).is_some()
    }
}

/// Ties checksums to one life of one segment.
///
/// A frame is looked for at every byte after a torn one, inside payloads as well. The salt is random and never leaves
/// the disk, so a publisher cannot place bytes in a payload that would pass for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(segment: u64, salt: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&segment.to_le_bytes());
        hasher.update(&salt.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The checksum of `bytes` at `place`, which is whatever tells equal structures of one file apart.
    pub(crate) fn crc(self, place: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&place.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry that is found by its key.
    Keyed(Key),
    /// An entry that only a replay sees.
    Plain,
    /// No entry: it says that everything before it was synced, and the next append overwrites it.
    Mark,
}

impl Kind {
    pub(crate) fn of(key: Option<Key>) -> Self {
        key.map_or(Self::Plain, Self::Keyed)
    }

    pub(crate) fn key(self) -> Option<Key> {
        match self {
            Self::Keyed(key) => Some(key),
            Self::Plain | Self::Mark => None,
        }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    /// Everything before this offset of the segment was synced when the frame was written.
    pub(crate) durable: u32,
}

impl Header {
    pub(crate) fn encode(&self, seed: Seed, offset: u64) -> [u8; HEADER_LEN] {
        let (stream, first, count) = match self.kind {
            Kind::Keyed(key) => (key.stream, key.first, key.count),
            Kind::Plain => (0, 0, 0),
            Kind::Mark => (MARK, 0, 0),
        };
        let mut bytes = [0; HEADER_LEN];
        let mut rest = &mut bytes[CRC_LEN..];
        rest.put_u32_le(self.payload_crc);
        rest.put_u32_le(self.payload_bytes);
        rest.put_u32_le(self.durable);
        rest.put_u32_le(stream);
        rest.put_u32_le(count);
        rest.put_u64_le(first);
        let crc = seed.crc(offset, &bytes[CRC_LEN..]);
        bytes[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Answers `None` unless exactly these bytes were written at this offset of this segment.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let (mut crc, mut rest) = bytes.get(..HEADER_LEN)?.split_at(CRC_LEN);
        if crc.get_u32_le() != seed.crc(offset, rest) {
            return None;
        }
        let (payload_crc, payload_bytes, durable) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
        let (stream, count, first) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u64_le());
        let key = Key { stream, first, count };
        let kind = match (count, stream, first) {
            (0, 0, 0) => Kind::Plain,
            (0, MARK, 0) if payload_bytes == 0 => Kind::Mark,
            _ if key.is_range() => Kind::Keyed(key),
            _ => return None,
        };
        // A segment's own header is synced before the first frame. So zeros are no frame, whatever the checksum says.
        let is_durable_plausible = (SEGMENT_HEADER_BYTES..=offset).contains(&u64::from(durable));
        let plausible = payload_bytes <= PAYLOAD_BYTES_MAX && is_durable_plausible;
        plausible.then_some(Self { kind, payload_bytes, payload_crc, durable })
    }

    /// A cheap look at bytes that are probably no header: what they would say of durability.
    pub(crate) fn durable_claim(bytes: &[u8]) -> u64 {
        u64::from((&bytes[CRC_LEN + 8..]).get_u32_le())
    }

    /// The size of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES + u64::from(self.payload_bytes)
    }

    pub(crate) fn accepts(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_crc
    }
}

/// Adds one frame to `buffer`, which will be written so that the frame starts at `offset`.
pub(crate) fn encode(
    buffer: &mut Vec<u8>,
    seed: Seed,
    offset: u64,
    durable: u32,
    kind: Kind,
    payload: &[&[u8]],
) -> u32 {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_LEN]);
    for piece in payload {
        buffer.extend_from_slice(piece);
    }
    let written = &buffer[start + HEADER_LEN..];
    let payload_bytes = u32::try_from(written.len()).expect("payloads are checked before they are encoded");
    let header = Header { kind, payload_bytes, payload_crc: crc32fast::hash(written), durable };
    buffer[start..start + HEADER_LEN].copy_from_slice(&header.encode(seed, offset));
    payload_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed(7);
    const OFFSET: u64 = 96;

    fn headers() -> Vec<Header> {
        [
            Kind::Plain,
            Kind::Keyed(Key { stream: 0, first: 0, count: 1 }),
            Kind::Keyed(Key { stream: u32::MAX, first: u64::MAX - 9, count: 9 }),
        ]
        .map(|kind| Header { kind, payload_bytes: 5, payload_crc: 77, durable: 96 })
        .into_iter()
        .chain([Header { kind: Kind::Mark, payload_bytes: 0, payload_crc: 0, durable: 96 }])
        .collect()
    }

    #[test]
    fn zeros_are_no_header_even_if_their_checksum_matches() {
        let header = |durable| Header { kind: Kind::Plain, payload_bytes: 0, payload_crc: 0, durable };
        // All but the checksum is zero.
        assert_eq!(header(0).encode(SEED, OFFSET)[CRC_LEN..], [0; HEADER_LEN - CRC_LEN]);
        assert_eq!(Header::decode(&header(0).encode(SEED, OFFSET), SEED, OFFSET), None);
        assert_eq!(Header::decode(&header(31).encode(SEED, OFFSET), SEED, OFFSET), None);
        assert_eq!(Header::decode(&header(32).encode(SEED, OFFSET), SEED, OFFSET), Some(header(32)));
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        for header in headers() {
            assert_eq!(Header::decode(&header.encode(SEED, OFFSET), SEED, OFFSET), Some(header));
        }
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_refused() {
        for header in headers() {
            let bytes = header.encode(SEED, OFFSET);
            for bit in 0..HEADER_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::decode(&flipped, SEED, OFFSET), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_belongs_to_its_place() {
        for header in headers() {
            let bytes = header.encode(SEED, OFFSET);
            assert_eq!(Header::decode(&bytes, SEED, OFFSET + 1), None);
            assert_eq!(Header::decode(&bytes, Seed(8), OFFSET), None);
            assert_eq!(Header::decode(&bytes[..HEADER_LEN - 1], SEED, OFFSET), None);
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused_though_its_checksum_fits() {
        let good = Header { kind: Kind::Plain, payload_bytes: PAYLOAD_BYTES_MAX, payload_crc: 0, durable: 96 };
        let bad = [
            Header { payload_bytes: PAYLOAD_BYTES_MAX + 1, ..good },
            Header { durable: 97, ..good },
            Header { kind: Kind::Keyed(Key { stream: 1, first: u64::MAX, count: 1 }), ..good },
            Header { kind: Kind::Keyed(Key { stream: 0, first: 1, count: 0 }), ..good },
            Header { kind: Kind::Mark, payload_bytes: 1, ..good },
        ];
        assert!(Header::decode(&good.encode(SEED, OFFSET), SEED, OFFSET).is_some());
        for header in bad {
            assert_eq!(Header::decode(&header.encode(SEED, OFFSET), SEED, OFFSET), None, "{header:?}");
        }
    }
}
