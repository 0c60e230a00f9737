//! Migrations: the tables of the kit and of the service, embedded in the binary and numbered.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, MigrationType, Migrator};

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
    /// The statements, in SQL that SQLite and PostgreSQL both speak: `BIGINT`, `TEXT`, `BLOB`, no autoincrement.
    pub sql: &'static str,
}

const KIT: [Migration; 1] =
    [Migration { version: 1, name: "outbox and inbox", sql: include_str!("../../migrations/0001_outbox_inbox.sql") }];

pub(super) async fn migrate(connection: &mut Connection, migrations: &[Migration]) -> Result<(), Error> {
    debug_assert!(migrations.iter().all(|m| m.version > KIT_VERSION_MAX), "numbers up to {KIT_VERSION_MAX} are taken");
    let all = KIT.iter().chain(migrations);
    let all = all.map(|m| {
        let sql = m.sql.into_sql_str();
        sqlx::migrate::Migration::new(m.version, Cow::Borrowed(m.name), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(all.collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::Newer { version },
        error => Error::Migrate(error),
    })
}
