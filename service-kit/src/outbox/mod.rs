//! The outbox: events wait in the database from the transaction that causes them until the broker has taken them.

mod relay;

use std::collections::BTreeMap;
use std::time::SystemTime;

use uuid::Uuid;

use crate::clock::now_ms;
use crate::db::Connection;
use crate::event::{CE_ID, CE_SOURCE, CE_TIME, CE_TYPE, rfc3339};
use crate::telemetry::trace;
use crate::{broker, db};

pub use relay::{BATCH_EVENTS_MAX, OnTaken, Relay, Taken};

/// How large an event's payload may be, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// An event that shall be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The topic's id: `order-events`.
    pub topic: &'static str,
    /// Events of one key are published, and arrive, in the order of their transactions.
    pub ordering_key: String,
    /// What happened (`ce-type`): `orderflow.events.v1.OrderPlaced`.
    pub kind: &'static str,
    /// The encoded event.
    pub payload: Vec<u8>,
}

/// Why events are not told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// Whose turn it is to publish cannot be told.
    #[error("the lock of the relay beside the database cannot be used")]
    Role(#[source] std::io::Error),
    /// No client can be made for the broker.
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// An event with its id and its attributes, ready for the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    id: String,
    event: NewEvent,
    /// JSON.
    attributes: String,
}

/// Gives an event its id (`ce-id`) and its attributes.
///
/// `source` is who tells it (`ce-source`): the service's name. The event carries the trace of the current span on.
pub fn prepare(source: &str, event: NewEvent) -> Result<Prepared, db::Error> {
    if event.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(db::Error::TooLarge { what: "an event", bytes: event.payload.len() });
    }
    let id = Uuid::now_v7().to_string();
    let time = rfc3339(SystemTime::now());
    let trace = trace::headers();
    let mut attributes =
        BTreeMap::from([(CE_ID, id.as_str()), (CE_TYPE, event.kind), (CE_SOURCE, source), (CE_TIME, &time)]);
    attributes.extend(trace.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let attributes = serde_json::to_string(&attributes).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(Prepared { id, event, attributes })
}

/// Writes an event into the outbox, in the caller's transaction, and gives its id. See [`prepare`].
///
/// The relay hears of the commit by itself.
pub async fn enqueue(connection: &mut Connection, source: &str, event: NewEvent) -> Result<String, db::Error> {
    let event = prepare(source, event)?;
    let id = event.id.clone();
    enqueue_all(connection, vec![event]).await?;
    Ok(id)
}

/// Writes events into the outbox in their order, in the caller's transaction.
pub async fn enqueue_all(connection: &mut Connection, events: Vec<Prepared>) -> Result<(), db::Error> {
    for some in db::pieces(events) {
        insert(connection, some).await?;
    }
    Ok(())
}

async fn insert(connection: &mut Connection, events: Vec<Prepared>) -> Result<(), db::Error> {
    const COLUMNS: usize = 5;
    // The largest id is read once, before the first row is written.
    let row = |at: usize| {
        let values = db::list(at * COLUMNS + 2, COLUMNS);
        format!("((SELECT COALESCE(MAX(id), 0) FROM outbox) + {}, {values}, $1)", at + 1)
    };
    let rows = (0..events.len()).map(row).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "INSERT INTO outbox (id, event_id, topic, ordering_key, attributes, payload, created_at_ms) VALUES {rows}"
    );
    let mut insert = db::query(sql, events.len()).bind(now_ms());
    for Prepared { id, event, attributes } in events {
        insert = insert.bind(id).bind(event.topic).bind(event.ordering_key).bind(attributes).bind(event.payload);
    }
    insert.execute(connection).await?;
    Ok(())
}
