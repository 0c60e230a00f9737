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
                Ok::<_, db::Error>(Some(notification))
            })
        });
        Ok(self.database.judged(kept).await?)
    }

    async fn list(&self, customer_id: &CustomerId, after: i64, limit: u32) -> Result<Vec<Notification>, StoreError> {
        Ok(self.database.judged(row::list(self.database.reads(), customer_id, after, limit)).await?)
    }
}

impl From<db::Error> for StoreError {
    fn from(error: db::Error) -> Self {
        match error.kind() {
            db::Kind::OfTheRow => Self::Broken(error.into()),
            // What lasts ends the service, which finds it out by itself; until then it is unavailable.
            db::Kind::Passing | db::Kind::Lasting => Self::Unavailable(error.into()),
        }
    }
}
