//! Payments in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod attempts;
mod event;
mod row;

use service_kit::db::{self, Database, Migration};
use service_kit::{inbox, outbox};

use crate::app::{Payments, Position, StoreError};
use crate::domain::{OrderId, Payment, PaymentStatus, Step, TimestampUs};

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 100, name: "payments", sql: include_str!("../../migrations/0100_payments.sql") },
    Migration { version: 101, name: "saga", sql: include_str!("../../migrations/0101_saga.sql") },
];

/// The newest tables that this version knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The name under which the inbox marks messages, and the source of events.
const SERVICE: &str = "payment-service";

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

impl Payments for Store {
    async fn apply(
        &self,
        message_id: Option<String>,
        step: Step,
        now: TimestampUs,
    ) -> Result<Option<Payment>, StoreError> {
        let applied = self.database.write(move |connection| {
            Box::pin(async move {
                let known = row::by_order(&mut *connection, step.order_id()).await?;
                let (known, version) = known.map_or((None, 0), |known| (Some(known.payment), known.version));
                let Some(change) = step.apply(known, now) else { return Ok(None) };
                // A message that changed something before changes nothing again, whatever the payment looks like.
                if let Some(message_id) = message_id
                    && !inbox::first_time(connection, SERVICE, &message_id).await?
                {
                    return Ok(None);
                }
                row::put(connection, &change.payment, version).await?;
                if let Some(told) = change.told {
                    outbox::enqueue(connection, SERVICE, event::encode(&change.payment, told)).await?;
                }
                Ok::<_, db::Error>(Some(change.payment))
            })
        });
        Ok(self.database.judged(applied).await?)
    }

    async fn payment(&self, order_id: OrderId) -> Result<Option<Payment>, StoreError> {
        let known = self.database.judged(row::by_order(self.database.reads(), order_id)).await?;
        Ok(known.map(|known| known.payment))
    }

    async fn list(
        &self,
        status: Option<PaymentStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Payment>, StoreError> {
        Ok(self.database.judged(row::list(self.database.reads(), status, before, limit)).await?)
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
