//! Orders in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod change;
mod codec;
mod event;
mod place;
mod row;
mod timeline;

use service_kit::db::{self, Bulk, Database, Migration};
use service_kit::outbox;

pub(crate) use timeline::queued;

use crate::app::{Changed, Filter, Fingerprint, Happening, Orders, Placed, Step, StoreError};
use crate::domain::{IdempotencyKey, Order, OrderEvent, OrderId, TimestampUs};
use change::Change;
use place::Place;

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 100, name: "orders", sql: include_str!("../../migrations/0100_orders.sql") },
    Migration { version: 101, name: "saga", sql: include_str!("../../migrations/0101_saga.sql") },
];

/// The newest tables that this version knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The name under which the inbox marks messages, and the source of events.
const SERVICE: &str = "order-service";

/// A store in a database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    database: Database,
    placing: Bulk<Place, Placed>,
    changing: Bulk<Change, Changed>,
}

impl Store {
    pub(crate) fn new(database: Database) -> Self {
        let (placing, changing) = (database.bulk(place::place), database.bulk(change::change));
        Self { database, placing, changing }
    }
}

impl Orders for Store {
    async fn place(&self, order: Order, key: IdempotencyKey, fingerprint: Fingerprint) -> Result<Placed, StoreError> {
        let event = outbox::prepare(SERVICE, event::encode(&order, OrderEvent::Placed))?;
        let place = Place { order, key, fingerprint, event };
        Ok(self.database.judged(self.placing.run(place)).await?)
    }

    async fn change<F>(&self, message_id: Option<String>, id: OrderId, decide: F) -> Result<Changed, StoreError>
    where
        F: Fn(&mut Order) -> Happening + Send + Sync + 'static,
    {
        let change = Change { message_id, id, decide: Box::new(decide) };
        Ok(self.database.judged(self.changing.run(change)).await?)
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.database.judged(row::by_id(self.database.reads(), id)).await?)
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<Step>, StoreError> {
        Ok(self.database.judged(timeline::steps(self.database.reads(), id)).await?)
    }

    async fn list(&self, filter: Filter, before: Option<OrderId>, limit: u32) -> Result<Vec<Order>, StoreError> {
        Ok(self.database.judged(row::page(self.database.reads(), &filter, before, limit)).await?)
    }

    async fn due(&self, limit: u32) -> Result<Vec<(OrderId, TimestampUs)>, StoreError> {
        Ok(self.database.judged(row::due(self.database.reads(), limit)).await?)
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
