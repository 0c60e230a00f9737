//! Orders in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod codec;
mod event;
mod row;

use service_kit::db::{self, Database, Migration};
use service_kit::{inbox, outbox};

use crate::app::{Changed, Filter, Fingerprint, Orders, Placed, StoreError};
use crate::domain::{IdempotencyKey, Order, OrderEvent, OrderId, OutcomeError};

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { version: 100, name: "orders", sql: include_str!("../../migrations/0100_orders.sql") }];

/// The name under which the inbox marks messages, and the source of events.
const SERVICE: &str = "order-service";

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

impl Orders for Store {
    async fn place(&self, order: Order, key: IdempotencyKey, fingerprint: Fingerprint) -> Result<Placed, StoreError> {
        let placed = self.database.write(move |connection| {
            Box::pin(async move {
                if let Some((known, known_fingerprint)) = row::by_key(connection, &key).await? {
                    let same = known_fingerprint == fingerprint;
                    return Ok(if same { Placed::Known(known) } else { Placed::KeyReused });
                }
                row::insert(connection, &order, &key, &fingerprint).await?;
                outbox::enqueue(connection, SERVICE, event::encode(&order, OrderEvent::Placed)).await?;
                Ok::<_, db::Error>(Placed::New(order))
            })
        });
        Ok(self.database.judged(placed).await?)
    }

    async fn change<F>(&self, message_id: String, id: OrderId, decide: F) -> Result<Changed, StoreError>
    where
        F: FnOnce(&mut Order) -> Result<Option<OrderEvent>, OutcomeError> + Send + 'static,
    {
        let changed = self.database.write(move |connection| {
            Box::pin(async move {
                let Some(mut order) = row::by_id(&mut *connection, id).await? else { return Ok(Changed::Unknown) };
                let revision_before = order.revision;
                let event = match decide(&mut order) {
                    Ok(event) => event,
                    // Not marked as handled: it is set aside first, and a crash before that must not lose it.
                    Err(error) => return Ok(Changed::Refused(error)),
                };
                let first_time = inbox::first_time(connection, SERVICE, &message_id).await?;
                let (true, Some(event)) = (first_time, event) else { return Ok(Changed::Nothing) };
                if !row::update(connection, &order, revision_before).await? {
                    return Err(db::Error::Race(format!("order `{id}`")));
                }
                outbox::enqueue(connection, SERVICE, event::encode(&order, event)).await?;
                Ok(Changed::To(order))
            })
        });
        Ok(self.database.judged(changed).await?)
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.database.judged(row::by_id(self.database.reads(), id)).await?)
    }

    async fn list(&self, filter: Filter, before: Option<OrderId>, limit: u32) -> Result<Vec<Order>, StoreError> {
        Ok(self.database.judged(row::list(self.database.reads(), &filter, before, limit)).await?)
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
