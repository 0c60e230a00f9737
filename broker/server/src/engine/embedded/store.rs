//! The disk that the journal is on: a directory, and whoever keeps a copy of it elsewhere.

use std::fmt;
use std::io;
use std::sync::Arc;

use broker_log::{Disk, DiskFile, OsDisk, OsFile};

/// The journal of an engine, and what reads it.
pub(super) type Journal = broker_log::Journal<Store>;
/// Reads an engine's journal.
pub(super) type Reader = broker_log::Reader<Store>;

/// What a file is called that lives for a moment, and is given its name once it is whole.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// What a reader leaves behind that has met damage. The damage is this copy's alone.
const DAMAGED: &str = "DAMAGED";

/// Hears of each change of the journal's files before it counts as durable, in the order of the changes.
///
/// **Invariant:** what was noted before a flush that succeeded is durable, and what survives of the rest is a prefix.
pub(crate) trait Mirror: fmt::Debug + Send + Sync + 'static {
    /// Hears of a change. It may wait for room.
    fn note(&self, file: &str, change: Change<'_>) -> io::Result<()>;
    /// Waits until all that was noted is durable.
    fn flush(&self) -> io::Result<()>;
    /// Whether the directory belongs to somebody else by now. Nothing is opened in it any more then.
    fn is_over(&self) -> bool;
}

/// A change of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'c> {
    /// It is there and empty.
    Create,
    /// Bytes from an offset on.
    Write { offset: u64, bytes: &'c [u8] },
    /// Nothing is left behind a size.
    Truncate { size: u64 },
    /// It is there with this content, at once.
    Place { content: &'c [u8] },
    /// It is gone.
    Remove,
}

/// A directory, with a mirror or on its own.
#[derive(Debug)]
pub(crate) struct Store {
    local: OsDisk,
    mirror: Option<Arc<dyn Mirror>>,
}

/// A file of a [`Store`].
#[derive(Debug)]
pub(crate) struct StoreFile {
    name: String,
    local: OsFile,
    mirror: Option<Arc<dyn Mirror>>,
}

impl Store {
    /// With a mirror, durable is what the mirror says is durable; the directory is a copy then, and is never synced.
    pub(crate) fn new(local: OsDisk, mirror: Option<Arc<dyn Mirror>>) -> Self {
        Self { local, mirror }
    }

    fn mirror_of(&self, name: &str) -> Option<&Arc<dyn Mirror>> {
        self.mirror.as_ref().filter(|_| !name.ends_with(TEMPORARY_SUFFIX) && name != DAMAGED)
    }

    /// Whoever reads on for a moment must not take the files of the next one for damaged ones of its own.
    fn check(&self) -> io::Result<()> {
        match &self.mirror {
            Some(mirror) if mirror.is_over() => Err(io::Error::other("this copy of the journal was given up")),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str, local: OsFile) -> StoreFile {
        StoreFile { name: name.to_owned(), local, mirror: self.mirror_of(name).cloned() }
    }
}

impl Disk for Store {
    type File = StoreFile;
    type Lock = <OsDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.local.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.local.list()
    }

    fn create(&self, name: &str) -> io::Result<StoreFile> {
        self.check()?;
        let local = self.local.create(name)?;
        if let Some(mirror) = self.mirror_of(name) {
            mirror.note(name, Change::Create)?;
        }
        Ok(self.file(name, local))
    }

    fn open(&self, name: &str) -> io::Result<StoreFile> {
        self.check()?;
        let local = self.local.open(name)?;
        Ok(self.file(name, local))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check()?;
        self.local.remove(name)?;
        self.mirror_of(name).map_or(Ok(()), |mirror| mirror.note(name, Change::Remove))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        self.local.rename(from, to)?;
        let Some(mirror) = self.mirror_of(to) else { return Ok(()) };
        let file = self.local.open(to)?;
        let mut content = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_at(&mut content, 0)?;
        mirror.note(to, Change::Place { content: &content })?;
        self.mirror_of(from).map_or(Ok(()), |mirror| mirror.note(from, Change::Remove))
    }

    fn sync_dir(&self) -> io::Result<()> {
        match &self.mirror {
            Some(mirror) => mirror.flush(),
            None => self.local.sync_dir(),
        }
    }
}

impl DiskFile for StoreFile {
    fn size(&self) -> io::Result<u64> {
        self.local.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.local.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.local.write_at(bytes, offset)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.note(&self.name, Change::Write { offset, bytes }))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.local.truncate(size)?;
        self.mirror.as_ref().map_or(Ok(()), |mirror| mirror.note(&self.name, Change::Truncate { size }))
    }

    fn sync_data(&self) -> io::Result<()> {
        match &self.mirror {
            Some(mirror) => mirror.flush(),
            None => self.local.sync_data(),
        }
    }
}
