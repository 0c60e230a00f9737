//! What the journal and its readers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::frame::Seed;
use crate::index::{MemoryIndex, Sealed};
use crate::{Disk, DiskFile, Error};

/// The file that is left behind when a reader meets damage.
pub(crate) const DAMAGED: &str = "DAMAGED";

/// The disk, and the map of what is on it.
pub(crate) struct Shared<D: Disk> {
    pub(crate) disk: D,
    map: RwLock<Map<D::File>>,
    poisoned: AtomicBool,
}

/// The segments as readers see them.
pub(crate) struct Map<F> {
    pub(crate) sealed: BTreeMap<u64, Arc<Sealed>>,
    pub(crate) active: Active<F>,
}

/// The segment that is written to.
pub(crate) struct Active<F> {
    pub(crate) id: u64,
    pub(crate) salt: u64,
    pub(crate) file: Arc<F>,
    pub(crate) index: MemoryIndex,
}

impl<F> Active<F> {
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.id, self.salt)
    }
}

impl<D: Disk> Shared<D> {
    pub(crate) fn new(disk: D, map: Map<D::File>) -> Self {
        Self { disk, map: RwLock::new(map), poisoned: AtomicBool::new(false) }
    }

    /// Held only while memory is looked at, never during a read of the disk: the writer waits for it.
    pub(crate) fn map(&self) -> RwLockReadGuard<'_, Map<D::File>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn map_mut(&self) -> RwLockWriteGuard<'_, Map<D::File>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Passes the outcome of a read, and leaves a file behind when it met damage, so that the next open reads everything
    /// and refuses, whatever it would pass over otherwise.
    pub(crate) fn report<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::Corrupt { .. }) = &outcome
            && let Ok(file) = self.disk.create(DAMAGED)
        {
            // The damage is what is reported, also when it can't be noted.
            let noted = file.write_at(error.to_string().as_bytes(), 0).and_then(|()| file.sync_data());
            noted.and_then(|()| self.disk.sync_dir()).ok();
        }
        outcome
    }

    /// Passes the outcome of something that changes the disk, and poisons the journal when it failed.
    pub(crate) fn guard<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        outcome
    }
}
