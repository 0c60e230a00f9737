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
                Ok::<_, db::Error>(Recorded::Kept)
            })
        });
        Ok(self.database.judged(recorded).await?)
    }

    async fn payment(&self, order_id: OrderId) -> Result<Option<Payment>, StoreError> {
        Ok(self.database.judged(row::by_order(self.database.reads(), order_id)).await?)
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
