//! The broker's journal, read whole and without a change.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use broker_log::{Disk, DiskFile, Error};

use super::Finding;
use crate::up::quoted;

/// A larger journal is not read: that would take too long. In bytes.
const READ_BYTES_MAX: u64 = 4 << 30;
const ABOUT: &str = "journal";

/// Looks at the journal in a folder, if there is one.
pub(super) fn check(folder: &Path) -> Option<Finding> {
    let files = fs::read_dir(folder).ok()?.flatten();
    let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    if bytes > READ_BYTES_MAX {
        let says = format!("its {} MiB were not read", bytes >> 20);
        let remedy = format!("`orderflow broker check --data-dir {}` reads them", quoted(&folder.to_string_lossy()));
        return Some(Finding::warning(ABOUT, says, remedy));
    }
    Some(match broker_log::check(&ReadOnly(folder.to_owned())) {
        Ok(checked) if checked.checkpoints_damaged.is_empty() => {
            let torn = match checked.torn_bytes {
                0 => String::new(),
                torn => format!("; {torn} at its end were never confirmed, and the next start cuts them off"),
            };
            Finding::ok(ABOUT, format!("{} bytes in {} segments are sound{torn}", checked.bytes, checked.segments))
        }
        Ok(checked) => Finding::warning(
            ABOUT,
            format!("damaged checkpoint(s): {}", checked.checkpoints_damaged.join(", ")),
            "the next start passes over them; look at the disk",
        ),
        Err(error) => refused(&error, folder),
    })
}

fn refused(error: &Error, folder: &Path) -> Finding {
    let remedy = match error {
        Error::Version { .. } => {
            "a newer version wrote it: use that version, or another folder with --data-dir (ORDERFLOW_DATA_DIR)"
                .to_owned()
        }
        Error::Locked => "a broker works on it: end it, or ask it with `orderflow broker stats`".to_owned(),
        Error::Corrupt { .. } | Error::MissingSegment { .. } => {
            format!("restore `{}` from a backup, or begin anew with another folder", folder.display())
        }
        _ => "look at the disk and at who may read the folder".to_owned(),
    };
    Finding::problem(ABOUT, service_kit::status::chain(error), remedy)
}

/// A folder in which nothing can be changed.
struct ReadOnly(PathBuf);

/// A file that is open for reading.
struct ReadOnlyFile(File);

impl Disk for ReadOnly {
    type File = ReadOnlyFile;
    type Lock = Option<File>;

    /// Only says whether a broker holds the lock; other readers may look at the same time.
    fn lock(&self) -> io::Result<Option<File>> {
        let file = match File::open(self.0.join("LOCK")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries: Vec<fs::DirEntry> = fs::read_dir(&self.0)?.collect::<io::Result<_>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn create(&self, _: &str) -> io::Result<ReadOnlyFile> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<ReadOnlyFile> {
        File::open(self.0.join(name)).map(ReadOnlyFile)
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl DiskFile for ReadOnlyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
