//! Orders in the database. What is persisted, and how, stands in this folder and in `migrations`.

mod codec;
mod event;
mod row;
mod timeline;

use service_kit::clock::now_us;
use service_kit::db::{self, Connection, Database, Migration};
use service_kit::{inbox, outbox};

pub(crate) use timeline::queued;

use crate::app::{Changed, Filter, Fingerprint, Happening, Orders, Placed, Step, StoreError};
use crate::domain::{CancelReason, Effect, IdempotencyKey, Order, OrderEvent, OrderId, TimestampUs};

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

    async fn change<F>(&self, message_id: Option<String>, id: OrderId, decide: F) -> Result<Changed, StoreError>
    where
        F: FnOnce(&mut Order) -> Happening + Send + 'static,
    {
        let changed = self.database.write(move |connection| {
            Box::pin(async move {
                let Some(before) = row::by_id(&mut *connection, id).await? else { return Ok(Changed::Unknown) };
                let mut order = before.clone();
                let effect = match decide(&mut order) {
                    Ok(effect) => effect,
                    // Not marked as handled: it is set aside first, and a crash before that must not lose it.
                    Err(refusal) => return Ok(Changed::Refused(refusal)),
                };
                if let Some(message_id) = message_id
                    && !inbox::first_time(connection, SERVICE, &message_id).await?
                {
                    return Ok(Changed::Nothing(before));
                }
                match effect {
                    Effect::Nothing => return Ok(Changed::Nothing(before)),
                    Effect::Noted(note) => {
                        timeline::note(connection, &before, note, TimestampUs(now_us())).await?;
                        return Ok(Changed::Nothing(before));
                    }
                    Effect::Told(event) => keep(connection, &mut order, before.revision, event).await?,
                }
                Ok(Changed::To(order))
            })
        });
        Ok(self.database.judged(changed).await?)
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.database.judged(row::by_id(self.database.reads(), id)).await?)
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<Step>, StoreError> {
        Ok(self.database.judged(timeline::steps(self.database.reads(), id)).await?)
    }

    async fn list(&self, filter: Filter, before: Option<OrderId>, limit: u32) -> Result<Vec<Order>, StoreError> {
        Ok(self.database.judged(row::list(self.database.reads(), &filter, before, limit)).await?)
    }

    async fn due(&self, limit: u32) -> Result<Vec<(OrderId, TimestampUs)>, StoreError> {
        Ok(self.database.judged(row::due(self.database.reads(), limit)).await?)
    }
}

/// Writes what a change is made of: the order, its step, its events, and what belongs to its new status.
async fn keep(
    connection: &mut Connection,
    order: &mut Order,
    revision_before: i64,
    event: OrderEvent,
) -> Result<(), db::Error> {
    if event == OrderEvent::Paid {
        order.invoice_number = Some(row::next_invoice(connection).await?);
    }
    if !row::update(connection, order, revision_before).await? {
        return Err(db::Error::Race(format!("order `{}`", order.id)));
    }
    if order.cancel_reason() == Some(CancelReason::PaymentUnavailable) {
        row::free_key(connection, order.id).await?;
    }
    timeline::changed(connection, order, event).await?;
    outbox::enqueue(connection, SERVICE, event::encode(order, event)).await?;
    if let Some(number) = order.invoice_number.filter(|_| event == OrderEvent::Paid) {
        outbox::enqueue(connection, SERVICE, event::invoice_job(order, number)).await?;
    }
    Ok(())
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
