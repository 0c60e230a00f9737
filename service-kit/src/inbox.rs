//! The inbox: which events a consumer has handled, marked in the transaction of their effect.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::now_ms;
use crate::db::{Connection, Database, Error};
use crate::status::chain;

/// How long an event is remembered, in milliseconds: 14 days. A duplicate that comes later is not recognised, so it
/// is longer than a broker keeps a message.
pub const RETENTION_MS: u64 = 14 * 24 * 60 * 60 * 1_000;

/// How often old rows are pruned, in milliseconds.
const PRUNE_EVERY_MS: u64 = 60 * 60 * 1_000;

/// How many rows one prune transaction deletes at most, so that no write waits long behind it.
const PRUNE_ROWS_MAX: i64 = 1_000;

/// Marks an event as handled by `consumer`. False means that it was handled before: do nothing again.
///
/// The mark holds only if the transaction of `connection` is committed, and so it does exactly when the effect does.
pub async fn first_time(connection: &mut Connection, consumer: &str, event_id: &str) -> Result<bool, Error> {
    let sql = "INSERT INTO inbox (consumer, event_id, handled_at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let marked = sqlx::query(sql).bind(consumer).bind(event_id).bind(now_ms()).execute(connection).await?;
    Ok(marked.rows_affected() == 1)
}

/// Keeps the inbox small until the token is cancelled: rows older than [`RETENTION_MS`] go, now and every hour.
pub async fn keep_small(database: Database, token: CancellationToken) {
    let mut every = tokio::time::interval(Duration::from_millis(PRUNE_EVERY_MS));
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = every.tick() => {}
        }
        if let Err(error) = database.judged(prune(&database, RETENTION_MS)).await {
            warn!(error = chain(&error), "the inbox was not pruned; the next hour tries again");
        }
    }
}

/// Deletes what is older than `age_ms` and says how many rows that were.
async fn prune(database: &Database, age_ms: u64) -> Result<u64, Error> {
    let before_ms = now_ms().saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
    let mut pruned = 0;
    loop {
        let rows = database.write(move |connection| {
            Box::pin(async move {
                let sql = "DELETE FROM inbox WHERE (consumer, event_id) IN \
                     (SELECT consumer, event_id FROM inbox WHERE handled_at_ms < $1 LIMIT $2)";
                let deleted = sqlx::query(sql).bind(before_ms).bind(PRUNE_ROWS_MAX).execute(connection).await?;
                Ok::<_, Error>(deleted.rows_affected())
            })
        });
        match rows.await? {
            0 => return Ok(pruned),
            rows => pruned += rows,
        }
    }
}
