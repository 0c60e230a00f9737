//! Notifications in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod row;

use service_kit::db::{self, Database, Migration};
use service_kit::inbox;

use crate::app::{Notifications, StoreError};
use crate::domain::{CustomerId, Draft, Notification, TimestampUs};

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { version: 100, name: "notifications", sql: include_str!("../../migrations/0100_notifications.sql") }];

/// The name under which the inbox marks messages.
const SERVICE: &str = "notification-service";

/// A store in a database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    database: Database,
}

/// Why a statement brought no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Database(#[from] db::Error),
    #[error("a statement failed")]
    Statement(#[from] sqlx::Error),
    #[error("column `{column}` holds something else: {reason}")]
    Column { column: &'static str, reason: String },
}

impl Store {
    pub(crate) fn new(database: Database) -> Self {
        Self { database }
    }
}

impl Notifications for Store {
    async fn keep(&self, draft: Draft, now: TimestampUs) -> Result<Option<Notification>, StoreError> {
        let kept = self.database.write(move |connection| {
            Box::pin(async move {
                // The inbox forgets after its retention, the notification does not: both are asked before a number is
                // taken, so that a number once taken is always used.
                let first_time = inbox::first_time(connection, SERVICE, &draft.event_id).await?;
                if !first_time || row::exists(connection, &draft.event_id).await? {
                    return Ok(None);
                }
                let number = row::next_number(connection, &draft.customer_id).await?;
                let notification = Notification { number, draft, created_at: now };
                row::insert(connection, &notification).await?;
                Ok::<_, Error>(Some(notification))
            })
        });
        Ok(kept.await?)
    }

    async fn list(&self, customer_id: &CustomerId, after: i64, limit: u32) -> Result<Vec<Notification>, StoreError> {
        Ok(row::list(self.database.reads(), customer_id, after, limit).await?)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let constraint = |error: &sqlx::Error| {
            let kind = error.as_database_error().map(sqlx::error::DatabaseError::kind);
            kind.is_some_and(|kind| !matches!(kind, sqlx::error::ErrorKind::Other))
        };
        match &error {
            Error::Column { .. } => Self::Broken(error.into()),
            Error::Statement(cause) | Error::Database(db::Error::Statement(cause)) if constraint(cause) => {
                Self::Broken(error.into())
            }
            Error::Statement(sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_)) => {
                Self::Broken(error.into())
            }
            Error::Database(_) | Error::Statement(_) => Self::Unavailable(error.into()),
        }
    }
}
