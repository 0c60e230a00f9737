//! Roles that one process at a time plays for a database, however many processes share it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often who waits for a role tries to get it, in milliseconds.
const TRY_MS: u64 = 200;

/// A role in a database's life: to publish its events, to change its tables.
///
/// It is a lock on a file beside the database, so that it is free at once when the process that had it is gone, however
/// that went. A process that is frozen keeps it: whoever stops a process without ending it stops its roles as well.
#[derive(Clone, Debug)]
pub struct Role {
    path: Option<PathBuf>,
}

/// The role is this process's until this is dropped.
#[derive(Debug)]
#[must_use = "the role is given up when this is dropped"]
pub struct Held {
    _file: Option<File>,
}

impl Role {
    /// `database` is the file of the database; without one it has a single process anyway.
    pub(super) fn new(database: Option<&Path>, name: &str) -> Self {
        let path = database.map(|database| {
            let mut path = database.as_os_str().to_owned();
            path.push(".");
            path.push(name);
            path.push(".lock");
            PathBuf::from(path)
        });
        Self { path }
    }

    /// Takes the role as soon as it is free; `None` when `stopping` is cancelled before.
    pub async fn take(&self, stopping: &CancellationToken) -> io::Result<Option<Held>> {
        loop {
            if let Some(held) = self.try_take()? {
                return Ok(Some(held));
            }
            tokio::select! {
                () = stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(Duration::from_millis(TRY_MS)) => {}
            }
        }
    }

    fn try_take(&self) -> io::Result<Option<Held>> {
        let Some(path) = &self.path else { return Ok(Some(Held { _file: None })) };
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_role_has_one_holder_at_a_time_and_is_free_when_that_one_is_gone() {
        let folder = TempDir::new().unwrap();
        let database = folder.path().join("order.db");
        let role = || Role::new(Some(&database), "relay");
        let other = Role::new(Some(&database), "tables");
        let token = CancellationToken::new();
        let held = role().take(&token).await.unwrap().unwrap();
        assert!(role().try_take().unwrap().is_none());
        assert!(other.try_take().unwrap().is_some(), "each role is on its own");
        let waiting = tokio::spawn({
            let token = token.clone();
            let role = role();
            async move { role.take(&token).await }
        });
        drop(held);
        let held = waiting.await.unwrap().unwrap();
        assert!(held.is_some());
        let waiting = tokio::spawn({
            let token = token.clone();
            let role = role();
            async move { role.take(&token).await }
        });
        token.cancel();
        assert!(waiting.await.unwrap().unwrap().is_none(), "who is told to stop waits no more");
    }
}
