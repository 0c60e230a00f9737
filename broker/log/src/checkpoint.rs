//! A checkpoint is the owner's state at a position, so that a replay may start there.

use bytes::{Buf, BufMut};

use crate::{Disk, DiskFile, Error, Position};

/// How many checkpoints stay on disk. When the newest one is damaged, recovery takes the one before it.
pub const CHECKPOINTS_KEPT: usize = 2;

/// The largest state that a checkpoint may hold, in bytes.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 4] = b"OFCP";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 56;
const CRC_LEN: usize = 4;

/// What stands before the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    /// Counts checkpoints, so that a newer one is told from an older.
    pub(crate) number: u64,
    /// The state holds everything before this position.
    pub(crate) covers: Position,
    /// Everything before this position was synced when the checkpoint was written.
    pub(crate) durable: Position,
}

/// A checkpoint file that is known to be sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) header: CheckpointHeader,
    pub(crate) bytes: u64,
}

/// The name of a checkpoint's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("checkpoint-{number:020}.ckp")
}

/// The number of a checkpoint, when the file's name is one of ours.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("checkpoint-")?.strip_suffix(".ckp")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The name that a checkpoint has until it is whole and synced.
pub(crate) const TEMPORARY: &str = "checkpoint.tmp";

pub(crate) fn check_size(state: &[u8]) -> Result<(), Error> {
    let state_bytes = state.len() as u64;
    if state_bytes <= CHECKPOINT_BYTES_MAX { Ok(()) } else { Err(Error::CheckpointTooLarge { state_bytes }) }
}

/// Writes a checkpoint that is either whole under its name after a crash, or not there.
pub(crate) fn write<D: Disk>(disk: &D, header: CheckpointHeader, state: &[u8]) -> Result<Kept, Error> {
    let head = header.encode(state);
    let file = disk.create(TEMPORARY).map_err(Error::io("create", TEMPORARY))?;
    file.write_at(&head, 0).map_err(Error::io("write", TEMPORARY))?;
    file.write_at(state, HEADER_LEN as u64).map_err(Error::io("write", TEMPORARY))?;
    file.sync_data().map_err(Error::io("sync", TEMPORARY))?;
    let name = file_name(header.number);
    disk.rename(TEMPORARY, &name).map_err(Error::io("rename a checkpoint to", &name))?;
    disk.sync_dir().map_err(Error::io("sync the directory of", &name))?;
    Ok(Kept { header, bytes: (HEADER_LEN + state.len()) as u64 })
}

/// Reads a checkpoint. `None` when it is damaged.
pub(crate) fn load<D: Disk>(disk: &D, number: u64) -> Result<Option<(Kept, Vec<u8>)>, Error> {
    let name = file_name(number);
    let file = disk.open(&name).map_err(Error::io("open", &name))?;
    let size = file.size().map_err(Error::io("read the size of", &name))?;
    if size < HEADER_LEN as u64 || size > HEADER_LEN as u64 + CHECKPOINT_BYTES_MAX {
        return Ok(None);
    }
    let mut head = [0; HEADER_LEN];
    file.read_at(&mut head, 0).map_err(Error::io("read", &name))?;
    let state_bytes = usize::try_from(size).unwrap_or(usize::MAX) - HEADER_LEN;
    let mut state = vec![0; state_bytes];
    file.read_at(&mut state, HEADER_LEN as u64).map_err(Error::io("read", &name))?;
    match CheckpointHeader::decode(&head, &state, &name)? {
        Some(header) if header.number == number => Ok(Some((Kept { header, bytes: size }, state))),
        _ => Ok(None),
    }
}

impl CheckpointHeader {
    fn encode(&self, state: &[u8]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = &mut bytes[CRC_LEN..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u64_le(self.number);
        for position in [self.covers, self.durable] {
            rest.put_u64_le(position.segment);
            // Offsets fit in four bytes; see `SEGMENT_BYTES_MAX`.
            rest.put_u32_le(crate::segment::narrow(position.offset));
        }
        rest.put_u64_le(state.len() as u64);
        let crc = checksum(&bytes, state);
        bytes[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN], state: &[u8], name: &str) -> Result<Option<Self>, Error> {
        let (mut crc, mut rest) = bytes.split_at(CRC_LEN);
        if crc.get_u32_le() != checksum(bytes, state) || rest.get(..MAGIC.len()) != Some(MAGIC) {
            return Ok(None);
        }
        rest.advance(MAGIC.len());
        let version = rest.get_u32_le();
        if version != VERSION {
            return Err(Error::Version { file: name.to_owned(), version });
        }
        let number = rest.get_u64_le();
        let mut position = || Position { segment: rest.get_u64_le(), offset: u64::from(rest.get_u32_le()) };
        let (covers, durable) = (position(), position());
        let header = Self { number, covers, durable };
        Ok((rest.get_u64_le() == state.len() as u64).then_some(header))
    }
}

fn checksum(head: &[u8; HEADER_LEN], state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[CRC_LEN..]);
    hasher.update(state);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: CheckpointHeader = CheckpointHeader {
        number: 3,
        covers: Position { segment: 2, offset: 500 },
        durable: Position { segment: 4, offset: 600 },
    };

    #[test]
    fn a_checkpoint_comes_back_as_it_was_written() {
        for state in [&b""[..], b"state"] {
            assert_eq!(CheckpointHeader::decode(&HEADER.encode(state), state, "c").unwrap(), Some(HEADER));
        }
    }

    #[test]
    fn a_checkpoint_with_any_bit_flipped_is_refused() {
        let (head, state) = (HEADER.encode(b"state"), *b"state");
        for bit in 0..(HEADER_LEN + state.len()) * 8 {
            let (mut head, mut state) = (head, state);
            match head.get_mut(bit / 8) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => state[bit / 8 - HEADER_LEN] ^= 1 << (bit % 8),
            }
            assert_eq!(CheckpointHeader::decode(&head, &state, "c").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_cut_or_of_another_kind_or_version_is_refused() {
        assert_eq!(CheckpointHeader::decode(&HEADER.encode(b"state"), b"stat", "c").unwrap(), None);
        let altered = |at: usize, byte: u8| {
            let mut head = HEADER.encode(b"");
            head[at] = byte;
            let crc = checksum(&head, b"");
            head[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
            CheckpointHeader::decode(&head, b"", "c")
        };
        assert_eq!(altered(CRC_LEN, b'X').unwrap(), None);
        assert!(matches!(altered(CRC_LEN + 4, 9), Err(Error::Version { version: 9, .. })));
    }

    #[test]
    fn only_our_own_names_are_checkpoints() {
        assert_eq!(parse_name(&file_name(5)), Some(5));
        for name in ["checkpoint-5.ckp", TEMPORARY, "checkpoint-.ckp"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
