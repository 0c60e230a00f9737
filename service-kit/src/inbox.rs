//! The inbox: which events a consumer has handled, marked in the transaction of their effect.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::now_ms;
use crate::db::{self, Connection, Database, Error};
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
    Ok(first_times(connection, consumer, &[event_id]).await? == [true])
}

/// As [`first_time`], for many events at once, in their order. An event that is there twice is new once.
pub async fn first_times(connection: &mut Connection, consumer: &str, event_ids: &[&str]) -> Result<Vec<bool>, Error> {
    if event_ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = (0..event_ids.len()).map(|row| format!("($1, ${}, $2)", row + 3)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "INSERT INTO inbox (consumer, event_id, handled_at_ms) VALUES {rows} ON CONFLICT DO NOTHING RETURNING event_id"
    );
    let insert = db::query(sql, event_ids.len()).bind(consumer.to_owned()).bind(now_ms());
    let insert = event_ids.iter().fold(insert, |insert, event_id| insert.bind((*event_id).to_owned()));
    let marked = insert.fetch_all(connection).await?;
    let marked = marked.iter().map(|row| row.try_get::<String, _>(0));
    let mut marked = marked.collect::<Result<HashSet<_>, _>>()?;
    Ok(event_ids.iter().map(|event_id| marked.remove(*event_id)).collect())
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
