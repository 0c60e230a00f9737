use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{self, CheckpointHeader, Kept, Needed};
use crate::frame::{self, HEADER_LEN, Header, Key, Kind, Seed};
use crate::recovery::{self, Recovered};
use crate::scan::{Scanner, Step};
use crate::segment::{self, narrow};
use crate::state::{Active, Shared};
use crate::{
    AHEAD_WRITE_BYTES_MAX, CHECKPOINTS_KEPT, Config, Disk, DiskFile, Error, FRAME_HEADER_BYTES, OsDisk,
    PAYLOAD_BYTES_MAX, Position, Reader, SEGMENT_HEADER_BYTES, index,
};

/// Frames are written when this many bytes have gathered, even if the append goes on.
const WRITE_BYTES: usize = 8 << 20;

/// What is written ahead at a time.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// What is stored.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// With a key, the entry is found by its numbers; without one, only a replay sees it.
    pub key: Option<Key>,
    /// The pieces of the payload, at most [`PAYLOAD_BYTES_MAX`] bytes together. They are stored without borders.
    pub payload: &'a [&'a [u8]],
}

/// The lowest and the highest number that a segment holds of a stream. Numbers between them may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSpan {
    /// The stream.
    pub stream: u32,
    /// The lowest number.
    pub first: u64,
    /// The highest number.
    pub last: u64,
}

/// What is known of a segment without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The segment's number.
    pub id: u64,
    /// How many bytes of its file are written, zeros ahead not counted.
    pub bytes: u64,
    /// Whether it is complete. The one that is not is written to.
    pub sealed: bool,
    /// The streams that have entries in it, in ascending order.
    pub streams: Vec<StreamSpan>,
}

/// The one writer of a directory.
pub struct Journal<D: Disk = OsDisk> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) config: Config,
    pub(crate) tail: Tail<D::File>,
    pub(crate) checkpoints: Checkpoints,
    /// Frames that are not written yet; the memory is used again and again.
    buffer: Vec<u8>,
    /// Where the keyed ones among them stand.
    staged: Vec<(Key, u64, u32)>,
    _lock: D::Lock,
}

/// The end of the segment that is written to.
pub(crate) struct Tail<F> {
    pub(crate) id: u64,
    pub(crate) seed: Seed,
    pub(crate) file: Arc<F>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Everything before it was synced.
    pub(crate) durable: u64,
    /// Where the file ends. Behind the last frame there may be a mark, and zeros.
    pub(crate) file_end: u64,
}

/// The checkpoints on disk.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Newest first.
    pub(crate) kept: Vec<Kept>,
    /// What the newest one still needs of the segments before it, if it says so.
    pub(crate) needed: Option<Needed>,
    /// Files that the next checkpoint makes superfluous.
    pub(crate) stale: Vec<String>,
    pub(crate) number_next: u64,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal in a directory, or starts one in an empty directory.
    ///
    /// A torn tail of the last segment is cut. What is found is durable when this returns. [`replay`](Self::replay)
    /// from [`Recovered::replay_from`] then brings the owner up to date.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has the directory; [`Error::Corrupt`] and [`Error::MissingSegment`] when
    /// something that was durable is not there as it was written.
    pub fn open(disk: D, config: Config) -> Result<(Self, Recovered), Error> {
        recovery::open(disk, config)
    }

    pub(crate) fn new(
        shared: Shared<D>,
        config: Config,
        tail: Tail<D::File>,
        checkpoints: Checkpoints,
        lock: D::Lock,
    ) -> Self {
        let (buffer, staged) = (Vec::new(), Vec::new());
        Self { shared: Arc::new(shared), config, tail, checkpoints, buffer, staged, _lock: lock }
    }

    /// Visits all entries from `from` on, in the order of their appends.
    ///
    /// # Errors
    /// What `visit` answers, and [`Error::Corrupt`] at the first damaged frame.
    pub fn replay<E: From<Error>>(
        &self,
        from: Position,
        mut visit: impl FnMut(Position, Option<Key>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.shared.check()?;
        let sealed: Vec<_> = self.shared.map().sealed.range(from.segment..).map(|(_, one)| Arc::clone(one)).collect();
        let start = |id| if id == from.segment { from.offset } else { SEGMENT_HEADER_BYTES };
        for one in sealed {
            let name = segment::file_name(one.id);
            let file = self.shared.disk.open(&name).map_err(Error::io("open", &name))?;
            visit_entries(&file, one.id, one.seed, start(one.id)..one.end, &mut visit)?;
        }
        let tail = &self.tail;
        visit_entries(&*tail.file, tail.id, tail.seed, start(tail.id)..tail.end, &mut visit)
    }

    /// Writes entries behind all others and answers where the next one will start. They are not durable yet.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`] and [`Error::BadKey`], after which nothing was written. After any other error the
    /// journal is poisoned.
    pub fn append(&mut self, entries: &[Entry<'_>]) -> Result<Position, Error> {
        self.shared.check()?;
        for entry in entries {
            entry.check()?;
        }
        let outcome = self.append_checked(entries);
        self.shared.guard(outcome)?;
        Ok(self.end())
    }

    /// Makes durable, with one sync, all that was appended. Answers the position before which everything is durable.
    ///
    /// # Errors
    /// After any error the journal is poisoned: a sync that failed is never tried again.
    pub fn sync(&mut self) -> Result<Position, Error> {
        self.shared.check()?;
        let outcome = self.tail.sync();
        self.shared.guard(outcome)?;
        Ok(self.durable())
    }

    /// Stores the owner's state, which holds everything before `covers`, so that a replay may start there.
    ///
    /// The [`CHECKPOINTS_KEPT`] newest ones stay. `dead` names the segments of which the state needs nothing; all others
    /// that are sealed must be there at the next open.
    ///
    /// # Errors
    /// [`Error::BadPosition`] when `covers` is no boundary, not durable, or before the last checkpoint's;
    /// [`Error::CheckpointTooLarge`]. Nothing was written then. After any other error the journal is poisoned.
    pub fn checkpoint(&mut self, covers: Position, state: &[u8], dead: &[u64]) -> Result<(), Error> {
        self.shared.check()?;
        checkpoint::check_size(state, self.config.checkpoint_bytes_max)?;
        let newest = self.checkpoints.kept.first();
        let behind = newest.is_some_and(|kept| covers < kept.header.covers);
        if behind || covers > self.durable() || !self.is_boundary(covers)? {
            return Err(Error::BadPosition { position: covers });
        }
        let header = CheckpointHeader { number: self.checkpoints.number_next, covers, durable: self.durable() };
        let needed = {
            let map = self.shared.map();
            Needed::new(map.sealed.range(..covers.segment).map(|(id, _)| *id).filter(|id| !dead.contains(id)))
        };
        let outcome = self.checkpoints.write(&self.shared.disk, header, needed, state);
        self.shared.guard(outcome)
    }

    /// What is known of each segment, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let map = self.shared.map();
        let sealed = map.sealed.values().map(|one| SegmentInfo {
            id: one.id,
            bytes: one.end,
            sealed: true,
            streams: one.streams.iter().map(|range| range.span).collect(),
        });
        let active =
            SegmentInfo { id: self.tail.id, bytes: self.tail.end, sealed: false, streams: map.active.index.spans() };
        sealed.chain([active]).collect()
    }

    /// Gives a segment's space back. Whatever is alive in it must have been appended again and be durable.
    ///
    /// # Errors
    /// [`Error::SegmentInUse`] unless the segment is sealed, lies before every checkpoint that is kept, and is dead to the
    /// newest one. After any other error the journal is poisoned.
    pub fn remove_segment(&mut self, id: u64) -> Result<(), Error> {
        self.shared.check()?;
        let refuse = |reason| Err(Error::SegmentInUse { id, reason });
        if id == self.tail.id {
            return refuse("it is written to");
        }
        let Some(oldest) = self.checkpoints.kept.last() else {
            return refuse("there is no checkpoint");
        };
        if id >= oldest.header.covers.segment {
            return refuse("it does not lie before the oldest checkpoint that is kept");
        }
        if self.checkpoints.needed.as_ref().is_some_and(|needed| needed.contains(id)) {
            return refuse("the newest checkpoint needs it");
        }
        if self.shared.map_mut().sealed.remove(&id).is_none() {
            return refuse("there is no such segment");
        }
        // The removal need not be durable: a segment that comes back lies before the checkpoint and is dead.
        let outcome = [index::file_name(id), segment::file_name(id)]
            .iter()
            .try_for_each(|name| self.shared.disk.remove(name).map_err(Error::io("remove", name)));
        self.shared.guard(outcome)
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.shared.map().sealed.len() + 1
    }

    /// What the journal occupies, in bytes.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        let map = self.shared.map();
        let sealed: u64 = map.sealed.values().map(|one| one.end + one.index_bytes).sum();
        let checkpoints: u64 = self.checkpoints.kept.iter().map(|kept| kept.bytes).sum();
        sealed + checkpoints + self.tail.file_end
    }

    /// How many entries are indexed in memory: those of the active segment.
    #[must_use]
    pub fn entries_in_memory(&self) -> usize {
        self.shared.map().active.index.len()
    }

    /// A reader of this journal.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Where the next entry will start, unless it needs a new segment.
    #[must_use]
    pub fn end(&self) -> Position {
        Position { segment: self.tail.id, offset: self.tail.end }
    }

    /// The position before which everything is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        Position { segment: self.tail.id, offset: self.tail.durable }
    }

    fn append_checked(&mut self, entries: &[Entry<'_>]) -> Result<(), Error> {
        for entry in entries {
            let at = self.tail.end + self.buffer.len() as u64;
            if at > SEGMENT_HEADER_BYTES && at + entry.frame_bytes() > self.config.segment_bytes_max {
                self.flush()?;
                self.roll()?;
            } else if self.buffer.len() >= WRITE_BYTES {
                self.flush()?;
            }
            let at = self.tail.end + self.buffer.len() as u64;
            let (seed, durable) = (self.tail.seed, narrow(self.tail.durable));
            let payload_bytes = frame::encode(&mut self.buffer, seed, at, durable, Kind::of(entry.key), entry.payload);
            if let Some(key) = entry.key {
                self.staged.push((key, at, payload_bytes));
            }
        }
        self.flush()
    }

    /// Writes what has gathered, then shows it to the readers.
    fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.tail.write(&self.buffer)?;
        self.tail.fill_ahead(self.buffer.len() as u64, &self.config)?;
        if !self.staged.is_empty() {
            let index = &mut self.shared.map_mut().active.index;
            for (key, offset, payload_bytes) in self.staged.drain(..) {
                index.insert(key, offset, payload_bytes);
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(WRITE_BYTES);
        Ok(())
    }

    /// Seals the active segment and begins another.
    ///
    /// The old one is synced first. A segment that exists therefore proves that all before it were durable.
    fn roll(&mut self) -> Result<(), Error> {
        self.tail.seal()?;
        let (id, end) = (self.tail.id, self.tail.end);
        let sealed = {
            let map = self.shared.map();
            index::write(&self.shared.disk, id, map.active.salt, end, &map.active.index)?
        };
        let (file, header) = segment::create(&self.shared.disk, id + 1, narrow(end))?;
        let file = Arc::new(file);
        self.tail = Tail::new(header.id, header.seed(), Arc::clone(&file));
        let active = Active { id: header.id, salt: header.salt, file, index: index::MemoryIndex::default() };
        let mut map = self.shared.map_mut();
        map.sealed.insert(id, Arc::new(sealed));
        map.active = active;
        Ok(())
    }

    /// Whether an entry starts or a segment ends at `position`.
    fn is_boundary(&self, position: Position) -> Result<bool, Error> {
        let Position { segment: id, offset } = position;
        if id == self.tail.id {
            let tail = &self.tail;
            return is_boundary_of(&*tail.file, id, tail.seed, offset, tail.end);
        }
        let Some(sealed) = self.shared.map().sealed.get(&id).map(Arc::clone) else { return Ok(false) };
        let name = segment::file_name(id);
        let file = self.shared.disk.open(&name).map_err(Error::io("open", &name))?;
        is_boundary_of(&file, id, sealed.seed, offset, sealed.end)
    }
}

impl<D: Disk> fmt::Debug for Journal<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("end", &self.end()).field("durable", &self.durable()).finish_non_exhaustive()
    }
}

impl Entry<'_> {
    fn check(&self) -> Result<(), Error> {
        let payload_bytes = self.payload_bytes();
        if payload_bytes > u64::from(PAYLOAD_BYTES_MAX) {
            return Err(Error::PayloadTooLarge { payload_bytes });
        }
        self.key.map_or(Ok(()), |key| key.check())
    }

    fn payload_bytes(&self) -> u64 {
        self.payload.iter().map(|piece| piece.len() as u64).sum()
    }

    fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES + self.payload_bytes()
    }
}

impl<F: DiskFile> Tail<F> {
    /// The end of a segment that has just been created.
    pub(crate) fn new(id: u64, seed: Seed, file: Arc<F>) -> Self {
        let [end, durable, file_end] = [SEGMENT_HEADER_BYTES; 3];
        Self { id, seed, file, end, durable, file_end }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_at(bytes, self.end).map_err(Error::io("write", &segment::file_name(self.id)))?;
        self.end += bytes.len() as u64;
        self.file_end = self.file_end.max(self.end);
        Ok(())
    }

    /// Writes zeros behind the end when a small write has used up those that were there.
    ///
    /// They become durable with the write itself. The syncs after it then find blocks and size of the file as they are,
    /// and have nothing to note but the bytes.
    fn fill_ahead(&mut self, written_bytes: u64, config: &Config) -> Result<(), Error> {
        if written_bytes > AHEAD_WRITE_BYTES_MAX || self.end + FRAME_HEADER_BYTES <= self.file_end {
            return Ok(());
        }
        // A segment is full at its size, and has a mark behind it.
        let full = config.segment_bytes_max + FRAME_HEADER_BYTES;
        let file_end = self.end.saturating_add(config.ahead_bytes).min(full);
        while self.file_end < file_end {
            let bytes = (file_end - self.file_end).min(ZEROS.len() as u64);
            let zeros = usize::try_from(bytes).map_or(&ZEROS[..], |bytes| &ZEROS[..bytes]);
            self.file.write_at(zeros, self.file_end).map_err(Error::io("write", &segment::file_name(self.id)))?;
            self.file_end += zeros.len() as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.durable == self.end {
            return Ok(());
        }
        self.file.sync_data().map_err(Error::io("sync", &segment::file_name(self.id)))?;
        self.durable = self.end;
        self.mark()
    }

    /// Notes in the file that all of it was synced, in case nothing follows that would.
    ///
    /// Without it the last batch before a crash could not be told from a torn one. The mark itself is not synced, and
    /// the next append overwrites it, so it costs neither a sync nor space.
    pub(crate) fn mark(&mut self) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        frame::encode(&mut bytes, self.seed, self.end, narrow(self.durable), Kind::Mark, &[]);
        self.file.write_at(&bytes, self.end).map_err(Error::io("write", &segment::file_name(self.id)))?;
        self.file_end = self.file_end.max(self.end + FRAME_HEADER_BYTES);
        Ok(())
    }

    /// Makes the file end with its last frame, for good.
    fn seal(&mut self) -> Result<(), Error> {
        let name = segment::file_name(self.id);
        if self.file_end > self.end {
            self.file.truncate(self.end).map_err(Error::io("cut", &name))?;
            self.file_end = self.end;
        }
        self.file.sync_data().map_err(Error::io("sync", &name))?;
        self.durable = self.end;
        Ok(())
    }
}

impl Checkpoints {
    fn write<D: Disk>(
        &mut self,
        disk: &D,
        header: CheckpointHeader,
        needed: Needed,
        state: &[u8],
    ) -> Result<(), Error> {
        self.kept.insert(0, checkpoint::write(disk, header, &needed, state)?);
        self.needed = Some(needed);
        self.number_next = header.number + 1;
        let beyond = self.kept.split_off(self.kept.len().min(CHECKPOINTS_KEPT));
        let beyond = beyond.iter().map(|kept| checkpoint::file_name(kept.header.number));
        for name in self.stale.drain(..).chain(beyond) {
            disk.remove(&name).map_err(Error::io("remove", &name))?;
        }
        Ok(())
    }
}

fn visit_entries<F: DiskFile, E: From<Error>>(
    file: &F,
    id: u64,
    seed: Seed,
    range: Range<u64>,
    visit: &mut impl FnMut(Position, Option<Key>, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let name = segment::file_name(id);
    let mut scanner = Scanner::new(file, seed, range.start, range.end);
    loop {
        let (offset, reason) = match scanner.step().map_err(Error::io("read", &name))? {
            Step::Entry { offset, key, payload, .. } => {
                visit(Position { segment: id, offset }, key, payload)?;
                continue;
            }
            Step::End { .. } => return Ok(()),
            Step::Mark { offset } => (offset, "a mark stands between the frames"),
            Step::Bad { offset, reason } => (offset, reason),
        };
        return Err(Error::corrupt(&name, offset, reason).into());
    }
}

fn is_boundary_of<F: DiskFile>(file: &F, id: u64, seed: Seed, offset: u64, end: u64) -> Result<bool, Error> {
    if offset == end || offset < SEGMENT_HEADER_BYTES || offset + FRAME_HEADER_BYTES > end {
        return Ok(offset == end);
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_at(&mut bytes, offset).map_err(Error::io("read", &segment::file_name(id)))?;
    Ok(Header::decode(&bytes, seed, offset).is_some())
}
