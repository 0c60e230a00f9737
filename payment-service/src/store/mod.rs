//! Payments in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod apply;
mod attempts;
mod event;
mod row;

use service_kit::db::{self, Bulk, Database, Migration};

use crate::app::{Payments, Position, StoreError};
use crate::domain::{OrderId, Payment, PaymentStatus, Step, TimestampUs};
use apply::Apply;

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
    applying: Bulk<Apply, Option<Payment>>,
    finding: Bulk<OrderId, Option<Payment>>,
}

impl Store {
    pub(crate) fn new(database: Database) -> Self {
        let (applying, finding) = (database.bulk(apply::apply), database.bulk_reads(row::find));
        Self { database, applying, finding }
    }
}

impl Payments for Store {
    async fn apply(
        &self,
        message_id: Option<String>,
        step: Step,
        now: TimestampUs,
    ) -> Result<Option<Payment>, StoreError> {
        let apply = Apply { message_id, step, now };
        Ok(self.database.judged(self.applying.run(apply)).await?)
    }

    async fn payment(&self, order_id: OrderId) -> Result<Option<Payment>, StoreError> {
        Ok(self.database.judged(self.finding.run(order_id)).await?)
    }

    async fn list(
        &self,
        status: Option<PaymentStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Payment>, StoreError> {
        Ok(self.database.judged(row::page(self.database.reads(), status, before, limit)).await?)
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
