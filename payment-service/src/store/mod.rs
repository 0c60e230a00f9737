//! Payments in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod event;
mod row;

use service_kit::db::{self, Database, Migration};
use service_kit::{inbox, outbox};

use crate::app::{Payments, Position, Recorded, StoreError};
use crate::domain::{OrderId, Payment, PaymentStatus};

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { version: 100, name: "payments", sql: include_str!("../../migrations/0100_payments.sql") }];

/// The name under which the inbox marks messages, and the source of events.
const SERVICE: &str = "payment-service";

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

impl Payments for Store {
    async fn record(&self, message_id: String, payment: Payment) -> Result<Recorded, StoreError> {
        let recorded = self.database.write(move |connection| {
            Box::pin(async move {
                let first_time = inbox::first_time(connection, SERVICE, &message_id).await?;
                // The order's payment is looked at as well: two messages may ask for the same charge.
                if !first_time || !row::insert(connection, &payment).await? {
                    return Ok(Recorded::Known);
                }
                outbox::enqueue(connection, SERVICE, event::encode(&payment)).await?;
                Ok::<_, Error>(Recorded::Kept)
            })
        });
        Ok(recorded.await?)
    }

    async fn payment(&self, order_id: OrderId) -> Result<Option<Payment>, StoreError> {
        Ok(row::by_order(self.database.reads(), order_id).await?)
    }

    async fn list(
        &self,
        status: Option<PaymentStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Payment>, StoreError> {
        Ok(row::list(self.database.reads(), status, before, limit).await?)
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
