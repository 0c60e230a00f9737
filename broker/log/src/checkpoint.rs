//! A checkpoint is the owner's state at a position, so that a replay may start there.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};

use crate::{Disk, DiskFile, Error, Position};

/// How many checkpoints stay on disk. When the newest one is damaged, recovery takes the one before it.
pub const CHECKPOINTS_KEPT: usize = 2;

/// The largest state that a checkpoint may hold, in bytes.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 4] = b"OFCP";
/// The first version did not list the segments that it needs.
const VERSION_WITHOUT_NEEDED: u32 = 1;
const VERSION: u32 = 2;
const HEADER_LEN: usize = 56;
const CRC_LEN: usize = 4;
/// A run of needed segments: the first one's number and the last one's.
const RUN_LEN: usize = 16;
/// The most runs of needed segments that are listed. Beyond it the list is left out, and a loss would not be noticed.
const RUNS_MAX: usize = 1 << 20;

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

/// The segments before the one that a checkpoint covers into which hold something that its state still needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Runs of consecutive numbers, ascending.
    runs: Vec<RangeInclusive<u64>>,
}

impl Needed {
    /// Takes numbers in ascending order.
    pub(crate) fn new(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
        for id in ids {
            match runs.last_mut() {
                Some(run) if *run.end() + 1 == id => *run = *run.start()..=id,
                _ => runs.push(id..=id),
            }
        }
        Self { runs }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().cloned().flatten()
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.runs.iter().any(|run| run.contains(&id))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.runs.len() * RUN_LEN);
        for run in &self.runs {
            bytes.put_u64_le(*run.start());
            bytes.put_u64_le(*run.end());
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Self {
        let mut runs = Vec::with_capacity(bytes.len() / RUN_LEN);
        while bytes.remaining() >= RUN_LEN {
            runs.push(bytes.get_u64_le()..=bytes.get_u64_le());
        }
        Self { runs }
    }
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

pub(crate) fn check_size(state: &[u8], bytes_max: u64) -> Result<(), Error> {
    let state_bytes = state.len() as u64;
    let bytes_max = bytes_max.min(CHECKPOINT_BYTES_MAX);
    if state_bytes <= bytes_max { Ok(()) } else { Err(Error::CheckpointTooLarge { state_bytes, bytes_max }) }
}

/// Writes a checkpoint that is either whole under its name after a crash, or not there.
pub(crate) fn write<D: Disk>(disk: &D, header: CheckpointHeader, needed: &Needed, state: &[u8]) -> Result<Kept, Error> {
    let listed = needed.runs.len() <= RUNS_MAX;
    let (version, needed) = if listed { (VERSION, needed.encode()) } else { (VERSION_WITHOUT_NEEDED, Vec::new()) };
    let mut head = header.encode(version, &needed, state).to_vec();
    head.extend(needed);
    let file = disk.create(TEMPORARY).map_err(Error::io("create", TEMPORARY))?;
    file.write_at(&head, 0).map_err(Error::io("write", TEMPORARY))?;
    file.write_at(state, head.len() as u64).map_err(Error::io("write", TEMPORARY))?;
    file.sync_data().map_err(Error::io("sync", TEMPORARY))?;
    let name = file_name(header.number);
    disk.rename(TEMPORARY, &name).map_err(Error::io("rename a checkpoint to", &name))?;
    disk.sync_dir().map_err(Error::io("sync the directory of", &name))?;
    Ok(Kept { header, bytes: (head.len() + state.len()) as u64 })
}

/// What a sound checkpoint file holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) kept: Kept,
    /// `None` in a checkpoint of the first version.
    pub(crate) needed: Option<Needed>,
    pub(crate) state: Vec<u8>,
}

/// Reads a checkpoint. `None` when it is damaged.
pub(crate) fn load<D: Disk>(disk: &D, number: u64) -> Result<Option<Loaded>, Error> {
    let name = file_name(number);
    let file = disk.open(&name).map_err(Error::io("open", &name))?;
    let size = file.size().map_err(Error::io("read the size of", &name))?;
    let size_max = (HEADER_LEN + RUNS_MAX * RUN_LEN) as u64 + CHECKPOINT_BYTES_MAX;
    if size < HEADER_LEN as u64 || size > size_max {
        return Ok(None);
    }
    let mut head = [0; HEADER_LEN];
    file.read_at(&mut head, 0).map_err(Error::io("read", &name))?;
    let mut rest = vec![0; usize::try_from(size).unwrap_or(usize::MAX) - HEADER_LEN];
    file.read_at(&mut rest, HEADER_LEN as u64).map_err(Error::io("read", &name))?;
    let Some((header, needed_bytes)) = CheckpointHeader::decode(&head, &rest, &name)? else { return Ok(None) };
    if header.number != number {
        return Ok(None);
    }
    let state = rest.split_off(needed_bytes.unwrap_or(0));
    let needed = needed_bytes.map(|_| Needed::decode(&rest));
    Ok(Some(Loaded { kept: Kept { header, bytes: size }, needed, state }))
}

impl CheckpointHeader {
    fn encode(&self, version: u32, needed: &[u8], state: &[u8]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = &mut bytes[CRC_LEN..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(version);
        rest.put_u64_le(self.number);
        for position in [self.covers, self.durable] {
            rest.put_u64_le(position.segment);
            // Offsets fit in four bytes; see `SEGMENT_BYTES_MAX`.
            rest.put_u32_le(crate::segment::narrow(position.offset));
        }
        rest.put_u64_le(state.len() as u64);
        rest.put_u32_le(u32::try_from(needed.len() / RUN_LEN).expect("runs are limited"));
        let crc = checksum(&bytes, &[needed, state]);
        bytes[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, and how many bytes behind it list the needed segments. `None` when something does not fit.
    fn decode(bytes: &[u8; HEADER_LEN], behind: &[u8], name: &str) -> Result<Option<(Self, Option<usize>)>, Error> {
        let (mut crc, mut rest) = bytes.split_at(CRC_LEN);
        if crc.get_u32_le() != checksum(bytes, &[behind]) || rest.get(..MAGIC.len()) != Some(MAGIC) {
            return Ok(None);
        }
        rest.advance(MAGIC.len());
        let version = rest.get_u32_le();
        if ![VERSION_WITHOUT_NEEDED, VERSION].contains(&version) {
            return Err(Error::Version { file: name.to_owned(), version });
        }
        let number = rest.get_u64_le();
        let mut position = || Position { segment: rest.get_u64_le(), offset: u64::from(rest.get_u32_le()) };
        let (covers, durable) = (position(), position());
        let header = Self { number, covers, durable };
        let (state_bytes, runs) = (rest.get_u64_le(), rest.get_u32_le());
        let needed_bytes = (version == VERSION).then_some(runs as usize * RUN_LEN);
        let expected = state_bytes.checked_add(needed_bytes.unwrap_or(0) as u64);
        Ok((expected == Some(behind.len() as u64)).then_some((header, needed_bytes)))
    }
}

fn checksum(head: &[u8; HEADER_LEN], behind: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[CRC_LEN..]);
    behind.iter().for_each(|piece| hasher.update(piece));
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

    fn needed() -> Needed {
        Needed::new([2, 3, 4, 7, 9, 10])
    }

    /// A checkpoint as it stands in its file: the header, and what is behind it.
    fn encoded(version: u32, state: &[u8]) -> ([u8; HEADER_LEN], Vec<u8>) {
        let needed = if version == VERSION { needed().encode() } else { Vec::new() };
        (HEADER.encode(version, &needed, state), [&needed, state].concat())
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was_written() {
        for state in [&b""[..], b"state"] {
            let (head, behind) = encoded(VERSION, state);
            let (header, needed_bytes) = CheckpointHeader::decode(&head, &behind, "c").unwrap().unwrap();
            let (runs, found) = behind.split_at(needed_bytes.unwrap());
            assert_eq!((header, Needed::decode(runs), found), (HEADER, needed(), state));
        }
    }

    #[test]
    fn a_checkpoint_of_the_first_version_is_read_and_lists_nothing() {
        let (head, behind) = encoded(VERSION_WITHOUT_NEEDED, b"state");
        assert_eq!(CheckpointHeader::decode(&head, &behind, "c").unwrap(), Some((HEADER, None)));
    }

    #[test]
    fn needed_segments_are_kept_as_runs() {
        assert_eq!(needed().runs, [2..=4, 7..=7, 9..=10]);
        assert_eq!(needed().ids().collect::<Vec<_>>(), [2, 3, 4, 7, 9, 10]);
        assert_eq!([1, 2, 4, 5, 8, 10].map(|id| needed().contains(id)), [false, true, true, false, false, true]);
    }

    #[test]
    fn a_checkpoint_with_any_bit_flipped_is_refused() {
        let (head, behind) = encoded(VERSION, b"state");
        for bit in 0..(HEADER_LEN + behind.len()) * 8 {
            let (mut head, mut behind) = (head, behind.clone());
            match head.get_mut(bit / 8) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => behind[bit / 8 - HEADER_LEN] ^= 1 << (bit % 8),
            }
            assert_eq!(CheckpointHeader::decode(&head, &behind, "c").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_cut_or_of_another_kind_or_version_is_refused() {
        let (head, behind) = encoded(VERSION, b"state");
        assert_eq!(CheckpointHeader::decode(&head, &behind[..behind.len() - 1], "c").unwrap(), None);
        let altered = |at: usize, byte: u8| {
            let mut head = head;
            head[at] = byte;
            let crc = checksum(&head, &[&behind]);
            head[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
            CheckpointHeader::decode(&head, &behind, "c")
        };
        assert_eq!(altered(CRC_LEN, b'X').unwrap(), None);
        assert_eq!(altered(HEADER_LEN - 4, 99).unwrap(), None, "more segments are listed than there is room for");
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
