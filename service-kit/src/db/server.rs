//! A PostgreSQL server: how a session with it begins, and what is asked of it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::statement_kind;
use super::{Error, Kind, Migration, schema};

/// The oldest server that is spoken to, as `server_version_num`: 14 is the first that ends an idle session by itself.
pub const SERVER_VERSION_MIN: i32 = 140_000;

/// How long one attempt to reach the server may take, in milliseconds.
pub const CONNECT_MS_MAX: u64 = 5_000;

/// How long a starting process waits for a server that cannot be reached or is starting as well, in milliseconds.
pub const OPEN_MS_MAX: u64 = 30_000;

/// How long who opens a database waits between two attempts, in milliseconds.
const OPEN_RETRY_MS: u64 = 250;

/// How long one statement may take on the server, in milliseconds. Migrations have no limit.
pub const STATEMENT_MS_MAX: u64 = 10_000;

/// How long a writer waits for its turn before it asks anew, in milliseconds.
pub const TURN_MS_MAX: u64 = 5_000;

/// How long the server lets a transaction do nothing, in milliseconds: a writer that froze gives up its turn after that.
pub const STALL_MS_MAX: u64 = 5_000;

/// How long a batch of writes or reads may take as the process sees it, from its connection and its turn to its commit, in
/// milliseconds; then the connection is given up.
pub const BATCH_MS_MAX: u64 = 30_000;

/// How long a caller waits for the database, in milliseconds: a batch before its own, its own, and a little more.
pub const ANSWER_MS_MAX: u64 = 2 * BATCH_MS_MAX + CONNECT_MS_MAX;

/// A server, the database on it and the schema in that.
#[derive(Clone)]
pub(super) struct Server {
    options: AnyConnectOptions,
    name: String,
    /// The schema's number: services that share a database, each in its own schema, do not wait for each other.
    schema: i32,
}

/// A lock that the server keeps, for the time of a session or of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) purpose: i32,
    pub(super) schema: i32,
}

impl fmt::Debug for Server {
    /// Without the options, which hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Server {
    /// Finds the server, brings the tables to the version of this binary, and gives what connects to it.
    pub(super) async fn open(url: &str, migrations: &[Migration]) -> Result<Self, Error> {
        let name = redacted(url);
        let fail = |source| Error::Open { url: name.clone(), source };
        let options: AnyConnectOptions = url.parse().map_err(fail)?;
        let mut server = Self { options, name: name.clone(), schema: 0 };
        let mut connection = server.first_connection().await.map_err(fail)?;
        server.schema = examine(&mut connection).await.map_err(|problem| problem.of(&name))?;
        // Only now is it known that the server has these settings.
        within(CONNECT_MS_MAX, apply(&mut connection, first_settings())).await.map_err(fail)?;
        schema::migrate(&mut connection, migrations, schema::Dialect::Postgres).await?;
        drop(within(CONNECT_MS_MAX, connection.close()).await);
        Ok(server)
    }

    /// A connection for somebody who only looks, and does not wait for a server that is away.
    pub(super) async fn look(url: &str) -> Result<AnyConnection, Error> {
        let name = redacted(url);
        let fail = |source| Error::Open { url: name.clone(), source };
        let options: AnyConnectOptions = url.parse().map_err(fail)?;
        let server = Self { options, name: name.clone(), schema: 0 };
        let mut connection = server.connect(&reader_settings()).await.map_err(fail)?;
        examine(&mut connection).await.map_err(|problem| problem.of(&name))?;
        Ok(connection)
    }

    /// The name of the database for people: its URL without the password.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn options(&self) -> AnyConnectOptions {
        self.options.clone()
    }

    /// The lock for `purpose` in this database and schema.
    pub(super) fn lock(&self, purpose: &str) -> Lock {
        let purpose = i32::from_ne_bytes(crc32fast::hash(purpose.as_bytes()).to_ne_bytes());
        Lock { purpose, schema: self.schema }
    }

    /// A new connection with these settings, or an error within [`CONNECT_MS_MAX`].
    pub(super) async fn connect(&self, settings: &str) -> Result<AnyConnection, sqlx::Error> {
        within(CONNECT_MS_MAX, async {
            let mut connection = AnyConnection::connect_with(&self.options).await?;
            if !settings.is_empty() {
                apply(&mut connection, settings.to_owned()).await?;
            }
            Ok(connection)
        })
        .await
    }

    /// The connection of a process that starts: a server that starts as well is waited for, one that refuses is not.
    async fn first_connection(&self) -> Result<AnyConnection, sqlx::Error> {
        let until = Instant::now() + Duration::from_millis(OPEN_MS_MAX);
        let mut told = false;
        loop {
            let error = match self.connect("").await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if statement_kind(&error) == Kind::Lasting || Instant::now() >= until {
                return Err(error);
            }
            if !told {
                info!(database = self.name, reason = %error, "the database cannot be reached yet; waiting for it");
                told = true;
            }
            tokio::time::sleep(Duration::from_millis(OPEN_RETRY_MS)).await;
        }
    }
}

impl Lock {
    /// The keys, as PostgreSQL's functions for advisory locks take them.
    pub(super) fn keys(self) -> String {
        format!("{}, {}", self.purpose, self.schema)
    }
}

/// What the session that migrates is set to. Its statements take as long as they take, but a process that froze does not
/// keep others from starting.
fn first_settings() -> String {
    format!("SET idle_session_timeout = {STALL_MS_MAX}; SET idle_in_transaction_session_timeout = {STALL_MS_MAX}")
}

/// What a session that writes is set to.
///
/// `synchronous_commit` is left alone where it promises more than this machine's disk, or the operator chose `local`.
pub(super) fn writer_settings() -> String {
    format!(
        "SET statement_timeout = {STATEMENT_MS_MAX}; SET lock_timeout = {TURN_MS_MAX}; \
         SET idle_in_transaction_session_timeout = {STALL_MS_MAX}; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// What a session that reads is set to.
pub(super) fn reader_settings() -> String {
    format!(
        "SET default_transaction_read_only = on; SET statement_timeout = {STATEMENT_MS_MAX}; \
         SET idle_in_transaction_session_timeout = {STALL_MS_MAX}"
    )
}

pub(super) async fn apply(connection: &mut AnyConnection, settings: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await.map(drop)
}

/// Does `work`, or fails when it takes longer.
pub(super) async fn within<T>(
    limit_ms: u64,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let timed = tokio::time::timeout(Duration::from_millis(limit_ms), work).await;
    timed.unwrap_or_else(|_| Err(late(limit_ms)))
}

/// What took longer than its limit.
pub(super) fn late(limit_ms: u64) -> sqlx::Error {
    let message = format!("no answer within {limit_ms} ms");
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
}

/// A URL without its password.
///
/// A password that should have been escaped may hold any character, so that everything up to the last `@` is taken for
/// the user and the password.
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = user.split([':', '/', '?', '#']).next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let mut redacted = format!("{scheme}{}{user}{at}{place}", if scheme.is_empty() { "" } else { "://" });
    let harmless = |pair: &&str| !pair.is_empty() && !pair.to_ascii_lowercase().starts_with("password");
    for (at, pair) in query.split('&').filter(harmless).enumerate() {
        redacted.push(if at == 0 { '?' } else { '&' });
        redacted.push_str(pair);
    }
    redacted
}

/// Why a server is not one to work with.
enum Problem {
    Statement(sqlx::Error),
    Unfit(String),
}

impl Problem {
    /// The same, with the name of the database.
    fn of(self, name: &str) -> Error {
        let url = name.to_owned();
        match self {
            Self::Statement(source) => Error::Open { url, source },
            Self::Unfit(reason) => Error::Server { url, reason },
        }
    }
}

/// Looks whether the server is fit, and finds the number of the schema in which the tables are, within
/// [`CONNECT_MS_MAX`].
async fn examine(connection: &mut AnyConnection) -> Result<i32, Problem> {
    let sql = "SELECT current_setting('server_version_num')::int4, current_setting('server_version')::text, \
         pg_is_in_recovery(), current_setting('fsync')::text, \
         (SELECT oid FROM pg_namespace WHERE nspname = current_schema())::int4, current_database()::text";
    let row = within(CONNECT_MS_MAX, sqlx::query(sql).fetch_one(connection)).await.map_err(Problem::Statement)?;
    let examined = || {
        let version: (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok::<_, sqlx::Error>((version, row.try_get::<bool, _>(2)?, row.try_get::<String, _>(3)?, row.try_get(4)?))
    };
    let ((version, version_text), is_standby, fsync, schema) = examined().map_err(Problem::Statement)?;
    fit(version, &version_text, is_standby).map_err(Problem::Unfit)?;
    if fsync != "on" {
        warn!("the database server runs with fsync = {fsync}: what is answered is not on its disk");
    }
    let schema: Option<i32> = schema;
    schema
        .ok_or_else(|| Problem::Unfit("no schema of the search path exists; one has to be made for the tables".into()))
}

fn fit(version: i32, version_text: &str, is_standby: bool) -> Result<(), String> {
    if version < SERVER_VERSION_MIN {
        let least = SERVER_VERSION_MIN / 10_000;
        return Err(format!("the server is PostgreSQL {version_text}; {least} or newer is needed"));
    }
    if is_standby {
        return Err("the server is a standby, which takes no writes; the primary is needed".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_without_its_password() {
        let table = [
            ("postgres://ada:secret@db:5432/orders", "postgres://ada@db:5432/orders"),
            ("postgres://ada:se/cr@et#1@db/orders", "postgres://ada@db/orders"),
            ("postgres://:secret@db/orders", "postgres://db/orders"),
            ("postgres://ada@db/orders?password=secret&sslmode=require", "postgres://ada@db/orders?sslmode=require"),
            ("postgres://db/orders?sslmode=require&Password=secret", "postgres://db/orders?sslmode=require"),
            ("postgres://db/orders", "postgres://db/orders"),
            ("sqlite://data/order.db?cache=private", "sqlite://data/order.db?cache=private"),
            ("postgres://db/orders?password=secret&application_name=a@b", "postgres://db@b"),
            ("ada:secret@db", "ada@db"),
            ("", ""),
        ];
        for (url, told) in table {
            assert_eq!(redacted(url), told);
        }
    }

    #[test]
    fn a_server_that_is_too_old_or_takes_no_writes_is_refused() {
        assert_eq!(fit(SERVER_VERSION_MIN, "14.0", false), Ok(()));
        let old = fit(SERVER_VERSION_MIN - 1, "13.22", false).unwrap_err();
        assert!(old.contains("13.22") && old.contains("14 or newer"), "{old}");
        assert!(fit(SERVER_VERSION_MIN, "14.0", true).unwrap_err().contains("standby"));
    }
}
