//! Roles that one process at a time plays for a database, however many processes share it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::server::{CONNECT_MS_MAX, Lock, STATEMENT_MS_MAX, Server, within};

/// How often who waits for the lock of a file tries to get it, in milliseconds.
const TRY_MS: u64 = 200;

/// How often who waits for a role at a server asks for it, and who has it says that it is there, in milliseconds.
const ASK_MS: u64 = 1_000;

/// How long the server may take to answer who has a role, in milliseconds. With [`ASK_MS`] it is less than
/// [`ROLE_IDLE_MS_MAX`], so that who is cut off stops before another one begins.
const ANSWER_MS_MAX: u64 = 2_000;

/// How long the server hears nothing of who has a role until it takes the role away, in milliseconds.
pub const ROLE_IDLE_MS_MAX: u64 = 5_000;

/// A role in a database's life: to publish its events, to change its tables.
///
/// With a file it is a lock on a file beside the database, so that it is free at once when the process that had it is
/// gone, however that went. A process that is frozen keeps it: whoever stops a process without ending it stops its roles
/// as well.
///
/// With a server it is a lock of a session that has nothing else to do. It is free when the session ends, which the
/// server sees to after [`ROLE_IDLE_MS_MAX`] without a word. Who is frozen and wakes up may act for a moment beside the
/// one who has the role by then: what is done in a role has to bear that.
#[derive(Clone, Debug)]
pub struct Role {
    lock: RoleLock,
}

#[derive(Clone, Debug)]
enum RoleLock {
    /// A database that has a single process anyway.
    None,
    File(PathBuf),
    Server(Server, String),
}

/// The role is this process's until this is dropped, or [`Self::lost`].
#[derive(Debug)]
#[must_use = "the role is given up when this is dropped"]
pub struct Held {
    _file: Option<File>,
    /// Tells the task that keeps the session to end it.
    _given_up: Option<DropGuard>,
    lost: CancellationToken,
}

impl Held {
    /// Waits until the role is lost: another process may have it from now on. A file's never is.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Role {
    /// `database` is the file of the database; without one it has a single process anyway.
    pub(super) fn of_file(database: Option<&Path>, name: &str) -> Self {
        let lock = database.map_or(RoleLock::None, |database| {
            let mut path = database.as_os_str().to_owned();
            path.push(".");
            path.push(name);
            path.push(".lock");
            RoleLock::File(PathBuf::from(path))
        });
        Self { lock }
    }

    pub(super) fn of_server(server: &Server, name: &str) -> Self {
        Self { lock: RoleLock::Server(server.clone(), name.to_owned()) }
    }

    /// Takes the role as soon as it is free; `None` when `stopping` is cancelled before. A server that is away is waited
    /// for.
    pub async fn take(&self, stopping: &CancellationToken) -> io::Result<Option<Held>> {
        if let RoleLock::Server(server, name) = &self.lock {
            return Ok(take_at_server(server, name, stopping).await);
        }
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
        let held = |file| Some(Held { _file: file, _given_up: None, lost: CancellationToken::new() });
        let RoleLock::File(path) = &self.lock else { return Ok(held(None)) };
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(held(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

async fn take_at_server(server: &Server, name: &str, stopping: &CancellationToken) -> Option<Held> {
    let (lock, mut session, mut failing) = (server.lock(name), None, false);
    loop {
        let asked = ask(server, lock, session.take());
        let asked = tokio::select! {
            () = stopping.cancelled() => return None,
            asked = asked => asked,
        };
        match asked {
            Ok((session, true)) => return Some(keep(session)),
            Ok((waiting, false)) => {
                session = Some(waiting);
                failing = false;
            }
            Err(error) => {
                if !failing {
                    warn!(role = name, reason = %error, "the database does not tell who has a role; it is asked again");
                }
                failing = true;
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_millis(ASK_MS)) => {}
        }
    }
}

/// Asks once, and gives the session that has the lock now or asks again.
async fn ask(
    server: &Server,
    lock: Lock,
    session: Option<AnyConnection>,
) -> Result<(AnyConnection, bool), sqlx::Error> {
    let mut session = match session {
        Some(session) => session,
        None => {
            let settings =
                format!("SET idle_session_timeout = {ROLE_IDLE_MS_MAX}; SET statement_timeout = {STATEMENT_MS_MAX}");
            server.connect(&settings).await?
        }
    };
    let sql = AssertSqlSafe(format!("SELECT pg_try_advisory_lock({})", lock.keys()));
    let taken = within(CONNECT_MS_MAX, sqlx::query_scalar(sql).fetch_one(&mut session)).await?;
    Ok((session, taken))
}

/// Keeps the session that has the lock, and tells when it is lost.
fn keep(mut session: AnyConnection) -> Held {
    let (given_up, lost) = (CancellationToken::new(), CancellationToken::new());
    let held = Held { _file: None, _given_up: Some(given_up.clone().drop_guard()), lost: lost.clone() };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = given_up.cancelled() => {
                    // The lock is free as soon as the server hears of it.
                    drop(within(ANSWER_MS_MAX, session.close()).await);
                    return;
                }
                () = tokio::time::sleep(Duration::from_millis(ASK_MS)) => {}
            }
            if let Err(error) = within(ANSWER_MS_MAX, session.ping()).await {
                warn!(reason = %error, "the session that has a role is lost, and the role with it");
                lost.cancel();
                return;
            }
        }
    });
    held
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    // Who has a role and is cut off stops before the server gives the role to another one.
    const _: () = assert!(ASK_MS + ANSWER_MS_MAX < ROLE_IDLE_MS_MAX);

    #[tokio::test]
    async fn a_role_has_one_holder_at_a_time_and_is_free_when_that_one_is_gone() {
        let folder = TempDir::new().unwrap();
        let database = folder.path().join("order.db");
        let role = || Role::of_file(Some(&database), "relay");
        let other = Role::of_file(Some(&database), "tables");
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
