use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Everything the journal asks of a disk, so that tests can simulate one. Files are named, flat, in one directory.
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Keeps the directory to ourselves as long as it lives.
    type Lock: Send + Sync + 'static;

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another one holds it.
    fn lock(&self) -> io::Result<Self::Lock>;

    /// The names of all files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file, or empties the one that has this name, for reading and writing.
    ///
    /// # Errors
    /// When the file cannot be created.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, replacing the file that has it.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    /// When they may not be durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file. All methods take `&self`, since one thread writes while others read.
pub trait DiskFile: Send + Sync + 'static {
    /// The file's size in bytes.
    ///
    /// # Errors
    /// When it cannot be learned.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before the buffer does.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// When not all of them could be written; how many were is unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to `size` bytes.
    ///
    /// # Errors
    /// When the file cannot be cut.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes the file's content and size durable.
    ///
    /// # Errors
    /// When they may not be durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// The name of the file whose lock keeps a second process out.
const LOCK: &str = "LOCK";

/// A directory of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    dir: PathBuf,
}

impl OsDisk {
    /// Uses `dir`, and creates it first when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be created or made durable.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            let absolute = fs::canonicalize(&dir)?;
            for parent in absolute.ancestors().skip(1) {
                // A parent that may not be read was not created here.
                if sync_path(parent).is_err() {
                    break;
                }
            }
        }
        Ok(Self { dir })
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Disk for OsDisk {
    type File = OsFile;
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not text cannot be ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let path = self.dir.join(name);
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map(OsFile)
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        OpenOptions::new().read(true).write(true).open(self.dir.join(name)).map(OsFile)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_path(&self.dir)
    }
}

/// A file of the operating system.
#[derive(Debug)]
pub struct OsFile(File);

impl DiskFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn sync_path(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
