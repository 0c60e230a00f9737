//! Publishes what waits in the outbox.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use google_cloud_pubsub::client::{BasePublisher, Publisher};
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::publisher::PublishFuture;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Error;
use crate::broker::BrokerConfig;
use crate::db::{self, Database};

/// How many events are read, published and deleted in one round.
pub const BATCH_EVENTS_MAX: u32 = 256;

/// How long the relay sleeps when nothing is committed, in milliseconds. Commits wake it; this is for the unforeseen.
const IDLE_MS: u64 = 1_000;

/// How long the relay waits after a round that failed, in milliseconds: the most; the least is half of it.
const RETRY_MS: u64 = 1_000;

/// Publishes what waits: at start, after every commit, and again after an outage. One relay for each database.
///
/// Events of one key go out in the order of their transactions; many keys go out at the same time. An event is
/// deleted only after the broker said that it has it. A crash between the two makes a duplicate with the same id.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    broker: BrokerConfig,
    publisher: BasePublisher,
}

/// How a round went.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Everything that was read is published. With `more`, there is probably more.
    Published { more: bool },
    /// Something waits on, for this reason.
    Failed(String),
}

impl Relay {
    /// A relay from `database` to the broker. A broker that is down is no error: events wait.
    pub async fn open(database: Database, broker: &BrokerConfig) -> Result<Self, Error> {
        Ok(Self { database, broker: broker.clone(), publisher: broker.publisher().await? })
    }

    /// Publishes until the token is cancelled; then finishes the round and returns. What waits on goes out at the
    /// next start. An error means that the database is unfit: the service ends.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let mut commits = self.database.commits();
        let mut failing = false;
        while !token.is_cancelled() {
            commits.mark_unchanged();
            let pause_ms = match self.round().await? {
                Round::Published { more } => {
                    if failing {
                        info!("events are published again");
                    }
                    failing = false;
                    if more { 0 } else { IDLE_MS }
                }
                Round::Failed(problem) => {
                    if !failing {
                        warn!(problem, "events cannot be published; they wait in the outbox");
                    }
                    failing = true;
                    fastrand::u64(RETRY_MS / 2..=RETRY_MS)
                }
            };
            tokio::select! {
                () = token.cancelled() => {}
                error = self.database.poisoned() => return Err(error.into()),
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                // Commits that go on during an outage do not shorten the pause.
                Ok(()) = commits.changed(), if !failing => {}
            }
        }
        Ok(())
    }

    /// Reads a batch, publishes it, and deletes what the broker took.
    async fn round(&self) -> Result<Round, Error> {
        let rows = self.read().await?;
        let more = rows.len() == BATCH_EVENTS_MAX as usize;
        if rows.is_empty() {
            return Ok(Round::Published { more });
        }
        let mut problem = None;
        let mut taken = Vec::with_capacity(rows.len());
        for (row, published) in self.publish(rows) {
            match published.await {
                Ok(_) => taken.push(row),
                Err(error) => problem = Some(crate::status::chain(&error)),
            }
        }
        self.delete(taken).await?;
        Ok(problem.map_or(Round::Published { more }, Round::Failed))
    }

    /// Starts to publish all of it.
    ///
    /// Each round has its own publishers, on the same connection. A publisher keeps a task for every ordering key that
    /// it has seen, and stops publishing a key after an error; both end with the round.
    fn publish(&self, rows: Vec<Row>) -> Vec<(RowId, PublishFuture)> {
        let mut publishers: HashMap<String, Publisher> = HashMap::new();
        let publish = |row: Row| {
            let publisher = publishers.entry(row.topic).or_insert_with_key(|topic| {
                let publisher = self.publisher.publisher(self.broker.topic(topic));
                publisher.set_delay_threshold(Duration::ZERO).build()
            });
            let message = Message::new().set_data(row.payload).set_ordering_key(row.ordering_key);
            (row.id, publisher.publish(message.set_attributes(row.attributes)))
        };
        rows.into_iter().map(publish).collect()
    }

    async fn read(&self) -> Result<Vec<Row>, db::Error> {
        let sql = "SELECT id, event_id, topic, ordering_key, attributes, payload FROM outbox ORDER BY id LIMIT $1";
        let rows = sqlx::query_as::<_, (i64, String, String, String, String, Vec<u8>)>(sql);
        let rows = rows.bind(i64::from(BATCH_EVENTS_MAX)).fetch_all(self.database.reads()).await?;
        let row = |(id, event_id, topic, ordering_key, attributes, payload): (_, _, _, _, String, _)| {
            let attributes = serde_json::from_str(&attributes).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(Row { id: RowId { id, event_id }, topic, ordering_key, attributes, payload })
        };
        rows.into_iter().map(row).collect()
    }

    async fn delete(&self, taken: Vec<RowId>) -> Result<(), db::Error> {
        let delete = self.database.write(move |connection| {
            Box::pin(async move {
                for RowId { id, event_id } in taken {
                    // Ids start again when the outbox is empty, so the event has to be the same one as well.
                    let sql = "DELETE FROM outbox WHERE id = $1 AND event_id = $2";
                    sqlx::query(sql).bind(id).bind(event_id).execute(&mut *connection).await?;
                }
                Ok(())
            })
        });
        delete.await
    }
}

struct Row {
    id: RowId,
    topic: String,
    ordering_key: String,
    attributes: BTreeMap<String, String>,
    payload: Vec<u8>,
}

struct RowId {
    id: i64,
    event_id: String,
}
