//! The copy of the journal's files that a front keeps: it applies the changes in the order of the stream.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use broker_log::{Disk, OsDisk};

use super::change::{Piece, decode};
use super::cluster::{Cluster, Stored};
use super::failure::Failure;
use super::transfer;

/// The file whose lock keeps a second process out; it stays.
const LOCK: &str = "LOCK";
/// What is put behind the name of a file that is not whole yet.
const STAGED_SUFFIX: &str = ".part";

/// A directory that follows the stream.
#[derive(Debug)]
pub(super) struct Copy {
    dir: PathBuf,
    /// The subjects of files begin with it.
    files: String,
    /// The subject of transfers.
    transfer: String,
    /// A journal was being copied into the stream, and is not whole yet.
    pub(super) is_partial: bool,
    /// The last change that it holds, or passed over.
    pub(super) last: u64,
    /// The file that was written last, since most changes concern the same one.
    open: Option<(String, File)>,
    /// Keeps other processes out.
    _lock: <OsDisk as Disk>::Lock,
}

impl Copy {
    /// Empties the directory and starts from nothing.
    pub(super) fn empty(dir: PathBuf, cluster: &Cluster) -> Result<Self, Failure> {
        Self::of(dir, cluster.file_subjects(), cluster.transfer_subject())
    }

    fn of(dir: PathBuf, files: String, transfer: String) -> Result<Self, Failure> {
        let failed = |source| Failure::Directory { dir: dir.clone(), source };
        let lock = OsDisk::new(&dir).and_then(|disk| disk.lock()).map_err(failed)?;
        clear(&dir).map_err(failed)?;
        Ok(Self { dir, files, transfer, is_partial: false, last: 0, open: None, _lock: lock })
    }

    /// Whether there is no file of a journal in it.
    pub(super) fn is_empty(&self) -> Result<bool, Failure> {
        let names = OsDisk::new(&self.dir).and_then(|disk| disk.list());
        let names = names.map_err(|source| Failure::Directory { dir: self.dir.clone(), source })?;
        Ok(!names.iter().any(|name| broker_log::is_file_of_journal(name)))
    }

    /// Applies what follows in the stream. Blocks.
    pub(super) fn apply(&mut self, changes: Vec<Stored>) -> Result<(), Failure> {
        for Stored { sequence, subject, payload, .. } in changes {
            if let Some(file) = subject.strip_prefix(self.files.as_str()) {
                if file.is_empty() || file.contains('/') {
                    return Err(Failure::Change { sequence, why: "its file has no proper name" });
                }
                let piece = decode(payload).map_err(|why| Failure::Change { sequence, why })?;
                let applied = self.apply_one(file, &piece);
                applied.map_err(|source| Failure::Directory { dir: self.dir.join(file), source })?;
            } else if subject == self.transfer {
                let begins =
                    transfer::begins(&payload).ok_or(Failure::Change { sequence, why: "it is no transfer" })?;
                if begins {
                    // What a transfer before it has brought is no part of this one.
                    self.open = None;
                    clear(&self.dir).map_err(|source| Failure::Directory { dir: self.dir.clone(), source })?;
                }
                self.is_partial = begins;
            }
            self.last = sequence;
        }
        Ok(())
    }

    /// What was removed may be half known: its changes are purged while somebody reads them. So nothing here needs the
    /// file to be there.
    fn apply_one(&mut self, file: &str, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Create => self.file(file)?.set_len(0),
            Piece::Write { offset, bytes } => self.file(file)?.write_all_at(bytes, *offset),
            Piece::Truncate { size } => self.file(file)?.set_len(*size),
            Piece::Stage { offset, bytes } => self.file(&staged(file))?.write_all_at(bytes, *offset),
            Piece::Commit { size } => {
                self.file(&staged(file))?.set_len(*size)?;
                self.open = None;
                fs::rename(self.dir.join(staged(file)), self.dir.join(file))
            }
            Piece::Remove => {
                self.open = None;
                remove_if_there(&self.dir.join(file))?;
                remove_if_there(&self.dir.join(staged(file)))
            }
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Whether there is nothing in a directory that a copy could not have left there; also when the directory is not there.
pub(super) fn is_only_a_copy(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { return Ok(false) };
        let file = name.strip_suffix(STAGED_SUFFIX).unwrap_or(name);
        if file != LOCK && !broker_log::is_file_of_journal(file) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes everything but the lock.
fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn staged(file: &str) -> String {
    format!("{file}{STAGED_SUFFIX}")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::change::encode;
    use super::*;
    use crate::engine::embedded::Change;

    fn stored(changes: &[(&str, Change<'_>)]) -> Vec<Stored> {
        let messages = changes.iter().flat_map(|(file, change)| {
            let subject = format!("orderflow.test.file.{file}");
            encode(*change).into_iter().map(move |payload| (subject.clone(), payload))
        });
        (1..)
            .zip(messages)
            .map(|(sequence, (subject, payload))| Stored { sequence, previous: sequence - 1, subject, payload })
            .collect()
    }

    fn of(dir: &TempDir) -> Result<Copy, Failure> {
        Copy::of(dir.path().join("copy"), "orderflow.test.file.".to_owned(), "orderflow.test.transfer".to_owned())
    }

    fn copy(dir: &TempDir) -> Copy {
        of(dir).unwrap()
    }

    #[test]
    fn a_copy_becomes_what_the_changes_say() {
        let dir = TempDir::new().unwrap();
        let mut copy = copy(&dir);
        let changes = stored(&[
            ("a.log", Change::Create),
            ("a.log", Change::Write { offset: 0, bytes: b"hello" }),
            ("b.ckp", Change::Place { content: b"state" }),
            ("a.log", Change::Write { offset: 5, bytes: b" world" }),
            ("c.log", Change::Write { offset: 0, bytes: b"gone" }),
            ("a.log", Change::Truncate { size: 7 }),
            ("c.log", Change::Remove),
            ("never-seen.log", Change::Remove),
        ]);
        copy.apply(changes).unwrap();
        let read = |name: &str| fs::read(dir.path().join("copy").join(name)).unwrap();
        assert_eq!((read("a.log"), read("b.ckp")), (b"hello w".to_vec(), b"state".to_vec()));
        assert_eq!(fs::read_dir(dir.path().join("copy")).unwrap().count(), 3, "two files and the lock");
        assert_eq!(copy.last, 9);
    }

    #[test]
    fn a_file_that_was_placed_is_there_whole_or_not_at_all() {
        let dir = TempDir::new().unwrap();
        let mut copy = copy(&dir);
        let mut changes = stored(&[("b.ckp", Change::Place { content: b"state" })]);
        let commit = changes.split_off(1);
        copy.apply(changes).unwrap();
        assert!(!dir.path().join("copy/b.ckp").exists());
        copy.apply(commit).unwrap();
        assert!(dir.path().join("copy/b.ckp").exists());
    }

    #[test]
    fn a_start_empties_the_copy_and_a_second_process_is_kept_out() {
        let dir = TempDir::new().unwrap();
        let mut first = copy(&dir);
        first.apply(stored(&[("a.log", Change::Create)])).unwrap();
        let second = of(&dir);
        assert!(matches!(second, Err(Failure::Directory { source, .. }) if source.kind() == io::ErrorKind::WouldBlock));
        drop(first);
        drop(copy(&dir));
        assert!(!dir.path().join("copy/a.log").exists());
    }

    #[test]
    fn a_transfer_that_begins_discards_what_was_there_and_is_partial_until_it_is_done() {
        let dir = TempDir::new().unwrap();
        let mut copy = copy(&dir);
        let says = |sequence, payload: &'static [u8]| {
            let (subject, payload) = ("orderflow.test.transfer".to_owned(), payload.into());
            vec![Stored { sequence, previous: 0, subject, payload }]
        };
        copy.apply(stored(&[("a.log", Change::Create)])).unwrap();
        copy.apply(says(2, transfer::BEGUN)).unwrap();
        assert!(copy.is_partial && !dir.path().join("copy/a.log").exists());
        copy.apply(stored(&[("b.log", Change::Create)])).unwrap();
        copy.apply(says(4, transfer::DONE)).unwrap();
        assert!(!copy.is_partial && dir.path().join("copy/b.log").exists());
        let refused = copy.apply(says(5, b"else"));
        assert!(matches!(refused, Err(Failure::Change { sequence: 5, .. })), "{refused:?}");
    }

    #[test]
    fn a_change_of_a_file_elsewhere_is_refused() {
        let dir = TempDir::new().unwrap();
        let mut copy = copy(&dir);
        for name in ["", "../a.log"] {
            let refused = copy.apply(stored(&[(name, Change::Create)]));
            assert!(matches!(refused, Err(Failure::Change { sequence: 1, .. })), "{refused:?}");
        }
    }
}
