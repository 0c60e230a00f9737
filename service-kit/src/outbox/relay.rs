//! Publishes what waits in the outbox.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use fail_points::{Fault, Point};
use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::client::{BasePublisher, Publisher};
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::publisher::PublishFuture;
use sqlx::Row as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Error;
use crate::broker::{BrokerConfig, code, reason};
use crate::db::{self, Connection, Database, JobFuture};
use crate::event::CE_TYPE;
use crate::status::chain;
use crate::telemetry::metrics;

/// How many events are read, published and deleted in one round.
pub const BATCH_EVENTS_MAX: u32 = 256;

/// How long the relay sleeps when nothing is committed, in milliseconds. Commits of this process wake it; those of others
/// that share the database it finds by itself.
const IDLE_MS: u64 = 100;

/// How long the relay waits after a round that failed, in milliseconds: the most; the least is half of it.
const RETRY_MS: u64 = 1_000;

/// How long a refused event waits until it is offered again, in milliseconds. Somebody has to mend something first.
const REFUSED_MS: u64 = 5_000;

/// How often the events that wait are counted, in milliseconds.
const COUNT_MS: u64 = 1_000;

/// How many refused keys of a topic are remembered; with more of them the whole topic waits.
const REFUSED_KEYS_MAX: usize = 1_024;

/// Publishes what waits: at start, after every commit, and again after an outage. When several processes share a database,
/// one of them publishes, and another takes over when it is gone.
///
/// Events of one key go out in the order of their transactions; many keys go out at the same time. An event is
/// deleted only after the broker said that it has it. A crash between the two makes a duplicate with the same id.
/// What the broker refuses is offered again now and then; what follows it in its key waits, and other keys go on.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    broker: BrokerConfig,
    publisher: BasePublisher,
    on_taken: Option<OnTaken>,
    refused: Refused,
    /// Rows up to this id were refused, or follow a refused one; each round begins after them.
    passed_id: i64,
    leaving: Option<Leaving>,
    count_at: Instant,
}

/// Events that the broker has taken, while they are being deleted. They are not published again meanwhile, and what is
/// behind them need not wait.
#[derive(Debug)]
struct Leaving {
    event_ids: HashSet<String>,
    deleted: JoinHandle<Result<(), db::Error>>,
}

/// An event that the broker has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its id (`ce-id`).
    pub event_id: String,
    /// What happened (`ce-type`).
    pub kind: String,
    /// Its ordering key.
    pub ordering_key: String,
    /// The encoded event.
    pub payload: Bytes,
}

/// What a service does about events that the broker has taken, see [`Relay::on_taken`].
pub type OnTaken = for<'c> fn(&'c mut Connection, &'c [Taken]) -> JobFuture<'c, Result<(), db::Error>>;

/// How a round went.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Everything that may go out is published. With `more`, there is probably more.
    Published { more: bool },
    /// Something waits on, for this reason.
    Failed(String),
}

/// What became of one event.
enum Fate {
    Taken,
    /// The same again may succeed soon.
    Failed(String),
    /// The same again succeeds only after somebody has mended something.
    Refused(Scope, String),
}

#[derive(Clone, Copy)]
enum Scope {
    Topic,
    Key,
}

impl Relay {
    /// A relay from `database` to the broker. A broker that is down is no error: events wait.
    pub async fn open(database: Database, broker: &BrokerConfig) -> Result<Self, Error> {
        let publisher = broker.publisher().await?;
        Ok(Self {
            database,
            broker: broker.clone(),
            publisher,
            on_taken: None,
            refused: Refused::default(),
            passed_id: 0,
            leaving: None,
            count_at: Instant::now(),
        })
    }

    /// Calls `hook` in the transaction that deletes events which the broker has taken: once for each event, also when
    /// several relays have published it. While the hook fails, the events are published again.
    pub fn on_taken(mut self, hook: OnTaken) -> Self {
        self.on_taken = Some(hook);
        self
    }

    /// Publishes until the token is cancelled; then finishes the round and returns. What waits on goes out at the
    /// next start. An error means that the database is unfit: the service ends.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), Error> {
        let role = self.database.role("relay");
        // Who gets no turn leaves the events to the process that has it.
        while let Some(held) = role.take(&token).await.map_err(Error::Role)? {
            tokio::select! {
                biased;
                // Another one may publish from now on. What is on its way to the broker may arrive beside that one's,
                // never before what stands before it; repeats carry the same ids.
                () = held.lost() => {}
                ended = self.publish_until(&token) => return ended,
            }
        }
        Ok(())
    }

    async fn publish_until(&mut self, token: &CancellationToken) -> Result<(), Error> {
        let mut commits = self.database.commits();
        let mut failing = false;
        let mut offer_again_at = Instant::now();
        while !token.is_cancelled() {
            commits.mark_unchanged();
            if offer_again_at <= Instant::now() {
                offer_again_at = Instant::now() + Duration::from_millis(REFUSED_MS);
                self.passed_id = 0;
                self.refused.begin_again();
            }
            let round = self.round().await?;
            self.count().await;
            let pause_ms = match round {
                Round::Published { more } => {
                    if failing {
                        info!("events are published again");
                    }
                    failing = false;
                    if more { 0 } else { IDLE_MS }
                }
                Round::Failed(reason) => {
                    if !failing {
                        warn!(reason, "events cannot be published; they wait in the outbox");
                    }
                    failing = true;
                    fastrand::u64(RETRY_MS / 2..=RETRY_MS)
                }
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                // Commits that go on during an outage do not shorten the pause.
                Ok(()) = commits.changed(), if !failing => {}
            }
        }
        if !failing {
            // What was committed while the last round ran.
            self.round().await?;
        }
        match self.left().await {
            // What was not deleted is published again at the next start.
            Err(error) if error.kind() != db::Kind::Passing => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Counts what waits, now and then, for whoever watches.
    async fn count(&mut self) {
        if self.count_at > Instant::now() {
            return;
        }
        self.count_at = Instant::now() + Duration::from_millis(COUNT_MS);
        let count =
            async { Ok(sqlx::query_scalar("SELECT COUNT(*) FROM outbox").fetch_one(self.database.reads()).await?) };
        let counted = self.database.judged(count).await;
        // A database that fails here fails the next round as well, and is judged there.
        if let Ok(events) = counted {
            metrics::waiting(events);
        }
    }

    /// One batch; a database that is busy for a while is no reason to end.
    async fn round(&mut self) -> Result<Round, Error> {
        match self.offer().await {
            Err(error) if error.kind() == db::Kind::Passing => Ok(Round::Failed(chain(&error))),
            result => Ok(result?),
        }
    }

    /// Reads a batch, publishes it, and begins to delete what the broker took.
    async fn offer(&mut self) -> Result<Round, db::Error> {
        if self.leaving.as_ref().is_some_and(|leaving| leaving.deleted.is_finished()) {
            self.left().await?;
        }
        let rows_max = BATCH_EVENTS_MAX as usize + self.leaving.as_ref().map_or(0, |leaving| leaving.event_ids.len());
        let mut rows = self.database.judged(self.read(rows_max)).await?;
        let more = rows.len() == rows_max;
        if let Some(Leaving { event_ids, .. }) = &self.leaving {
            rows.retain(|row| !event_ids.contains(&row.at.event_id));
        }
        let (held, free): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.refused.holds(&row.at));
        let mut held_id = held.last().map_or(self.passed_id, |row| row.at.id);
        let mut problem = None;
        let mut taken = Vec::with_capacity(free.len());
        if fail_points::broken(Fault::OutboxMarkedFirst) {
            let all = free.iter().map(|row| (row.at.id, row.taken())).collect();
            delete_all(&self.database, all, self.on_taken).await?;
        }
        for (at, event, published) in self.publish(free) {
            match fate(published.await) {
                Fate::Taken => {
                    metrics::published(&at.topic);
                    taken.push((at.id, event));
                }
                // It follows one that was refused in this round.
                _ if self.refused.holds(&at) => held_id = held_id.max(at.id),
                Fate::Refused(scope, reason) => {
                    held_id = held_id.max(at.id);
                    self.refused.add(&at, scope, &reason);
                }
                Fate::Failed(reason) => problem = problem.or(Some(reason)),
            }
        }
        if !taken.is_empty() {
            fail_points::pass(Point::RelayPublished);
            self.left().await?;
            self.leave(taken);
        }
        if let Some(problem) = problem {
            return Ok(Round::Failed(problem));
        }
        // Everything else that was read is deleted, so that new rows get higher ids than this one.
        self.passed_id = held_id;
        if !more {
            self.refused.end_of_outbox();
        }
        Ok(Round::Published { more })
    }

    /// Starts to publish all of it.
    ///
    /// Each round has its own publishers, on the same connection. A publisher keeps a task for every ordering key that
    /// it has seen, and stops publishing a key after an error; both end with the round.
    fn publish(&self, rows: Vec<Row>) -> Vec<(Place, Taken, PublishFuture)> {
        let mut publishers: HashMap<String, Publisher> = HashMap::new();
        let publish = |row: Row| {
            let publisher = publishers.entry(row.at.topic.clone()).or_insert_with_key(|topic| {
                let publisher = self.publisher.publisher(self.broker.topic(topic));
                publisher.set_delay_threshold(Duration::ZERO).build()
            });
            let event = row.taken();
            let message = Message::new().set_data(row.payload).set_ordering_key(&row.at.ordering_key);
            (row.at, event, publisher.publish(message.set_attributes(row.attributes)))
        };
        rows.into_iter().map(publish).collect()
    }

    async fn read(&self, rows_max: usize) -> Result<Vec<Row>, db::Error> {
        let passed_id = self.passed_id;
        self.database.read(move |connection| Box::pin(read(connection, passed_id, rows_max))).await
    }

    /// Begins to delete events that the broker has taken.
    fn leave(&mut self, taken: Vec<(i64, Taken)>) {
        let (database, on_taken) = (self.database.clone(), self.on_taken);
        let event_ids = taken.iter().map(|(_, event)| event.event_id.clone()).collect();
        let deleted = tokio::spawn(async move { delete_all(&database, taken, on_taken).await });
        self.leaving = Some(Leaving { event_ids, deleted });
    }

    /// Waits until what is leaving is deleted. After an error it is published again.
    async fn left(&mut self) -> Result<(), db::Error> {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        let deleted = match leaving.deleted.await {
            Ok(deleted) => deleted,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending.
                Err(_) => Ok(()),
            },
        };
        if deleted.is_err() {
            // Rows that were passed are looked at once more.
            self.passed_id = 0;
        }
        deleted
    }
}

async fn read(connection: &mut Connection, passed_id: i64, rows_max: usize) -> Result<Vec<Row>, db::Error> {
    let sql = "SELECT id, event_id, topic, ordering_key, attributes, payload FROM outbox \
         WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = sqlx::query_as::<_, (i64, String, String, String, String, Vec<u8>)>(sql);
    let rows = rows.bind(passed_id).bind(i64::try_from(rows_max).unwrap_or(i64::MAX)).fetch_all(connection).await?;
    let row = |(id, event_id, topic, ordering_key, attributes, payload): (_, _, _, _, String, Vec<u8>)| {
        let attributes = serde_json::from_str(&attributes).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Row { at: Place { id, event_id, topic, ordering_key }, attributes, payload: Bytes::from(payload) })
    };
    rows.into_iter().map(row).collect()
}

/// Deletes events that the broker has taken, and does what the service does about them, in one transaction.
async fn delete_all(database: &Database, taken: Vec<(i64, Taken)>, on_taken: Option<OnTaken>) -> Result<(), db::Error> {
    let delete = database.write_quietly(move |connection| {
        Box::pin(async move {
            let mut deleted = Vec::with_capacity(taken.len());
            for some in db::pieces(taken) {
                deleted.append(&mut delete(connection, some, on_taken.is_some()).await?);
            }
            match on_taken {
                Some(hook) => hook(connection, &deleted).await,
                None => Ok(()),
            }
        })
    });
    database.judged(delete).await
}

/// Deletes events and, if that is asked for, gives those that were still there.
async fn delete(
    connection: &mut Connection,
    taken: Vec<(i64, Taken)>,
    gives_deleted: bool,
) -> Result<Vec<Taken>, db::Error> {
    // Ids start again when the outbox is empty, so the event has to be one of these as well.
    let (ids, event_ids) = (db::list(1, taken.len()), db::list(taken.len() + 1, taken.len()));
    let returning = if gives_deleted { " RETURNING event_id" } else { "" };
    let sql = format!("DELETE FROM outbox WHERE id IN ({ids}) AND event_id IN ({event_ids}){returning}");
    let query = db::query(sql, taken.len());
    let query = taken.iter().fold(query, |query, (id, _)| query.bind(*id));
    let query = taken.iter().fold(query, |query, (_, event)| query.bind(event.event_id.clone()));
    if !gives_deleted {
        query.execute(connection).await?;
        return Ok(Vec::new());
    }
    let deleted = query.fetch_all(connection).await?;
    let deleted = deleted.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<HashSet<_>, _>>()?;
    Ok(taken.into_iter().map(|(_, event)| event).filter(|event| deleted.contains(&event.event_id)).collect())
}

struct Row {
    at: Place,
    attributes: BTreeMap<String, String>,
    payload: Bytes,
}

impl Row {
    fn taken(&self) -> Taken {
        Taken {
            event_id: self.at.event_id.clone(),
            kind: self.attributes.get(CE_TYPE).cloned().unwrap_or_default(),
            ordering_key: self.at.ordering_key.clone(),
            payload: self.payload.clone(),
        }
    }
}

/// Where an event stands in the outbox and where it goes.
struct Place {
    id: i64,
    event_id: String,
    topic: String,
    ordering_key: String,
}

/// What the broker refuses, so that it is not offered with every round, and what follows it keeps its order.
#[derive(Debug, Default)]
struct Refused {
    topics: HashMap<String, Topic>,
    /// Topics of which the log has said that something is refused.
    told: HashSet<String>,
}

#[derive(Debug, Default)]
struct Topic {
    whole: bool,
    keys: HashSet<String>,
}

impl Refused {
    fn holds(&self, at: &Place) -> bool {
        self.topics
            .get(&at.topic)
            .is_some_and(|topic| topic.whole || (!at.ordering_key.is_empty() && topic.keys.contains(&at.ordering_key)))
    }

    /// Holds what follows, and tells it once for each topic.
    fn add(&mut self, at: &Place, scope: Scope, reason: &str) {
        let topic = self.topics.entry(at.topic.clone()).or_default();
        match scope {
            Scope::Topic => topic.whole = true,
            Scope::Key if topic.keys.len() == REFUSED_KEYS_MAX => topic.whole = true,
            Scope::Key => drop(topic.keys.insert(at.ordering_key.clone())),
        }
        if !self.told.contains(&at.topic) {
            let Place { topic, event_id, .. } = at;
            error!(topic, event_id, reason, "the broker refuses an event; it and what follows it wait in the outbox");
            self.told.insert(at.topic.clone());
        }
    }

    /// Everything is offered once more.
    fn begin_again(&mut self) {
        self.topics.clear();
    }

    /// All that waits has been offered: what is held no more was taken.
    fn end_of_outbox(&mut self) {
        self.told.retain(|topic| {
            let is_held = self.topics.contains_key(topic);
            if !is_held {
                info!(topic, "the broker refuses no event of the topic any more");
            }
            is_held
        });
    }
}

fn fate(published: Result<String, PublishError>) -> Fate {
    let error = match published {
        Ok(_) => return Fate::Taken,
        Err(error) => error,
    };
    let reason = reason(&error);
    match code(&error) {
        Some(Code::InvalidArgument) => Fate::Refused(Scope::Key, reason),
        Some(
            Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented,
        ) => Fate::Refused(Scope::Topic, reason),
        _ => Fate::Failed(reason),
    }
}
