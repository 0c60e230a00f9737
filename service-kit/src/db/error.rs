//! What can go wrong with a database, and whether to wait, to give one thing up, or to end.

use std::fmt::Display;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

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
    /// The server is not one to work with.
    #[error("the database `{url}` cannot be used: {reason}")]
    Server {
        /// The database, without the password.
        url: String,
        /// What is wrong with its server.
        reason: String,
    },
    /// The database that a setting names does not serve.
    #[error("{flag} ({variable}) names a database that does not serve")]
    Setting {
        /// The flag, such as `--database-url`.
        flag: &'static str,
        /// The environment variable that sets it as well.
        variable: &'static str,
        /// What is wrong.
        source: Box<Error>,
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
    /// The connection broke before the server said that it has committed.
    #[error("the connection to the database was lost, and whether the write was kept is not known: {cause}")]
    Lost {
        /// What was seen of it.
        cause: String,
    },
    /// The server was not reached, or did not do its part; nothing was changed.
    #[error("the database cannot be reached: {cause}")]
    Unreachable {
        /// What was seen of it.
        cause: String,
    },
    /// The server does not answer. A write may be kept all the same.
    #[error("the database gave no answer within {limit_ms} ms")]
    Late {
        /// How long it was waited, in milliseconds.
        limit_ms: u64,
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
    /// The file is damaged, gone or not writable, the server refuses, or the tables are not those that they should be:
    /// waiting changes nothing.
    Lasting,
}

impl Error {
    /// A column that does not hold what it should.
    pub fn column(column: &'static str, reason: impl Display) -> Self {
        Self::Column { column, reason: reason.to_string() }
    }

    /// Names the setting that named the database.
    pub fn of_setting(flag: &'static str, variable: &'static str) -> impl FnOnce(Self) -> Self {
        move |source| Self::Setting { flag, variable, source: Box::new(source) }
    }

    /// What the error means for whoever asked.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Statement(error) => statement_kind(error),
            Self::Column { .. } | Self::TooLarge { .. } => Kind::OfTheRow,
            Self::Race(_) | Self::Lost { .. } | Self::Unreachable { .. } | Self::Late { .. } => Kind::Passing,
            Self::Setting { source, .. } => source.kind(),
            Self::Open { .. }
            | Self::Folder { .. }
            | Self::Server { .. }
            | Self::Newer { .. }
            | Self::Migrate(_)
            | Self::Commit { .. }
            | Self::Poisoned
            | Self::Unfit { .. } => Kind::Lasting,
        }
    }
}

impl Error {
    /// Whether a database that could not be opened may be there in a moment: its server went away in the midst of it.
    pub(super) fn passes_at_the_start(&self) -> bool {
        match self {
            Self::Open { source, .. }
            | Self::Statement(source)
            | Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                statement_kind(source) == Kind::Passing
            }
            _ => false,
        }
    }
}

/// Whether somebody else has the turn that the statement waited for: SQLite's BUSY, PostgreSQL's `lock_not_available`.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    match sqlstate(error) {
        Some(state) => state == "55P03",
        None => sqlite_code(error) == Some(5),
    }
}

/// What a failed statement, or an attempt to connect, means for whoever asked.
pub(super) fn statement_kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => database_kind(error.as_ref()),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::RowNotFound => Kind::OfTheRow,
        // The statement and the tables do not fit together, or the settings and the server.
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Tls(_)
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
    match sqlstate(error) {
        Some(state) => sqlstate_kind(state),
        None => sqlite_kind(sqlite_code(error)),
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn sqlstate_kind(state: &str) -> Kind {
    match state.get(..2).unwrap_or_default() {
        // Data that does not fit, a constraint, a program limit.
        "22" | "23" | "54" => Kind::OfTheRow,
        // A wrong password, no such database, no such schema, a table that is missing or not ours, damage.
        "28" | "3D" | "3F" | "42" => Kind::Lasting,
        "XX" if state != "XX000" => Kind::Lasting,
        // A server that stops, starts or became a standby, a deadlock, no room, no free connection, time that was up.
        _ => Kind::Passing,
    }
}

fn sqlite_kind(code: Option<u32>) -> Kind {
    match code {
        // ERROR (a table is missing), PERM, READONLY, IOERR, CORRUPT, CANTOPEN, AUTH, NOTADB.
        Some(1 | 3 | 8 | 10 | 11 | 14 | 23 | 26) => Kind::Lasting,
        // TOOBIG, MISMATCH, RANGE.
        Some(18 | 20 | 25) => Kind::OfTheRow,
        // BUSY, LOCKED, NOMEM, FULL and the rest pass, or may.
        _ => Kind::Passing,
    }
}

/// What PostgreSQL calls the error; `None` for another database's.
fn sqlstate(error: &dyn DatabaseError) -> Option<&str> {
    error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

/// SQLite's extended codes carry the primary one in their lowest byte. <https://sqlite.org/rescode.html>
fn sqlite_code(error: &dyn DatabaseError) -> Option<u32> {
    error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_errors_are_told_apart() {
        let of_the_row = ["22021", "22P02", "23514", "54000"];
        let lasting = ["28P01", "28000", "3D000", "3F000", "42P01", "42501", "XX001", "XX002"];
        let passing =
            ["08006", "25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03"];
        for (states, kind) in
            [(&of_the_row[..], Kind::OfTheRow), (&lasting[..], Kind::Lasting), (&passing[..], Kind::Passing)]
        {
            for state in states {
                assert_eq!(sqlstate_kind(state), kind, "{state}");
            }
        }
        assert_eq!(sqlstate_kind("XX000"), Kind::Passing);
        assert_eq!(sqlstate_kind(""), Kind::Passing);
    }

    #[test]
    fn a_server_that_goes_away_while_a_database_is_opened_is_waited_for_and_a_wrong_setting_is_not() {
        let open = |source| Error::Open { url: String::new(), source };
        let gone = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(open(gone()).passes_at_the_start() && Error::Statement(gone()).passes_at_the_start());
        assert!(Error::Migrate(MigrateError::Execute(gone())).passes_at_the_start());
        assert!(!open(sqlx::Error::Configuration("no port".into())).passes_at_the_start());
        assert!(!Error::Newer { version: 9 }.passes_at_the_start());
    }
}
