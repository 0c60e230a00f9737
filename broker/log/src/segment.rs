use std::fmt;

use bytes::{Buf, BufMut};

use crate::frame::Seed;
use crate::{Disk, DiskFile, Error, FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX};

/// The size of what stands at the start of every segment, in bytes.
pub const SEGMENT_HEADER_BYTES: u64 = 32;

const HEADER_LEN: usize = 32;
const CRC_AT: usize = HEADER_LEN - 4;
const MAGIC: &[u8; 4] = b"OFSG";
const VERSION: u32 = 1;

/// The largest file that can be a segment, in bytes: full, or one frame of the largest size, and a mark behind it.
const FILE_BYTES_MAX: u64 = {
    let single = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX as u64;
    let content = if SEGMENT_BYTES_MAX > single { SEGMENT_BYTES_MAX } else { single };
    content + FRAME_HEADER_BYTES
};

/// A place between entries: where one starts, or where the next one will. Positions order entries by their append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number; the first one is 1.
    pub segment: u64,
    /// Bytes from the start of the segment's file.
    pub offset: u64,
}

impl Position {
    /// Where the first entry of a new journal stands.
    pub const START: Self = Self { segment: 1, offset: SEGMENT_HEADER_BYTES };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u64,
    pub(crate) salt: u64,
    /// Where the segment before this one ended when it was sealed; 0 when that is not known.
    pub(crate) previous_end: u32,
}

impl SegmentHeader {
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.id, self.salt)
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = &mut bytes[..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u32_le(self.previous_end);
        rest.put_u64_le(self.id);
        rest.put_u64_le(self.salt);
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN], id: u64, name: &str) -> Result<Self, Error> {
        let bad = |reason| Err(Error::corrupt(name, 0, reason));
        let (mut rest, mut crc) = bytes.split_at(CRC_AT);
        if crc.get_u32_le() != crc32fast::hash(rest) {
            return bad("the segment's header does not match its checksum");
        }
        if rest.get(..MAGIC.len()) != Some(MAGIC) {
            return bad("the file is no segment");
        }
        rest.advance(MAGIC.len());
        let version = rest.get_u32_le();
        if version != VERSION {
            return Err(Error::Version { file: name.to_owned(), version });
        }
        let header = Self { previous_end: rest.get_u32_le(), id: rest.get_u64_le(), salt: rest.get_u64_le() };
        if header.id != id {
            return bad("the segment's header belongs to another segment");
        }
        Ok(header)
    }
}

/// The name of a segment's file.
pub(crate) fn file_name(id: u64) -> String {
    format!("segment-{id:020}.log")
}

/// The number of the segment that a file holds, when its name is one of ours.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let id = name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

/// Creates a durable segment without frames.
///
/// The header is synced before the first frame is written. A file that is longer than a header therefore had a sound
/// one, and a file that is not holds nothing that could be lost.
pub(crate) fn create<D: Disk>(disk: &D, id: u64, previous_end: u32) -> Result<(D::File, SegmentHeader), Error> {
    let name = file_name(id);
    let header = SegmentHeader { id, salt: fastrand::u64(..), previous_end };
    let file = disk.create(&name).map_err(Error::io("create", &name))?;
    file.write_at(&header.encode(), 0).map_err(Error::io("write", &name))?;
    file.sync_data().map_err(Error::io("sync", &name))?;
    disk.sync_dir().map_err(Error::io("sync the directory of", &name))?;
    Ok((file, header))
}

/// A segment's file as it was found.
pub(crate) struct Opened<F> {
    pub(crate) file: F,
    pub(crate) size: u64,
    pub(crate) header: Result<SegmentHeader, Error>,
}

/// Opens a segment and reads its header.
pub(crate) fn open<D: Disk>(disk: &D, id: u64) -> Result<Opened<D::File>, Error> {
    let name = file_name(id);
    let file = disk.open(&name).map_err(Error::io("open", &name))?;
    let size = file.size().map_err(Error::io("read the size of", &name))?;
    if size > FILE_BYTES_MAX {
        return Err(Error::corrupt(&name, FILE_BYTES_MAX, "the file is larger than a segment can be"));
    }
    if size < SEGMENT_HEADER_BYTES {
        let header = Err(Error::corrupt(&name, 0, "the segment's header is cut off"));
        return Ok(Opened { file, size, header });
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_at(&mut bytes, 0).map_err(Error::io("read", &name))?;
    let header = SegmentHeader::decode(&bytes, id, &name);
    Ok(Opened { file, size, header })
}

/// An offset inside a segment as it is stored.
pub(crate) fn narrow(offset: u64) -> u32 {
    u32::try_from(offset).expect("segments are smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { id: 9, salt: 0x0123_4567_89ab_cdef, previous_end: 77 };

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(SegmentHeader::decode(&HEADER.encode(), 9, "s").unwrap(), HEADER);
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_refused() {
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(SegmentHeader::decode(&bytes, 9, "s"), Err(Error::Corrupt { offset: 0, .. })),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_header_of_another_segment_file_kind_or_version_is_refused() {
        let sealed = |at: usize, byte: u8| {
            let mut bytes = HEADER.encode();
            bytes[at] = byte;
            let crc = crc32fast::hash(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            SegmentHeader::decode(&bytes, 9, "s")
        };
        assert!(matches!(SegmentHeader::decode(&HEADER.encode(), 8, "s"), Err(Error::Corrupt { .. })));
        assert!(matches!(sealed(0, b'X'), Err(Error::Corrupt { .. })));
        assert!(matches!(sealed(4, 2), Err(Error::Version { version: 2, .. })));
    }

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(parse_name(&file_name(12)), Some(12));
        for name in ["segment-12.log", "segment-.log", "segment-0000000000000000000x.log", "LOCK", "notes.txt"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
