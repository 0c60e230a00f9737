//! Where the entries of a stream are: in memory for the active segment, in a file beside each sealed one.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};

use crate::frame::{Key, Seed};
use crate::journal::StreamSpan;
use crate::segment::narrow;
use crate::{Disk, DiskFile, Error};

const MAGIC: &[u8; 4] = b"OFIX";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 40;
const STREAM_LEN: usize = 24;
const ENTRY_LEN: usize = 24;
const CRC_LEN: usize = 4;

/// How many entries are read from an index file at a time.
const READ_ENTRIES: u32 = 256;

/// How many bytes of an index file are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Where one entry of a known stream stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) offset: u32,
    pub(crate) payload_bytes: u32,
}

impl IndexEntry {
    pub(crate) fn key(&self, stream: u32) -> Key {
        Key { stream, first: self.first, count: self.count }
    }

    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    fn encode(&self, seed: Seed, place: u64) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        let mut rest = &mut bytes[CRC_LEN..];
        rest.put_u32_le(self.count);
        rest.put_u64_le(self.first);
        rest.put_u32_le(self.offset);
        rest.put_u32_le(self.payload_bytes);
        let crc = seed.crc(place, &bytes[CRC_LEN..]);
        bytes[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], seed: Seed, place: u64) -> Option<Self> {
        let (mut crc, mut rest) = bytes.get(..ENTRY_LEN)?.split_at(CRC_LEN);
        if crc.get_u32_le() != seed.crc(place, rest) {
            return None;
        }
        let (count, first) = (rest.get_u32_le(), rest.get_u64_le());
        let entry = Self { first, count, offset: rest.get_u32_le(), payload_bytes: rest.get_u32_le() };
        (count > 0 && first.checked_add(u64::from(count)).is_some()).then_some(entry)
    }
}

/// The index of the active segment: every entry, by stream and first number. A later copy replaces an earlier one.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    entries: BTreeMap<(u32, u64), IndexEntry>,
}

impl MemoryIndex {
    pub(crate) fn insert(&mut self, key: Key, offset: u64, payload_bytes: u32) {
        let entry = IndexEntry { first: key.first, count: key.count, offset: narrow(offset), payload_bytes };
        self.entries.insert((key.stream, key.first), entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The streams in ascending order, each with the numbers that it spans.
    pub(crate) fn spans(&self) -> Vec<StreamSpan> {
        let mut spans = Vec::new();
        let mut next = self.entries.first_key_value();
        while let Some((&(stream, first), _)) = next {
            let end = (stream, u64::MAX);
            let last = self.entries.range(..=end).next_back().map_or(first, |(_, entry)| entry.last());
            spans.push(StreamSpan { stream, first, last });
            next = stream.checked_add(1).and_then(|stream| self.entries.range((stream, 0)..).next());
        }
        spans
    }

    /// The stream's entries that cover numbers from `from` on, in ascending order.
    pub(crate) fn from(&self, stream: u32, from: u64) -> impl Iterator<Item = IndexEntry> + '_ {
        let before = self.entries.range((stream, 0)..(stream, from)).next_back();
        let covering = before.map(|(_, entry)| *entry).filter(|entry| entry.last() >= from);
        covering.into_iter().chain(self.entries.range((stream, from)..=(stream, u64::MAX)).map(|(_, entry)| *entry))
    }
}

/// What memory keeps of one stream in a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRange {
    pub(crate) span: StreamSpan,
    /// The place of the stream's first entry in the index file.
    pub(crate) start: u32,
    pub(crate) entries: u32,
}

/// What memory keeps of a sealed segment: a line for each stream.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    pub(crate) seed: Seed,
    pub(crate) end: u64,
    pub(crate) index_bytes: u64,
    pub(crate) streams: Vec<StreamRange>,
}

impl Sealed {
    pub(crate) fn range(&self, stream: u32) -> Option<&StreamRange> {
        let at = self.streams.binary_search_by_key(&stream, |range| range.span.stream).ok()?;
        self.streams.get(at)
    }

    fn entries_start(&self) -> u64 {
        (HEADER_LEN + self.streams.len() * STREAM_LEN) as u64
    }

    /// The entries from `place` on, as many as one read gives, up to `end`.
    pub(crate) fn read_entries<F: DiskFile>(&self, file: &F, place: u32, end: u32) -> Result<Vec<IndexEntry>, Error> {
        let count = end.saturating_sub(place).min(READ_ENTRIES);
        let name = file_name(self.id);
        let mut bytes = vec![0; count as usize * ENTRY_LEN];
        let at = self.entries_start() + u64::from(place) * ENTRY_LEN as u64;
        file.read_at(&mut bytes, at).map_err(Error::io("read", &name))?;
        let entries = (u64::from(place)..).zip(bytes.chunks_exact(ENTRY_LEN));
        entries
            .map(|(place, bytes)| {
                let offset = self.entries_start() + place * ENTRY_LEN as u64;
                IndexEntry::decode(bytes, self.seed, place)
                    .ok_or_else(|| Error::corrupt(&name, offset, "the index entry does not match its checksum"))
            })
            .collect()
    }

    /// The entries from the first one in `place..end` that covers `number` or a later one, and that one's place.
    pub(crate) fn seek<F: DiskFile>(
        &self,
        file: &F,
        place: u32,
        end: u32,
        number: u64,
    ) -> Result<(u32, Vec<IndexEntry>), Error> {
        let (mut low, mut high) = (place, end);
        while high - low >= READ_ENTRIES {
            let middle = low + (high - low) / 2;
            match self.read_entries(file, middle, middle + 1)?.first() {
                Some(entry) if entry.last() < number => low = middle + 1,
                _ => high = middle,
            }
        }
        let mut entries = self.read_entries(file, low, end)?;
        let before = entries.partition_point(|entry| entry.last() < number);
        entries.drain(..before);
        Ok((low + u32::try_from(before).unwrap_or(READ_ENTRIES), entries))
    }
}

/// The name of the index file of a segment.
pub(crate) fn file_name(id: u64) -> String {
    format!("segment-{id:020}.idx")
}

/// The number of the segment that an index file belongs to, when its name is one of ours.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let id = name.strip_prefix("segment-")?.strip_suffix(".idx")?.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

/// Writes the index file of a segment that was synced up to `end`.
///
/// It is synced, so that a loss of power does not cost a scan of the segment at the next open.
pub(crate) fn write<D: Disk>(disk: &D, id: u64, salt: u64, end: u64, index: &MemoryIndex) -> Result<Sealed, Error> {
    let seed = Seed::new(id, salt);
    let streams = directory(index);
    let mut buffer = vec![0; HEADER_LEN];
    for range in &streams {
        buffer.put_u32_le(range.span.stream);
        buffer.put_u32_le(range.entries);
        buffer.put_u64_le(range.span.first);
        buffer.put_u64_le(range.span.last);
    }
    let header = Header { id, salt, end: narrow(end), streams: count(streams.len()), entries: count(index.len()) };
    header.encode_into(&mut buffer);

    let name = file_name(id);
    let file = disk.create(&name).map_err(Error::io("create", &name))?;
    let mut written = 0;
    for (place, entry) in (0..).zip(index.entries.values()) {
        if buffer.len() >= WRITE_BYTES {
            file.write_at(&buffer, written).map_err(Error::io("write", &name))?;
            written += buffer.len() as u64;
            buffer.clear();
        }
        buffer.extend_from_slice(&entry.encode(seed, place));
    }
    file.write_at(&buffer, written).map_err(Error::io("write", &name))?;
    file.sync_data().map_err(Error::io("sync", &name))?;
    Ok(Sealed { id, seed, end, index_bytes: written + buffer.len() as u64, streams })
}

/// Reads and checks an index file. `None` when there is none that belongs to this life of the segment and is sound.
pub(crate) fn load<D: Disk>(disk: &D, id: u64, salt: u64) -> Result<Option<Sealed>, Error> {
    let name = file_name(id);
    let file = match disk.open(&name).map_err(Error::io("open", &name)) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.size().map_err(Error::io("read the size of", &name))?;
    let mut bytes = vec![0; HEADER_LEN];
    if size < HEADER_LEN as u64 {
        return Ok(None);
    }
    file.read_at(&mut bytes, 0).map_err(Error::io("read", &name))?;
    let Some(header) = Header::decode(&bytes).filter(|header| header.id == id && header.salt == salt) else {
        return Ok(None);
    };
    if header.file_bytes() != size {
        return Ok(None);
    }
    bytes.resize(HEADER_LEN + header.streams as usize * STREAM_LEN, 0);
    file.read_at(&mut bytes[HEADER_LEN..], HEADER_LEN as u64).map_err(Error::io("read", &name))?;
    let Some(streams) = header.directory(&bytes) else { return Ok(None) };
    let sealed = Sealed { id, seed: Seed::new(id, salt), end: u64::from(header.end), index_bytes: size, streams };
    Ok(sealed.entries_are_sound(&file)?.then_some(sealed))
}

impl Sealed {
    fn entries_are_sound<F: DiskFile>(&self, file: &F) -> Result<bool, Error> {
        let (mut place, end) = (0, self.streams.last().map_or(0, |range| range.start + range.entries));
        while place < end {
            match self.read_entries(file, place, end) {
                Ok(entries) => place += count(entries.len()),
                Err(Error::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

struct Header {
    id: u64,
    salt: u64,
    end: u32,
    streams: u32,
    entries: u32,
}

impl Header {
    /// Fills the first bytes of `buffer`, which already holds the directory behind them.
    fn encode_into(&self, buffer: &mut [u8]) {
        let (header, directory) = buffer.split_at_mut(HEADER_LEN);
        let mut rest = &mut header[..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u64_le(self.id);
        rest.put_u64_le(self.salt);
        rest.put_u32_le(self.end);
        rest.put_u32_le(self.streams);
        rest.put_u32_le(self.entries);
        let crc = checksum(header, directory);
        header[HEADER_LEN - CRC_LEN..].copy_from_slice(&crc.to_le_bytes());
    }

    /// The checksum covers the directory as well and is compared when that was read.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return None;
        }
        bytes.advance(MAGIC.len());
        if bytes.get_u32_le() != VERSION {
            return None;
        }
        let (id, salt) = (bytes.get_u64_le(), bytes.get_u64_le());
        Some(Self { id, salt, end: bytes.get_u32_le(), streams: bytes.get_u32_le(), entries: bytes.get_u32_le() })
    }

    fn file_bytes(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.streams) * STREAM_LEN as u64 + u64::from(self.entries) * ENTRY_LEN as u64
    }

    /// Reads the directory from the header's bytes and the directory's.
    fn directory(&self, bytes: &[u8]) -> Option<Vec<StreamRange>> {
        let (header, mut directory) = bytes.split_at(HEADER_LEN);
        if (&header[HEADER_LEN - CRC_LEN..]).get_u32_le() != checksum(header, directory) {
            return None;
        }
        let mut streams: Vec<StreamRange> = Vec::with_capacity(self.streams as usize);
        let mut start = 0_u32;
        while directory.has_remaining() {
            let (stream, entries) = (directory.get_u32_le(), directory.get_u32_le());
            let span = StreamSpan { stream, first: directory.get_u64_le(), last: directory.get_u64_le() };
            let ascends = streams.last().is_none_or(|before| before.span.stream < stream);
            if !ascends || span.last == u64::MAX {
                return None;
            }
            streams.push(StreamRange { span, start, entries });
            start = start.checked_add(entries)?;
        }
        (start == self.entries).then_some(streams)
    }
}

fn checksum(header: &[u8], directory: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..HEADER_LEN - CRC_LEN]);
    hasher.update(directory);
    hasher.finalize()
}

fn directory(index: &MemoryIndex) -> Vec<StreamRange> {
    let mut streams: Vec<StreamRange> = Vec::new();
    for (place, (&(stream, first), entry)) in (0..).zip(&index.entries) {
        match streams.last_mut() {
            Some(range) if range.span.stream == stream => {
                range.span.last = entry.last();
                range.entries += 1;
            }
            _ => {
                let span = StreamSpan { stream, first, last: entry.last() };
                streams.push(StreamRange { span, start: place, entries: 1 });
            }
        }
    }
    streams
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a segment of less than 4 GiB has fewer entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: IndexEntry = IndexEntry { first: 1 << 40, count: 7, offset: 4096, payload_bytes: 512 };

    fn seed() -> Seed {
        Seed::new(5, 6)
    }

    #[test]
    fn an_entry_comes_back_as_it_was_written() {
        assert_eq!(IndexEntry::decode(&ENTRY.encode(seed(), 3), seed(), 3), Some(ENTRY));
    }

    #[test]
    fn an_entry_with_any_bit_flipped_or_at_another_place_is_refused() {
        let bytes = ENTRY.encode(seed(), 3);
        for bit in 0..ENTRY_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(IndexEntry::decode(&flipped, seed(), 3), None, "bit {bit}");
        }
        assert_eq!(IndexEntry::decode(&bytes, seed(), 4), None);
        assert_eq!(IndexEntry::decode(&bytes[..ENTRY_LEN - 1], seed(), 3), None);
    }

    #[test]
    fn an_entry_that_is_no_range_is_refused_though_its_checksum_fits() {
        for bad in [IndexEntry { count: 0, ..ENTRY }, IndexEntry { first: u64::MAX, ..ENTRY }] {
            assert_eq!(IndexEntry::decode(&bad.encode(seed(), 3), seed(), 3), None);
        }
    }

    #[test]
    fn a_directory_comes_back_as_it_was_written_and_only_so() {
        let mut buffer = vec![0; HEADER_LEN];
        for (stream, entries) in [(1, 2), (9, 3)] {
            buffer.put_u32_le(stream);
            buffer.put_u32_le(entries);
            buffer.put_u64_le(10);
            buffer.put_u64_le(20);
        }
        Header { id: 4, salt: 8, end: 999, streams: 2, entries: 5 }.encode_into(&mut buffer);
        let span = |stream| StreamSpan { stream, first: 10, last: 20 };
        let streams =
            [StreamRange { span: span(1), start: 0, entries: 2 }, StreamRange { span: span(9), start: 2, entries: 3 }];
        assert_eq!(Header::decode(&buffer).unwrap().directory(&buffer).unwrap(), streams);
        for bit in 0..buffer.len() * 8 {
            let mut flipped = buffer.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let directory = Header::decode(&flipped).and_then(|header| header.directory(&flipped));
            assert_eq!(directory, None, "bit {bit}");
        }
    }

    #[test]
    fn only_our_own_names_are_indexes() {
        assert_eq!(parse_name(&file_name(12)), Some(12));
        for name in ["segment-12.idx", "segment-.idx", &crate::segment::file_name(12)] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
