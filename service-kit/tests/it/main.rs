//! The kit against a real database and a small broker made for it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod bulk;
mod consumer;
mod database;
mod fake;
mod postgres;
mod relay;
mod server;
mod silence;
mod telemetry;

use std::time::Duration;

use service_kit::broker::BrokerConfig;
use service_kit::db::Database;
use test_database::TestDatabase;

/// How long a condition may take to come true, in milliseconds. Generous: it only bounds a failure.
const DEADLINE_MS: u64 = 30_000;

/// Waits until the condition holds, and fails the test when it does not within the deadline.
async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(what, waiting).await;
}

/// What the future gives; fails the test when it does not within the deadline.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_millis(DEADLINE_MS), future).await;
    waited.unwrap_or_else(|_| panic!("it did not come true in time: {what}"))
}

fn broker(fake: &fake::Fake) -> BrokerConfig {
    BrokerConfig { broker_url: format!("http://{}", fake.address()), project: "test".into() }
}

async fn database() -> (TestDatabase, Database) {
    let test = TestDatabase::new();
    let database = Database::open(test.url(), &database::MIGRATIONS).await.unwrap();
    (test, database)
}
