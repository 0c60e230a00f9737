//! Opens a directory: finds out what is there, tells a torn tail from corruption, and repairs the former.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::checkpoint::{self, Loaded, Needed};
use crate::index::{self, MemoryIndex, Sealed};
use crate::journal::{Checkpoints, Tail};
use crate::scan::{self, Scanner, Step};
use crate::segment::{self, Opened, SegmentHeader, narrow};
use crate::state::{Active, DAMAGED, Map, Shared};
use crate::{
    CHECKPOINTS_KEPT, Config, Disk, DiskFile, Error, FRAME_HEADER_BYTES, Journal, Position, SEGMENT_HEADER_BYTES,
    Verify,
};

/// How much is written again at a time when a sync of unknown outcome is made up for, in bytes.
const REWRITE_BYTES: u64 = 1 << 20;

/// What was found at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The newest sound checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Checkpoint files that were passed over because they are damaged. The next checkpoint removes them.
    pub checkpoints_damaged: Vec<String>,
    /// What was cut off the last segment.
    pub cut: Option<Cut>,
    /// Sealed segments whose frames were not read, in ascending order: they are checked when they are read, or by
    /// [`Reader::check`](crate::Reader::check).
    pub unread: Vec<u64>,
    /// Where the next entry will start. Everything before it is durable.
    pub end: Position,
}

impl Recovered {
    /// Where a replay has to start.
    #[must_use]
    pub fn replay_from(&self) -> Position {
        self.checkpoint.as_ref().map_or(Position::START, |checkpoint| checkpoint.covers)
    }
}

/// The owner's state at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state holds everything before this position.
    pub covers: Position,
    /// What was given to [`Journal::checkpoint`].
    pub state: Vec<u8>,
}

/// A torn tail: bytes that were written but never synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The name of the segment's file.
    pub file: String,
    /// Where it ends now.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
}

pub(crate) fn open<D: Disk>(disk: D, config: Config) -> Result<(Journal<D>, Recovered), Error> {
    config.check()?;
    let lock = lock(&disk)?;
    let names = Names::read(&disk)?;
    names.remove_leftovers(&disk)?;
    let mut found = load_checkpoints(&disk, &names.checkpoints)?;
    names.check_complete(&found)?;
    // Damage that a reader has met must not be met again and again: now it keeps the journal from being opened.
    let verify = if names.damaged { Verify::All } else { config.verify };
    let (sealed, last, unread) = match names.segments.split_last() {
        Some((&last, sealed)) => open_segments(&disk, verify, &found, sealed, last)?,
        None => (BTreeMap::new(), Last::create(&disk, 1, 0)?, Vec::new()),
    };
    remove_if_there(&disk, DAMAGED)?;
    disk.sync_dir().map_err(Error::io("sync the directory of", &segment::file_name(last.header.id)))?;

    let Repaired { tail, active, cut } = last.repair(&disk)?;
    let shared = Shared::new(disk, Map { sealed, active });
    let end = Position { segment: tail.id, offset: tail.end };
    let checkpoints_damaged = found.damaged;
    let checkpoint = found.newest.take().map(|(checkpoint, _)| checkpoint);
    let recovered = Recovered { checkpoint, checkpoints_damaged, cut, unread, end };
    Ok((Journal::new(shared, config, tail, found.checkpoints, lock), recovered))
}

pub(crate) fn lock<D: Disk>(disk: &D) -> Result<D::Lock, Error> {
    disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked,
        _ => Error::Io { action: "lock", file: "LOCK".to_owned(), source: error },
    })
}

/// Our files in the directory, by kind.
pub(crate) struct Names {
    /// In ascending order.
    pub(crate) segments: Vec<u64>,
    /// Newest first.
    pub(crate) checkpoints: Vec<u64>,
    /// What a crash left behind.
    leftovers: Vec<String>,
    /// Whether a reader has met damage.
    damaged: bool,
}

impl Names {
    /// Files with other names are none of ours and stay.
    pub(crate) fn read<D: Disk>(disk: &D) -> Result<Self, Error> {
        let names = disk.list().map_err(Error::io("list", "."))?;
        let mut segments: Vec<_> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
        let mut checkpoints: Vec<_> = names.iter().filter_map(|name| checkpoint::parse_name(name)).collect();
        segments.sort_unstable();
        checkpoints.sort_unstable_by(|a, b| b.cmp(a));
        let damaged = names.iter().any(|name| name == DAMAGED);
        let is_orphan = |name: &str| index::parse_name(name).is_some_and(|id| segments.binary_search(&id).is_err());
        let leftovers = names.into_iter().filter(|name| is_orphan(name) || name == checkpoint::TEMPORARY).collect();
        Ok(Self { segments, checkpoints, leftovers, damaged })
    }

    fn remove_leftovers<D: Disk>(&self, disk: &D) -> Result<(), Error> {
        self.leftovers.iter().try_for_each(|name| disk.remove(name).map_err(Error::io("remove", name)))
    }

    /// Refuses unless everything is there that a replay or the state of the checkpoint needs.
    pub(crate) fn check_complete(&self, found: &FoundCheckpoints) -> Result<(), Error> {
        let first = found.newest.as_ref().map_or(Position::START.segment, |(newest, _)| newest.covers.segment);
        let last = self.segments.last().copied().unwrap_or(0).max(found.durable.segment);
        let needed = found.checkpoints.needed.iter().flat_map(Needed::ids);
        let missing = needed.chain(first..=last).find(|id| self.segments.binary_search(id).is_err());
        match (missing, found.damaged.first(), &found.newest) {
            (Some(_), Some(file), None) => {
                Err(Error::corrupt(file, 0, "the checkpoint is damaged, and what it stood for cannot be replayed"))
            }
            (Some(id), _, _) => Err(Error::MissingSegment { id }),
            (None, _, _) => Ok(()),
        }
    }
}

pub(crate) struct FoundCheckpoints {
    /// With its number.
    pub(crate) newest: Option<(Checkpoint, u64)>,
    pub(crate) damaged: Vec<String>,
    /// Everything before it was synced, as the checkpoints know.
    pub(crate) durable: Position,
    checkpoints: Checkpoints,
}

pub(crate) fn load_checkpoints<D: Disk>(disk: &D, numbers: &[u64]) -> Result<FoundCheckpoints, Error> {
    let mut found = FoundCheckpoints {
        newest: None,
        damaged: Vec::new(),
        durable: Position { segment: 0, offset: 0 },
        checkpoints: Checkpoints { number_next: numbers.first().map_or(1, |newest| newest + 1), ..Default::default() },
    };
    for &number in numbers {
        let name = checkpoint::file_name(number);
        if found.checkpoints.kept.len() == CHECKPOINTS_KEPT {
            found.checkpoints.stale.push(name);
            continue;
        }
        let Some(Loaded { kept, needed, state }) = checkpoint::load(disk, number)? else {
            found.damaged.push(name.clone());
            found.checkpoints.stale.push(name);
            continue;
        };
        found.durable = found.durable.max(kept.header.durable);
        found.checkpoints.kept.push(kept);
        if found.newest.is_none() {
            found.newest = Some((Checkpoint { covers: kept.header.covers, state }, number));
            // What an older one needed may have been removed with the blessing of one that is damaged now.
            found.checkpoints.needed = needed.filter(|_| found.damaged.is_empty());
        }
    }
    Ok(found)
}

/// The sealed segments, the last one, and which of the sealed ones were not read.
type Segments<F> = (BTreeMap<u64, Arc<Sealed>>, Last<F>, Vec<u64>);

fn open_segments<D: Disk>(
    disk: &D,
    verify: Verify,
    found: &FoundCheckpoints,
    sealed_ids: &[u64],
    last_id: u64,
) -> Result<Segments<D::File>, Error> {
    let Opened { file, size, header } = segment::open(disk, last_id)?;
    // Walking backwards, each segment's header tells where the one before it ended.
    let mut next = header.as_ref().ok().copied();
    let mut sealed = BTreeMap::new();
    let mut unread = Vec::new();
    let covered = found.newest.as_ref().map_or(0, |(newest, _)| newest.covers.segment);
    for &id in sealed_ids.iter().rev() {
        let Opened { file, size, header } = segment::open(disk, id)?;
        let header = header?;
        let follows = next.filter(|next| next.id == id + 1 && next.previous_end != 0);
        let segment = Sound { file, size, header };
        // The segment before one that never began may have an index file from an earlier seal.
        let index_may_be_old = id + 1 == last_id && next.is_none();
        let end = follows.map(|next| u64::from(next.previous_end));
        let scan = verify == Verify::All || id >= covered || index_may_be_old;
        let (one, was_read) = segment.into_sealed(disk, end, scan, index_may_be_old)?;
        if !was_read {
            unread.push(id);
        }
        sealed.insert(id, Arc::new(one));
        next = Some(header);
    }
    let last = match header {
        Ok(header) => Last::read(disk, Sound { file, size, header }, found.durable)?,
        // A header is synced before the first frame, so there was none.
        Err(Error::Corrupt { .. }) if size <= SEGMENT_HEADER_BYTES => {
            let name = segment::file_name(last_id);
            if found.durable > (Position { segment: last_id, offset: SEGMENT_HEADER_BYTES }) {
                return Err(Error::corrupt(&name, 0, "a checkpoint knows that frames were synced here"));
            }
            let previous = last_id.checked_sub(1).and_then(|id| sealed.get(&id));
            Last::create(disk, last_id, previous.map_or(0, |one| narrow(one.end)))?
        }
        Err(error) => return Err(error),
    };
    unread.reverse();
    Ok((sealed, last, unread))
}

/// A segment whose header is sound.
pub(crate) struct Sound<F> {
    pub(crate) file: F,
    pub(crate) size: u64,
    pub(crate) header: SegmentHeader,
}

impl<F: DiskFile> Sound<F> {
    /// Checks a segment that was synced to its end, and makes its index file good if it is not. Tells as well whether the
    /// frames were read.
    fn into_sealed<D: Disk>(
        self,
        disk: &D,
        end: Option<u64>,
        scan: bool,
        index_may_be_old: bool,
    ) -> Result<(Sealed, bool), Error> {
        let SegmentHeader { id, salt, .. } = self.header;
        let name = segment::file_name(id);
        let index = if index_may_be_old { None } else { index::load(disk, id, salt)? };
        let end = end.or(index.as_ref().map(|index| index.end)).unwrap_or(self.size);
        if self.size != end {
            return Err(Error::corrupt(&name, self.size.min(end), "the sealed segment has another size"));
        }
        let index = index.filter(|index| index.end == end);
        if let Some(index) = index {
            if scan {
                self.scan_strictly(end, &mut None)?;
            }
            return Ok((index, scan));
        }
        let mut entries = Some(MemoryIndex::default());
        self.scan_strictly(end, &mut entries)?;
        Ok((index::write(disk, id, salt, end, &entries.unwrap_or_default())?, true))
    }

    pub(crate) fn scan_strictly(&self, end: u64, index: &mut Option<MemoryIndex>) -> Result<(), Error> {
        let name = segment::file_name(self.header.id);
        let mut scanner = Scanner::new(&self.file, self.header.seed(), SEGMENT_HEADER_BYTES, end);
        loop {
            match scanner.step().map_err(Error::io("read", &name))? {
                Step::Entry { offset, key, payload, .. } => {
                    if let (Some(index), Some(key)) = (index.as_mut(), key) {
                        index.insert(key, offset, narrow(payload.len() as u64));
                    }
                }
                Step::End { .. } => return Ok(()),
                Step::Mark { offset } => {
                    return Err(Error::corrupt(&name, offset, "a mark stands in a sealed segment"));
                }
                Step::Bad { offset, reason } => return Err(Error::corrupt(&name, offset, reason)),
            }
        }
    }
}

/// The last segment, ready to be written to.
struct Repaired<F> {
    tail: Tail<F>,
    active: Active<F>,
    cut: Option<Cut>,
}

/// The last segment, before it is repaired.
pub(crate) struct Last<F> {
    file: F,
    header: SegmentHeader,
    index: MemoryIndex,
    /// Where the sound frames end.
    end: u64,
    /// Everything before it was synced, as the frames know.
    durable: u64,
    /// Bytes behind the end that no mark accounts for, up to the last one that is not zero.
    pub(crate) torn_bytes: u64,
    /// Where the zeros begin that stand behind all of it.
    zeros: Option<u64>,
}

impl<F: DiskFile> Last<F> {
    fn create<D: Disk<File = F>>(disk: &D, id: u64, previous_end: u32) -> Result<Self, Error> {
        let (file, header) = segment::create(disk, id, previous_end)?;
        let (end, durable) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
        Ok(Self { file, header, index: MemoryIndex::default(), end, durable, torn_bytes: 0, zeros: None })
    }

    /// Reads the frames up to the first bad one, and refuses if that one was sound once.
    pub(crate) fn read<D: Disk<File = F>>(disk: &D, segment: Sound<F>, known: Position) -> Result<Self, Error> {
        let Sound { file, size, header } = segment;
        let name = segment::file_name(header.id);
        let mut synced = if known.segment == header.id { known.offset } else { SEGMENT_HEADER_BYTES };
        // A crash on the way to the next segment leaves an index file, which was written after a sync.
        if let Some(index) = index::load(disk, header.id, header.salt)? {
            synced = synced.max(index.end);
        }
        let mut index = MemoryIndex::default();
        let mut scanner = Scanner::new(&file, header.seed(), SEGMENT_HEADER_BYTES, size);
        let (end, accounted, reason) = loop {
            match scanner.step().map_err(Error::io("read", &name))? {
                Step::Entry { offset, key, payload, durable } => {
                    synced = synced.max(durable);
                    if let Some(key) = key {
                        index.insert(key, offset, narrow(payload.len() as u64));
                    }
                }
                Step::Mark { offset } => {
                    synced = synced.max(offset);
                    break (offset, offset + FRAME_HEADER_BYTES, "frames that were synced are overwritten by a mark");
                }
                Step::Bad { offset, reason } => break (offset, offset, reason),
                Step::End { offset } => break (offset, offset, "frames that were synced are cut off"),
            }
        };
        let was_synced = || scan::was_synced(&file, header.seed(), end, size).map_err(Error::io("read", &name));
        if synced > end || was_synced()? {
            return Err(Error::corrupt(&name, end, reason));
        }
        // Zeros were written ahead, and no frame begins with them. A few may as well be the end of what is torn.
        let zeros = scan::zeros_start(&file, accounted, size).map_err(Error::io("read", &name))?;
        let zeros = (size - zeros >= FRAME_HEADER_BYTES).then_some(zeros);
        let torn_bytes = zeros.unwrap_or(size) - accounted;
        Ok(Self { file, header, index, end, durable: synced, torn_bytes, zeros })
    }

    /// Cuts a torn tail and makes everything before it durable.
    fn repair<D: Disk<File = F>>(self, disk: &D) -> Result<Repaired<F>, Error> {
        let SegmentHeader { id, salt, .. } = self.header;
        let name = segment::file_name(id);
        remove_if_there(disk, &index::file_name(id))?;
        let cut = (self.torn_bytes > 0).then(|| Cut { file: name.clone(), offset: self.end, bytes: self.torn_bytes });
        // The zeros go as well: nobody knows whether they are on disk, and the first small write brings new ones.
        if let Some(end) = cut.as_ref().map(|cut| cut.offset).or(self.zeros) {
            self.file.truncate(end).map_err(Error::io("cut", &name))?;
        }
        self.rewrite(&name)?;
        self.file.sync_data().map_err(Error::io("sync", &name))?;
        let mut tail = Tail::new(id, self.header.seed(), Arc::new(self.file));
        (tail.end, tail.durable, tail.file_end) = (self.end, self.end, self.end);
        tail.mark()?;
        let active = Active { id, salt, file: Arc::clone(&tail.file), index: self.index };
        Ok(Repaired { tail, active, cut })
    }

    /// Writes once more what nobody knows to be synced.
    ///
    /// After a sync that failed, the system may show bytes that are not on disk and that a later sync would not write
    /// either, since it takes them for clean.
    fn rewrite(&self, name: &str) -> Result<(), Error> {
        // Not even the segment's header is known to be synced as long as no frame says so.
        let mut at = if self.durable > SEGMENT_HEADER_BYTES { self.durable } else { 0 };
        let mut bytes = Vec::new();
        while at < self.end {
            bytes.resize(scan::length((self.end - at).min(REWRITE_BYTES)), 0);
            self.file.read_at(&mut bytes, at).map_err(Error::io("read", name))?;
            self.file.write_at(&bytes, at).map_err(Error::io("write", name))?;
            at += bytes.len() as u64;
        }
        Ok(())
    }
}

fn remove_if_there<D: Disk>(disk: &D, name: &str) -> Result<(), Error> {
    match disk.remove(name).map_err(Error::io("remove", name)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
