//! Migrations: the tables of the kit and of the service, embedded in the binary and numbered.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Connection, Error};

/// The highest number of the kit's own migrations. A service's begin after it.
pub const KIT_VERSION_MAX: i64 = 99;

/// One step of a database's tables. A step that was released never changes; the next step changes the tables.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it does, in a few words.
    pub name: &'static str,
    /// The statements, in SQL that SQLite and PostgreSQL both speak: `BIGINT`, `TEXT`, `BLOB`, no autoincrement. For
    /// PostgreSQL `BLOB` becomes `BYTEA`, and `TEXT` is compared byte by byte, as SQLite does it.
    pub sql: &'static str,
}

/// Whose SQL it shall be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

const KIT: [Migration; 1] =
    [Migration { version: 1, name: "outbox and inbox", sql: include_str!("../../migrations/0001_outbox_inbox.sql") }];

pub(super) async fn migrate(
    connection: &mut Connection,
    migrations: &[Migration],
    dialect: Dialect,
) -> Result<(), Error> {
    debug_assert!(migrations.iter().all(|m| m.version > KIT_VERSION_MAX), "numbers up to {KIT_VERSION_MAX} are taken");
    let all = KIT.iter().chain(migrations).map(|migration| step(migration, dialect));
    let migrator = Migrator::with_migrations(all.collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::Newer { version },
        error => Error::Migrate(error),
    })
}

/// A step whose checksum is that of the statements as they are written here, whatever is made of them.
fn step(migration: &Migration, dialect: Dialect) -> sqlx::migrate::Migration {
    let sql = migration.sql.into_sql_str();
    let step = sqlx::migrate::Migration::new(
        migration.version,
        Cow::Borrowed(migration.name),
        MigrationType::Simple,
        sql,
        false,
    );
    match dialect {
        Dialect::Sqlite => step,
        Dialect::Postgres => {
            sqlx::migrate::Migration { sql: AssertSqlSafe(for_postgres(migration.sql)).into_sql_str(), ..step }
        }
    }
}

fn for_postgres(sql: &str) -> String {
    let mut translated = String::with_capacity(2 * sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let (before, from_word) = rest.split_at(at);
        let end = from_word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(from_word.len());
        let (word, after) = from_word.split_at(end);
        translated.push_str(before);
        translated.push_str(match word {
            "BLOB" => "BYTEA",
            "TEXT" => "TEXT COLLATE \"C\"",
            word => word,
        });
        rest = after;
    }
    translated.push_str(rest);
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_those_of_postgresql_and_nothing_else_changes() {
        let sql = "CREATE TABLE a (b TEXT NOT NULL DEFAULT 'context', c BLOB, TEXT_d BIGINT, e1 TEXT);";
        let translated = "CREATE TABLE a (b TEXT COLLATE \"C\" NOT NULL DEFAULT 'context', c BYTEA, TEXT_d BIGINT, \
             e1 TEXT COLLATE \"C\");";
        assert_eq!(for_postgres(sql), translated);
    }

    #[test]
    fn a_step_is_the_same_step_in_both_dialects() {
        let (one, other) = (step(&KIT[0], Dialect::Sqlite), step(&KIT[0], Dialect::Postgres));
        assert_eq!(one.checksum, other.checksum);
        assert_ne!(one.sql.as_str(), other.sql.as_str());
    }
}
