use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{HEADER_LEN, Header, Key, Seed};
use crate::index::{self, IndexEntry, Sealed};
use crate::scan::{Scanner, Step, length};
use crate::state::{Map, Shared};
use crate::{Disk, DiskFile, Error, FRAME_HEADER_BYTES, OsDisk, Position, SEGMENT_HEADER_BYTES, segment};

/// The most that one read of a segment asks for, in bytes, unless a single frame is larger.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Frames of other streams up to this many bytes are read along rather than skipped.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// An entry that a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The numbers that the entry covers.
    pub key: Key,
    /// What was appended. It may keep the whole read alive that it came with, 1 MiB or one larger frame.
    pub payload: Bytes,
    /// Where the entry starts.
    pub position: Position,
}

/// Finds entries by stream and number, in any thread, while the journal goes on writing.
///
/// It sees what was appended at once; not to show what is not durable yet is its owner's care.
pub struct Reader<D: Disk = OsDisk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// The entries of a stream that cover numbers from `from` on, in ascending order, without those that are missing.
    /// Where a number was appended again, the latest copy is answered.
    ///
    /// At most `entries_max` entries and at most `bytes_max` bytes of payload are answered, but at least one entry if
    /// there is one and `entries_max` is not 0.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored bytes are damaged, [`Error::Poisoned`] after a failed write.
    pub fn scan(&self, stream: u32, from: u64, entries_max: usize, bytes_max: u64) -> Result<Vec<Found>, Error> {
        self.scan_range(stream, from..=u64::MAX, entries_max, bytes_max)
    }

    /// Like [`scan`](Self::scan), but nothing is read that covers no number of the range.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_range(
        &self,
        stream: u32,
        numbers: RangeInclusive<u64>,
        entries_max: usize,
        bytes_max: u64,
    ) -> Result<Vec<Found>, Error> {
        loop {
            self.shared.check()?;
            let mut scan = Scan::new(&self.shared, stream, numbers.clone(), entries_max, bytes_max);
            match scan.run() {
                // A segment was removed after we had seen it; what was alive in it has another copy.
                Err(error) if error.is_not_found() && scan.lost_a_segment() => {}
                outcome => return self.shared.report(outcome),
            }
        }
    }

    /// Checks the frames of a sealed segment from `offset` on, about `bytes_max` bytes of them. Answers where to go on, or
    /// none when the segment is done, or gone.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored bytes are damaged, [`Error::Poisoned`] after a failed write.
    pub fn check(&self, segment: u64, offset: u64, bytes_max: u64) -> Result<Option<u64>, Error> {
        self.shared.check()?;
        let Some(sealed) = self.shared.map().sealed.get(&segment).map(Arc::clone) else { return Ok(None) };
        match check_frames(&self.shared.disk, &sealed, offset, bytes_max) {
            Err(error) if error.is_not_found() && !self.shared.map().sealed.contains_key(&segment) => Ok(None),
            outcome => self.shared.report(outcome),
        }
    }

    /// The latest entry that covers `number`.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn lookup(&self, stream: u32, number: u64) -> Result<Option<Found>, Error> {
        let found = self.scan(stream, number, 1, 0)?;
        Ok(found.into_iter().next().filter(|found| found.key.contains(number)))
    }
}

fn check_frames<D: Disk>(disk: &D, sealed: &Sealed, offset: u64, bytes_max: u64) -> Result<Option<u64>, Error> {
    let name = segment::file_name(sealed.id);
    let file = disk.open(&name).map_err(Error::io("open", &name))?;
    let start = offset.max(SEGMENT_HEADER_BYTES);
    let mut scanner = Scanner::new(&file, sealed.seed, start, sealed.end);
    loop {
        let (offset, reason) = match scanner.step().map_err(Error::io("read", &name))? {
            Step::Entry { offset, .. } if offset - start >= bytes_max => return Ok(Some(offset)),
            Step::Entry { .. } => continue,
            Step::End { .. } => return Ok(None),
            Step::Mark { offset } => (offset, "a mark stands in a sealed segment"),
            Step::Bad { offset, reason } => (offset, reason),
        };
        return Err(Error::corrupt(&name, offset, reason));
    }
}

impl<D: Disk> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> fmt::Debug for Reader<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// One scan over a snapshot of the segments.
struct Scan<'s, D: Disk> {
    shared: &'s Shared<D>,
    stream: u32,
    from: u64,
    last: u64,
    entries_max: usize,
    bytes_max: u64,
    /// The segments with something to say, newest first.
    cursors: Vec<Cursor<D>>,
}

/// An index entry that was chosen, and the cursor that it came from.
type Pick = (usize, IndexEntry);

impl<'s, D: Disk> Scan<'s, D> {
    fn new(
        shared: &'s Shared<D>,
        stream: u32,
        numbers: RangeInclusive<u64>,
        entries_max: usize,
        bytes_max: u64,
    ) -> Self {
        let (from, last) = numbers.into_inner();
        let mut scan = Self { shared, stream, from, last, entries_max, bytes_max, cursors: Vec::new() };
        scan.cursors = scan.snapshot(&shared.map());
        scan
    }

    fn snapshot(&self, map: &Map<D::File>) -> Vec<Cursor<D>> {
        let mut cursors = Vec::new();
        let mut bytes = 0;
        // The active segment's part is copied: as much as could be answered if nothing else were.
        let enough = |entry: &IndexEntry| {
            let before = bytes;
            bytes += u64::from(entry.payload_bytes);
            before <= self.bytes_max && entry.first <= self.last
        };
        let active: VecDeque<_> =
            map.active.index.from(self.stream, self.from).take(self.entries_max).take_while(enough).collect();
        if let Some(entry) = active.front() {
            let file = Some(Arc::clone(&map.active.file));
            let low = Some(entry.first);
            let (segment, seed) = (map.active.id, map.active.seed());
            cursors.push(Cursor { segment, seed, low, buffered: active, file, sealed: None });
        }
        for sealed in map.sealed.values().rev() {
            let Some(range) = sealed.range(self.stream).filter(|range| range.span.last >= self.from) else { continue };
            let pages =
                Pages { sealed: Arc::clone(sealed), next: range.start, end: range.start + range.entries, index: None };
            let (segment, seed, low) = (sealed.id, sealed.seed, Some(range.span.first));
            cursors.push(Cursor { segment, seed, low, buffered: VecDeque::new(), file: None, sealed: Some(pages) });
        }
        cursors
    }

    fn run(&mut self) -> Result<Vec<Found>, Error> {
        let picks = self.choose()?;
        let mut found = Vec::with_capacity(picks.len());
        let mut rest = &picks[..];
        while !rest.is_empty() {
            let (run, others) = rest.split_at(run_length(rest));
            self.read(run, &mut found)?;
            rest = others;
        }
        Ok(found)
    }

    fn choose(&mut self) -> Result<Vec<Pick>, Error> {
        let mut picks = Vec::new();
        let (mut next, mut bytes) = (self.from, 0);
        while picks.len() < self.entries_max {
            let Some((cursor, entry)) = self.nearest(next)? else { break };
            bytes += u64::from(entry.payload_bytes);
            if entry.first > self.last || (!picks.is_empty() && bytes > self.bytes_max) {
                break;
            }
            picks.push((cursor, entry));
            next = entry.last() + 1;
        }
        Ok(picks)
    }

    /// The entry that covers `number`, or else the next higher one; of several copies the one in the newest segment.
    fn nearest(&mut self, number: u64) -> Result<Option<Pick>, Error> {
        loop {
            // The lower bounds tell where to look, so that segments with only higher numbers are not opened.
            let bounds = self.cursors.iter().enumerate().filter_map(|(at, cursor)| Some((cursor.low?.max(number), at)));
            let Some((bound, at)) = bounds.min() else { return Ok(None) };
            match self.cursors[at].peek(&self.shared.disk, number)? {
                Some(entry) if entry.first.max(number) == bound => return Ok(Some((at, entry))),
                _ => {}
            }
        }
    }

    /// Reads the frames of a run of picks at once.
    fn read(&mut self, run: &[Pick], found: &mut Vec<Found>) -> Result<(), Error> {
        let [(at, head), ..] = *run else { return Ok(()) };
        let start = u64::from(head.offset);
        let end = run.last().map_or(start, |(_, entry)| frame_end(entry));
        let cursor = &mut self.cursors[at];
        let name = segment::file_name(cursor.segment);
        let mut bytes = vec![0; length(end - start)];
        cursor.file(&self.shared.disk)?.read_at(&mut bytes, start).map_err(Error::io("read", &name))?;
        let bytes = Bytes::from(bytes);
        for (_, entry) in run {
            let offset = u64::from(entry.offset);
            let from = length(offset - start);
            let frame = bytes.slice(from..from + length(frame_end(entry) - offset));
            let header = Header::decode(&frame, cursor.seed, offset);
            let key = entry.key(self.stream);
            let expected = header
                .is_some_and(|header| header.kind.key() == Some(key) && header.payload_bytes == entry.payload_bytes);
            if !expected {
                return Err(Error::corrupt(&name, offset, "the frame's header is not what the index says"));
            }
            let payload = frame.slice(HEADER_LEN..);
            if !header.is_some_and(|header| header.accepts(&payload)) {
                return Err(Error::corrupt(&name, offset, "the frame's payload does not match its checksum"));
            }
            found.push(Found { key, payload, position: Position { segment: cursor.segment, offset } });
        }
        Ok(())
    }

    fn lost_a_segment(&self) -> bool {
        let map = self.shared.map();
        self.cursors.iter().any(|cursor| cursor.sealed.is_some() && !map.sealed.contains_key(&cursor.segment))
    }
}

/// How many of the first picks lie close behind each other in one segment.
fn run_length(picks: &[Pick]) -> usize {
    let Some((_, head)) = picks.first() else { return 0 };
    let breaks = picks.windows(2).position(|pair| {
        let ((before_at, before), (at, entry)) = (pair[0], pair[1]);
        let gap = u64::from(entry.offset).checked_sub(frame_end(&before));
        at != before_at
            || gap.is_none_or(|gap| gap > GAP_BYTES_MAX)
            || frame_end(&entry) - u64::from(head.offset) > READ_BYTES_MAX
    });
    breaks.map_or(picks.len(), |at| at + 1)
}

fn frame_end(entry: &IndexEntry) -> u64 {
    u64::from(entry.offset) + FRAME_HEADER_BYTES + u64::from(entry.payload_bytes)
}

/// A walk over one stream in one segment.
struct Cursor<D: Disk> {
    segment: u64,
    seed: Seed,
    /// No entry that is still to come starts before this number. `None` when there is none to come.
    low: Option<u64>,
    buffered: VecDeque<IndexEntry>,
    file: Option<Arc<D::File>>,
    /// Where more entries come from; the active segment has given all of them.
    sealed: Option<Pages<D>>,
}

/// The unread part of a stream in an index file.
struct Pages<D: Disk> {
    sealed: Arc<Sealed>,
    next: u32,
    end: u32,
    index: Option<D::File>,
}

impl<D: Disk> Cursor<D> {
    /// The first entry that covers `number` or a later one. Numbers must not descend from call to call.
    fn peek(&mut self, disk: &D, number: u64) -> Result<Option<IndexEntry>, Error> {
        while self.buffered.front().is_some_and(|entry| entry.last() < number) {
            self.buffered.pop_front();
        }
        if self.buffered.is_empty()
            && let Some(pages) = &mut self.sealed
        {
            self.buffered = pages.read(disk, number)?;
        }
        let entry = self.buffered.front().copied();
        self.low = entry.map(|entry| entry.first);
        Ok(entry)
    }

    fn file(&mut self, disk: &D) -> Result<&D::File, Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let name = segment::file_name(self.segment);
                Arc::new(disk.open(&name).map_err(Error::io("open", &name))?)
            }
        };
        Ok(self.file.insert(file))
    }
}

impl<D: Disk> Pages<D> {
    fn read(&mut self, disk: &D, number: u64) -> Result<VecDeque<IndexEntry>, Error> {
        if self.next == self.end {
            return Ok(VecDeque::new());
        }
        let index = match self.index.take() {
            Some(index) => index,
            None => {
                let name = index::file_name(self.sealed.id);
                disk.open(&name).map_err(Error::io("open", &name))?
            }
        };
        let (place, entries) = self.sealed.seek(self.index.insert(index), self.next, self.end, number)?;
        self.next = place + u32::try_from(entries.len()).unwrap_or(u32::MAX);
        Ok(entries.into())
    }
}
