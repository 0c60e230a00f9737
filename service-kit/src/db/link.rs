//! The connection that a task works on. To a file it stands for ever; to a server it is made again when it was lost.

use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, SqlSafeStr as _, SqlStr};
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::statement_kind;
use super::server::{BATCH_MS_MAX, CONNECT_MS_MAX, Server, late, within};
use super::{Error, Kind};

/// How long nobody tries to reach a server that was not reached, in milliseconds. Each further failure doubles it.
const PAUSE_MS: u64 = 50;

/// How long that is at most, in milliseconds.
pub const PAUSE_MS_MAX: u64 = 1_000;

/// After how long without use a connection is asked whether it still stands, in milliseconds.
pub(super) const UNUSED_MS_MAX: u64 = 1_000;

/// The lock that writers take turns with.
const WRITE: &str = "write";

/// A connection, or the way to one. Shared by nobody: a connection is not for two threads.
#[derive(Debug)]
pub(super) struct Link {
    connection: Option<AnyConnection>,
    ways: Ways,
    /// How the connection is made again; a file's is not.
    remaking: Option<Remaking>,
}

/// How work is done over a link.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    /// How a write begins: with its turn.
    pub(super) begin: SqlStr,
    pub(super) commit: &'static str,
    /// Whether a server is at the other end.
    pub(super) to_server: bool,
}

/// Until when all of a batch has to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(Option<Instant>);

/// How a connection to a server is made again.
#[derive(Debug)]
struct Remaking {
    server: Server,
    /// What a session begins with.
    settings: String,
    used_at: Instant,
    failures: u32,
    try_at: Instant,
}

/// Why nothing was committed, as far as that is known; for all who were in the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing more is to be written: what is on disk is known only after a restart.
    Commit(String),
    /// The connection broke on the way.
    Lost(String),
    /// The transaction was not begun.
    Unreachable(String),
    /// The server refuses, and waiting does not change that.
    Unfit(String),
}

impl Failure {
    pub(super) fn error(&self) -> Error {
        let cause = self.cause().to_owned();
        match self {
            Self::Commit(_) => Error::Commit { cause },
            Self::Lost(_) => Error::Lost { cause },
            Self::Unreachable(_) => Error::Unreachable { cause },
            Self::Unfit(_) => Error::Unfit { cause },
        }
    }

    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Commit(cause) | Self::Lost(cause) | Self::Unreachable(cause) | Self::Unfit(cause) => cause,
        }
    }
}

impl Link {
    pub(super) fn to_file(connection: AnyConnection) -> Self {
        // A transaction that began by reading could find that another process has written meanwhile, and could not go on.
        let ways = Ways { begin: "BEGIN IMMEDIATE".into_sql_str(), commit: "COMMIT", to_server: false };
        Self { connection: Some(connection), ways, remaking: None }
    }

    /// A link whose connection is already there, so that whoever starts knows that it can be made.
    pub(super) async fn to_server(server: Server, settings: String) -> Result<Self, sqlx::Error> {
        let connection = Some(server.connect(&settings).await?);
        // Each statement sees what was committed before it, and after the lock that is everything.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT 1 FROM pg_advisory_xact_lock({})",
            server.lock(WRITE).keys()
        );
        let ways = Ways {
            begin: AssertSqlSafe(begin).into_sql_str(),
            // A transaction in which a statement has failed is undone by COMMIT, without an error, and one that is over
            // is committed again, with a warning. A savepoint can be set in neither.
            commit: "SAVEPOINT whole; COMMIT",
            to_server: true,
        };
        let now = Instant::now();
        let remaking = Remaking { server, settings, used_at: now, failures: 0, try_at: now };
        Ok(Self { connection, ways, remaking: Some(remaking) })
    }

    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Whether a connection stands that was there before, and so may have been lost unseen.
    pub(super) fn stands(&self) -> bool {
        self.connection.is_some()
    }

    /// The connection, for as long as it is used; it is made if it is not there. Not given back, it is gone.
    pub(super) async fn take(&mut self) -> Result<AnyConnection, Failure> {
        match (self.connection.take(), &mut self.remaking) {
            (Some(connection), _) => Ok(connection),
            (None, Some(remaking)) => remaking.remake().await,
            (None, None) => Err(Failure::Commit("the connection is closed".to_owned())),
        }
    }

    /// As [`Self::take`], but one that was not used for a while is asked before.
    pub(super) async fn take_sound(&mut self) -> Result<AnyConnection, Failure> {
        let unused_ms_max = Duration::from_millis(UNUSED_MS_MAX);
        let was_unused = self.remaking.as_ref().is_some_and(|remaking| remaking.used_at.elapsed() > unused_ms_max);
        let doubtful = self.stands() && was_unused;
        let mut connection = self.take().await?;
        if doubtful && !stands(&mut connection).await {
            drop(connection);
            return self.take().await;
        }
        Ok(connection)
    }

    pub(super) fn give_back(&mut self, used: AnyConnection) {
        self.connection = Some(used);
        if let Some(remaking) = &mut self.remaking {
            remaking.used_at = Instant::now();
        }
    }

    /// As [`Self::give_back`], after something has failed: it is kept only if it still stands.
    pub(super) async fn give_back_doubtful(&mut self, mut used: AnyConnection) {
        if !self.ways.to_server || stands(&mut used).await {
            self.give_back(used);
        }
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            drop(connection.close().await);
        }
    }
}

impl Ways {
    /// The limit of a batch that begins now.
    pub(super) fn limit(&self) -> Limit {
        // What a file holds is there or not; waiting for it has its own end.
        Limit(self.to_server.then(|| Instant::now() + Duration::from_millis(BATCH_MS_MAX)))
    }

    /// What a connection that broke on the way means.
    pub(super) fn broken(&self, error: &sqlx::Error) -> Failure {
        if self.to_server { Failure::Lost(error.to_string()) } else { Failure::Commit(error.to_string()) }
    }

    /// What a transaction that could not be begun means.
    pub(super) fn not_begun(&self, error: &sqlx::Error) -> Failure {
        if self.to_server { Failure::Unreachable(error.to_string()) } else { Failure::Commit(error.to_string()) }
    }
}

impl Limit {
    /// Does a part of the batch, as long as there is time.
    pub(super) async fn on<T>(self, work: impl Future<Output = T>) -> Result<T, sqlx::Error> {
        match self.0 {
            Some(until) => tokio::time::timeout_at(until, work).await.map_err(|_| late(BATCH_MS_MAX)),
            None => Ok(work.await),
        }
    }
}

/// Whether a connection still stands, as far as the server answers.
pub(super) async fn stands(connection: &mut AnyConnection) -> bool {
    within(CONNECT_MS_MAX, connection.ping()).await.is_ok()
}

impl Remaking {
    async fn remake(&mut self) -> Result<AnyConnection, Failure> {
        tokio::time::sleep_until(self.try_at).await;
        let error = match self.server.connect(&self.settings).await {
            Ok(connection) => {
                if self.failures > 0 {
                    info!(database = self.server.name(), "the database is reached again");
                }
                self.failures = 0;
                return Ok(connection);
            }
            Err(error) => error,
        };
        if self.failures == 0 {
            warn!(database = self.server.name(), reason = %error, "the database cannot be reached; it is tried again");
        }
        let pause_ms = PAUSE_MS.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.try_at = Instant::now() + Duration::from_millis(fastrand::u64(pause_ms / 2..=pause_ms));
        match statement_kind(&error) {
            Kind::Lasting => Err(Failure::Unfit(error.to_string())),
            Kind::Passing | Kind::OfTheRow => Err(Failure::Unreachable(error.to_string())),
        }
    }
}
