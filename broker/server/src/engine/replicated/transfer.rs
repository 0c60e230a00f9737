//! A journal moves: from a directory into a cluster, or back.
//!
//! **Invariant:** a transfer that was interrupted is never taken for a journal. In the stream a message says that one
//! begins and another that it is done; a directory gets its name once it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use broker_log::{Disk, OsDisk};
use bytes::Bytes;

use super::change::encode;
use super::claim::{Claim, Owner, Watched};
use super::cluster::Cluster;
use super::copy::{self, Copy};
use super::failure::Failure;
use super::options::Target;
use super::publisher::{self, Message, publish};
use crate::engine::embedded::{self, Change};

/// What the message says with which a transfer begins. What the stream holds before it counts no more.
pub(super) const BEGUN: &[u8] = b"begun";
/// What the message says with which it is done.
pub(super) const DONE: &[u8] = b"done";
/// How much of a file is read at a time, in bytes.
const READ_BYTES: usize = 4 << 20;
/// What is put behind the name of a directory that is not whole yet.
const PART_SUFFIX: &str = ".part";

/// What a transfer has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transferred {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Whether a transfer begins with a message, or is done; none if it says neither.
pub(super) fn begins(payload: &[u8]) -> Option<bool> {
    match payload {
        BEGUN => Some(true),
        DONE => Some(false),
        _ => None,
    }
}

/// Copies the journal of a directory into a cluster whose journal is empty, or was left by a transfer that was interrupted.
/// The directory stays as it is, and nobody can serve it meanwhile.
pub(crate) async fn copy_in(from: &Path, target: &Target) -> Result<Transferred, Failure> {
    tokio::task::block_in_place(|| embedded::check(from))?;
    let failed = |source| Failure::Directory { dir: from.to_owned(), source };
    let disk = OsDisk::new(from).map_err(failed)?;
    let _lock = disk.lock().map_err(failed)?;
    let mut names = disk.list().map_err(failed)?;
    names.retain(|name| broker_log::is_file_of_journal(name));
    let cluster = Cluster::join(target).await?;
    let (mut claim, own) = take(&cluster).await?;
    let copied = tokio::select! {
        copied = Inward { cluster: &cluster, own, last: 0 }.copy(from, names) => copied,
        failure = claim.keep() => Err(failure),
    };
    claim.release().await;
    copied
}

/// Copies the journal of a cluster into a directory that is new or empty. The stream stays as it is.
pub(crate) async fn copy_out(target: &Target, to: &Path) -> Result<Transferred, Failure> {
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::Taken(to.to_owned()));
    }
    // It is emptied, and may be somebody's.
    let part = with_suffix(to);
    let is_free = copy::is_only_a_copy(&part);
    if !is_free.map_err(|source| Failure::Directory { dir: part.clone(), source })? {
        return Err(Failure::Taken(part));
    }
    let cluster = Cluster::join(target).await?;
    let (mut claim, own) = take(&cluster).await?;
    let copied = tokio::select! {
        copied = outward(&cluster, &own, part.clone()) => copied,
        failure = claim.keep() => Err(failure),
    };
    let placed = match copied {
        // Not before it is sure that nobody has taken the journal, and served it, meanwhile.
        Ok(moved) => claim.confirm().await.and_then(|()| {
            let placed = place(&part, to).map_err(|source| Failure::Directory { dir: to.to_owned(), source });
            placed.map(|()| moved)
        }),
        Err(failure) => Err(failure),
    };
    claim.release().await;
    placed
}

/// Becomes the owner of a journal that nobody serves, without an address to forward to.
async fn take(cluster: &Cluster) -> Result<(Claim, Owner), Failure> {
    let own = Owner { id: cluster.client.new_inbox(), address: String::new(), draining: true };
    match Watched::default().wait(cluster, &own).await? {
        Ok(claim) => Ok((claim, own)),
        Err(Owner { address, .. }) => Err(Failure::Served { name: cluster.name.clone(), address }),
    }
}

/// A transfer into the stream.
struct Inward<'c> {
    cluster: &'c Cluster,
    own: Owner,
    /// The number of the last message of the stream.
    last: u64,
}

impl Inward<'_> {
    async fn copy(mut self, from: &Path, names: Vec<String>) -> Result<Transferred, Failure> {
        let before = self.cluster.transfer().await?;
        let is_partial = before.is_some_and(|payload| begins(&payload) == Some(true));
        if !is_partial && !self.cluster.files().await?.is_empty() {
            return Err(Failure::NotEmpty(self.cluster.name.clone()));
        }
        self.last = self.cluster.last().await?;
        let transfer = self.cluster.transfer_subject();
        self.say(&transfer, Bytes::from_static(BEGUN)).await?;
        self.cluster.purge_before(self.last).await?;
        let mut moved = Transferred::default();
        for name in names {
            moved.bytes += self.file(&from.join(&name), &name).await?;
            moved.files += 1;
        }
        self.say(&transfer, Bytes::from_static(DONE)).await?;
        Ok(moved)
    }

    /// Answers with the size of the file.
    async fn file(&mut self, path: &Path, name: &str) -> Result<u64, Failure> {
        let failed = |source| Failure::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let subject = format!("{}{name}", self.cluster.file_subjects());
        self.change(&subject, Change::Create).await?;
        let mut offset = 0;
        while offset < size {
            let wanted = usize::try_from(size - offset).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let mut bytes = vec![0; wanted];
            tokio::task::block_in_place(|| file.read_exact_at(&mut bytes, offset)).map_err(failed)?;
            self.change(&subject, Change::Write { offset, bytes: &bytes }).await?;
            offset += wanted as u64;
        }
        Ok(size)
    }

    async fn change(&mut self, subject: &str, change: Change<'_>) -> Result<(), Failure> {
        for payload in encode(change) {
            self.say(subject, payload).await?;
        }
        Ok(())
    }

    async fn say(&mut self, subject: &str, payload: Bytes) -> Result<(), Failure> {
        let message = Message { subject: subject.to_owned(), payload };
        let id = |sequence| format!("transfer.{}.{sequence}", self.own.id);
        self.last = publish(self.cluster, &[message], self.last, id).await?;
        Ok(())
    }
}

/// Makes a directory that is whole and durable.
async fn outward(cluster: &Cluster, own: &Owner, part: PathBuf) -> Result<Transferred, Failure> {
    let mut copy = Copy::empty(part.clone(), cluster)?;
    loop {
        let changes = cluster.after(copy.last).await?;
        if !changes.is_empty() {
            tokio::task::block_in_place(|| copy.apply(changes))?;
        } else if copy.is_partial {
            return Err(Failure::Partial(cluster.name.clone()));
        } else if copy.is_empty()? {
            return Err(Failure::Nothing(cluster.name.clone()));
        } else if publisher::claim(cluster, &own.id, copy.last).await?.is_some() {
            // Nobody else's change can follow.
            break;
        }
    }
    drop(copy);
    // Elsewhere, since the claim has to be kept for as long as this takes.
    let finished = tokio::task::spawn_blocking(move || {
        embedded::check(&part)?;
        finish(&part).map_err(|source| Failure::Directory { dir: part, source })
    });
    finished.await.map_err(|_| embedded::Failure::Ended("the check of the copy"))?
}

/// Makes a directory durable, without what is no part of a journal.
fn finish(part: &Path) -> io::Result<Transferred> {
    let mut moved = Transferred::default();
    for entry in fs::read_dir(part)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(broker_log::is_file_of_journal) {
            // The lock, and files that were not whole when their owner died.
            fs::remove_file(entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_all()?;
        moved.files += 1;
        moved.bytes += file.metadata()?.len();
    }
    File::open(part)?.sync_all()?;
    Ok(moved)
}

/// Gives a directory its name.
fn place(part: &Path, to: &Path) -> io::Result<()> {
    fs::rename(part, to)?;
    let above = fs::canonicalize(to)?;
    above.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

fn with_suffix(dir: &Path) -> PathBuf {
    let mut name: OsString = dir.components().as_path().as_os_str().to_owned();
    name.push(PART_SUFFIX);
    name.into()
}
