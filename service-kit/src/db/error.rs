//! What can go wrong with a database, and whether to wait, to give one thing up, or to end.

use std::fmt::Display;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::MigrateError;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error("the database `{url}` cannot be opened")]
    Open {
        /// The database.
        url: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The folder of the database file cannot be made.
    #[error("the folder of the database `{url}` cannot be made")]
    Folder {
        /// The database.
        url: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A newer version of the service wrote this database. An older one must not touch it.
    #[error("the database was written by a newer version of this service: it has migration {version}")]
    Newer {
        /// The migration that this binary does not know.
        version: i64,
    },
    /// The tables cannot be brought to this version.
    #[error("the database cannot be migrated")]
    Migrate(#[source] MigrateError),
    /// A statement failed.
    #[error("a database statement failed")]
    Statement(#[from] sqlx::Error),
    /// The transaction that a write was a part of was not committed.
    #[error("a transaction was not committed: {cause}")]
    Commit {
        /// What the database said. One commit serves many, so that the cause is told to many.
        cause: String,
    },
    /// A column does not hold what it should.
    #[error("column `{column}` holds something else: {reason}")]
    Column {
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed the same thing between its reading and its writing.
    #[error("{0} was changed by somebody else meanwhile")]
    Race(String),
    /// A value is too large to be stored.
    #[error("{what} of {bytes} bytes is too large")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// A commit failed earlier. What is on disk is known only after a restart.
    #[error("the database takes no writes after a failed commit")]
    Poisoned,
    /// The database cannot be used any more, and waiting does not change that.
    #[error("the database cannot be used any more: {cause}")]
    Unfit {
        /// What the database said.
        cause: String,
    },
}

/// What an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody's fault, and the same again may succeed: wait.
    Passing,
    /// The database works, but not with this: a constraint is in the way, or a column holds nonsense.
    OfTheRow,
    /// The file is damaged, gone or not writable, or has not the tables that it should: waiting changes nothing.
    Lasting,
}

impl Error {
    /// A column that does not hold what it should.
    pub fn column(column: &'static str, reason: impl Display) -> Self {
        Self::Column { column, reason: reason.to_string() }
    }

    /// What the error means for whoever asked.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Statement(error) => statement_kind(error),
            Self::Column { .. } | Self::TooLarge { .. } => Kind::OfTheRow,
            Self::Race(_) => Kind::Passing,
            Self::Open { .. }
            | Self::Folder { .. }
            | Self::Newer { .. }
            | Self::Migrate(_)
            | Self::Commit { .. }
            | Self::Poisoned
            | Self::Unfit { .. } => Kind::Lasting,
        }
    }
}

/// Whether another connection holds what the statement needs: SQLite's BUSY.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

fn statement_kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => database_kind(error.as_ref()),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::RowNotFound => Kind::OfTheRow,
        // The statement and the tables do not fit together.
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::Configuration(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Lasting,
        // A pool without a free connection, a connection that broke: both come back.
        _ => Kind::Passing,
    }
}

fn database_kind(error: &dyn DatabaseError) -> Kind {
    if !matches!(error.kind(), ErrorKind::Other) {
        return Kind::OfTheRow;
    }
    // SQLite's extended codes carry the primary one in their lowest byte. <https://sqlite.org/rescode.html>
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match code {
        // ERROR (a table is missing), PERM, READONLY, IOERR, CORRUPT, CANTOPEN, AUTH, NOTADB.
        Some(1 | 3 | 8 | 10 | 11 | 14 | 23 | 26) => Kind::Lasting,
        // TOOBIG, MISMATCH, RANGE.
        Some(18 | 20 | 25) => Kind::OfTheRow,
        // BUSY, LOCKED, NOMEM, FULL and the rest pass, or may.
        _ => Kind::Passing,
    }
}
