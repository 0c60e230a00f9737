//! A disk in memory that keeps apart what the system shows and what a loss of power would leave.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use broker_log::{Disk, DiskFile};

/// Small, so that small entries are torn as well.
const PAGE: usize = 64;

#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    locked: bool,
    /// How many changes still succeed before one fails.
    fuse: Option<u64>,
    capacity: Option<usize>,
    counts: Counts,
    bytes_read: u64,
    random: u64,
}

/// What was asked of the disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) changes: u64,
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
}

#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl SimDisk {
    /// Power is lost: names and pages that were not synced may be there or not, whole or in part, in any combination.
    pub(crate) fn lose_power(&self, seed: u64) {
        let mut state = self.state();
        state.random = seed | 1;
        let mut random = state.random;
        for inode in &mut state.inodes {
            inode.lose_power(&mut random);
        }
        let all: BTreeSet<_> = state.names.keys().chain(state.names_durable.keys()).cloned().collect();
        for name in all {
            let (new, old) = (state.names.get(&name).copied(), state.names_durable.get(&name).copied());
            let one = if next(&mut random, 2) == 0 { new } else { old };
            match one {
                Some(inode) => {
                    state.names.insert(name.clone(), inode);
                    state.names_durable.insert(name, inode);
                }
                None => {
                    state.names.remove(&name);
                    state.names_durable.remove(&name);
                }
            }
        }
        state.stop(random);
    }

    /// The process dies and the system lives on.
    pub(crate) fn kill_process(&self) {
        let mut state = self.state();
        let random = state.random;
        state.stop(random);
    }

    /// The change after the next `changes` ones fails.
    pub(crate) fn fail_after(&self, changes: u64) {
        self.state().fuse = Some(changes);
    }

    pub(crate) fn capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// How much was read from files so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].bytes.clone()
    }

    /// Alters a file behind the journal's back, on disk and in what the system shows.
    pub(crate) fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[name];
        let inode = &mut state.inodes[inode];
        change(&mut inode.bytes);
        inode.durable.clone_from(&inode.bytes);
        inode.dirty.clear();
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name).unwrap();
        state.names_durable.remove(name);
    }

    /// An independent disk with the same content, as after a clean stop of the machine.
    pub(crate) fn copy(&self) -> Self {
        let state = self.state();
        let mut copy = State::default();
        for (name, &inode) in &state.names {
            let bytes = state.inodes[inode].bytes.clone();
            copy.names.insert(name.clone(), copy.inodes.len());
            copy.inodes.push(Inode { durable: bytes.clone(), bytes, dirty: BTreeSet::new() });
        }
        copy.names_durable.clone_from(&copy.names);
        Self(Arc::new(Mutex::new(copy)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn stop(&mut self, random: u64) {
        self.random = random | 1;
        self.fuse = None;
        self.locked = false;
    }

    /// Counts a change and says whether it is the one that fails.
    fn fails(&mut self) -> bool {
        self.counts.changes += 1;
        match &mut self.fuse {
            Some(0) => {
                self.fuse = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn change(&mut self) -> io::Result<()> {
        if self.fails() { Err(io::Error::other("simulated failure")) } else { Ok(()) }
    }

    fn used(&self) -> usize {
        self.names.values().map(|&inode| self.inodes[inode].bytes.len()).sum()
    }
}

impl Inode {
    fn lose_power(&mut self, random: &mut u64) {
        let (old, new) = (self.durable.len(), self.bytes.len());
        let size = match next(random, 3) {
            0 => old,
            1 => new,
            _ => old.min(new) + next(random, old.abs_diff(new) + 1),
        };
        self.durable.resize(size, 0);
        for page in std::mem::take(&mut self.dirty) {
            let start = page * PAGE;
            let end = (start + PAGE).min(self.bytes.len()).min(size);
            let end = match next(random, 4) {
                0 => start,
                1 => start + next(random, PAGE),
                _ => end,
            }
            .min(end);
            if start < end {
                self.durable[start..end].copy_from_slice(&self.bytes[start..end]);
            }
        }
        self.bytes.clone_from(&self.durable);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        let from = self.bytes.len().min(offset);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.dirty.extend(from / PAGE..end.div_ceil(PAGE));
    }

    fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let range = page * PAGE..(page * PAGE + PAGE).min(self.bytes.len());
            if range.start < range.end {
                self.durable[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> io::Result<SimLock> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimLock(Arc::clone(&self.0)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.change()?;
        let inode = match state.names.get(name) {
            Some(&inode) => inode,
            None => {
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.names.insert(name.to_owned(), inode);
                inode
            }
        };
        state.inodes[inode].bytes.clear();
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.state().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change()?;
        state.names.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.names_durable = state.names.clone();
        Ok(())
    }
}

pub(crate) struct SimLock(Arc<Mutex<State>>);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.lock().unwrap().locked = false;
    }
}

pub(crate) struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.bytes_read += buffer.len() as u64;
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.inodes[self.inode].bytes.get(offset..offset + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let offset = usize::try_from(offset).unwrap();
        state.counts.writes += 1;
        let fails = state.fails();
        let grows = (offset + bytes.len()).saturating_sub(state.inodes[self.inode].bytes.len());
        let full = state.capacity.is_some_and(|capacity| state.used() + grows > capacity);
        if fails || full {
            let part = next(&mut state.random, bytes.len() + 1);
            state.inodes[self.inode].write(&bytes[..part], offset);
            let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            return Err(kind.into());
        }
        state.inodes[self.inode].write(bytes, offset);
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        state.inodes[self.inode].bytes.truncate(usize::try_from(size).unwrap());
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.counts.syncs += 1;
        if state.fails() {
            // As Linux does it: the pages count as clean from now on, though they never reached the disk.
            state.inodes[self.inode].dirty.clear();
            return Err(io::Error::other("simulated failure"));
        }
        state.inodes[self.inode].sync();
        Ok(())
    }
}

/// A number below `limit`, from a xorshift generator.
fn next(random: &mut u64, limit: usize) -> usize {
    *random |= 1;
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    usize::try_from((*random >> 20) % limit as u64).unwrap()
}
