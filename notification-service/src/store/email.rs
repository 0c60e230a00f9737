//! The statements on the tables `order_addresses` and `emails`.

use std::collections::BTreeMap;

use service_kit::db::{Connection, Db, Error, Kind, list, query, rows};
use service_kit::status::chain;
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};
use tracing::warn;

use super::row;
use crate::app::Settled;
use crate::domain::{CustomerId, Email, Notification, TimestampUs};

/// When an e-mail is due that waits for an older one of the same customer.
const NEVER_US: i64 = i64::MAX;

/// Bytes of a reason that are kept at most.
const REASON_BYTES_MAX: usize = 512;

/// Remembers where the customers of orders get e-mail, the first time that an event tells it.
pub(super) async fn remember_addresses<'a>(
    connection: &mut Connection,
    notifications: impl Iterator<Item = &'a Notification>,
) -> Result<(), Error> {
    let told: Vec<_> = notifications.filter_map(|one| Some((&one.draft.order_id, one.draft.email.as_ref()?))).collect();
    if told.is_empty() {
        return Ok(());
    }
    let rows = rows(told.len(), 3);
    let sql = format!("INSERT INTO order_addresses (order_id, address, problem) VALUES {rows} ON CONFLICT DO NOTHING");
    let mut insert = query(sql, told.len());
    for (order_id, email) in told {
        let (address, problem) = match email {
            Ok(address) => (address.as_str(), String::new()),
            Err(error) => ("", error.to_string()),
        };
        insert = insert.bind(order_id.clone()).bind(address.to_owned()).bind(problem);
    }
    insert.execute(connection).await?;
    Ok(())
}

/// Queues an e-mail for each notification about the same orders that has none yet, if the address is known by now:
/// events of payments do not tell it, and may overtake the one that does. Each customer's are queued by their number:
/// only the oldest of them is due.
pub(super) async fn queue<'a>(
    connection: &mut Connection,
    notifications: impl Iterator<Item = &'a Notification>,
) -> Result<(), Error> {
    let mut orders: BTreeMap<&str, BTreeMap<&str, &Notification>> = BTreeMap::new();
    for one in notifications {
        orders.entry(&one.draft.order_id).or_default().insert(one.draft.customer_id.as_str(), one);
    }
    if orders.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT n.customer_id, n.number, n.order_id, a.address, a.problem \
         FROM notifications n JOIN order_addresses a ON a.order_id = n.order_id \
         WHERE n.order_id IN ({}) AND NOT EXISTS \
         (SELECT 1 FROM emails e WHERE e.customer_id = n.customer_id AND e.number = n.number) \
         ORDER BY n.customer_id, n.number",
        list(1, orders.len())
    );
    let found = query(sql, orders.len());
    let found = orders.keys().fold(found, |found, order_id| found.bind((*order_id).to_owned()));
    for row in found.fetch_all(&mut *connection).await? {
        let (order_id, customer_id): (String, String) = (row.try_get("order_id")?, row.try_get("customer_id")?);
        let cause = orders.get(order_id.as_str()).and_then(|customers| customers.get(customer_id.as_str()));
        if let Some(cause) = cause {
            queue_one(connection, &row, cause.created_at).await?;
        }
    }
    Ok(())
}

async fn queue_one(connection: &mut Connection, row: &AnyRow, now: TimestampUs) -> Result<(), Error> {
    let (customer_id, number): (String, i64) = (row.try_get("customer_id")?, row.try_get("number")?);
    let (address, problem): (String, String) = (row.try_get("address")?, row.try_get("problem")?);
    let (state, due_at_us, finished_at_us) = if !problem.is_empty() {
        ("REFUSED", NEVER_US, now.0)
    } else if oldest_queued(connection, &customer_id).await?.is_some() {
        ("QUEUED", NEVER_US, 0)
    } else {
        ("QUEUED", now.0, 0)
    };
    let sql = "INSERT INTO emails (customer_id, number, address, state, attempts, due_at_us, reason, \
         finished_at_us) VALUES ($1, $2, $3, $4, 0, $5, $6, $7)";
    sqlx::query(sql)
        .bind(customer_id)
        .bind(number)
        .bind(address)
        .bind(state)
        .bind(due_at_us)
        .bind(problem)
        .bind(finished_at_us)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn next_due(executor: impl Executor<'_, Database = Db>) -> Result<Option<TimestampUs>, Error> {
    let sql = "SELECT due_at_us FROM emails WHERE state = 'QUEUED' ORDER BY due_at_us LIMIT 1";
    let row = sqlx::query(sql).fetch_optional(executor).await?;
    Ok(row.map(|row| row.try_get("due_at_us")).transpose()?.map(TimestampUs))
}

/// Takes what is due. The guard on the time lets one of two senders have it. What makes no sense is refused: it must not
/// keep the others from leaving.
pub(super) async fn claim(
    connection: &mut Connection,
    now: TimestampUs,
    until: TimestampUs,
    limit: u32,
) -> Result<Vec<Email>, Error> {
    let sql = "SELECT e.customer_id, e.number, e.address, e.attempts, e.due_at_us, n.order_id, n.kind, n.body, \
         n.event_id, n.created_at_us, 0 AS emailed_at_us \
         FROM emails e JOIN notifications n ON n.customer_id = e.customer_id AND n.number = e.number \
         WHERE e.state = 'QUEUED' AND e.due_at_us <= $1 ORDER BY e.due_at_us LIMIT $2";
    let due = sqlx::query(sql).bind(now.0).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    let mut claimed = Vec::with_capacity(due.len());
    for row in due {
        let email = match decode(&row) {
            Ok(email) => email,
            Err(error) if error.kind() == Kind::OfTheRow => {
                refuse(connection, &row, &chain(&error), now).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let due_at_us: i64 = row.try_get("due_at_us")?;
        let sql = "UPDATE emails SET due_at_us = $1 WHERE customer_id = $2 AND number = $3 AND due_at_us = $4 \
             AND state = 'QUEUED'";
        let taken = sqlx::query(sql)
            .bind(until.0)
            .bind(email.notification.draft.customer_id.as_str())
            .bind(email.notification.number)
            .bind(due_at_us)
            .execute(&mut *connection)
            .await?;
        if taken.rows_affected() == 1 {
            claimed.push(email);
        }
    }
    Ok(claimed)
}

pub(super) async fn settle(
    connection: &mut Connection,
    email: &Email,
    settled: Settled,
    now: TimestampUs,
) -> Result<(), Error> {
    let customer_id = email.notification.draft.customer_id.as_str();
    let attempts = i64::from(email.attempts);
    let (state, attempts, due_at_us, reason, finished_at_us) = match settled {
        Settled::Sent => ("SENT", attempts, NEVER_US, String::new(), now.0),
        Settled::Refused { reason } => ("REFUSED", attempts, NEVER_US, reason, now.0),
        Settled::PutOff { reason, due_at } => ("QUEUED", attempts + 1, due_at.0, reason, 0),
        Settled::Returned => ("QUEUED", attempts, now.0, String::new(), 0),
    };
    let sql = "UPDATE emails SET state = $1, attempts = $2, due_at_us = $3, reason = $4, finished_at_us = $5 \
         WHERE customer_id = $6 AND number = $7 AND state = 'QUEUED'";
    sqlx::query(sql)
        .bind(state)
        .bind(attempts)
        .bind(due_at_us)
        .bind(kept(&reason))
        .bind(finished_at_us)
        .bind(customer_id)
        .bind(email.notification.number)
        .execute(&mut *connection)
        .await?;
    if state != "QUEUED" {
        wake_next(connection, customer_id, now).await?;
    }
    Ok(())
}

/// Gives up an e-mail whose row does not decode.
async fn refuse(connection: &mut Connection, row: &AnyRow, reason: &str, now: TimestampUs) -> Result<(), Error> {
    let (customer_id, number): (String, i64) = (row.try_get("customer_id")?, row.try_get("number")?);
    warn!(customer_id, number, reason, "an e-mail cannot be read and is given up");
    let sql = "UPDATE emails SET state = 'REFUSED', due_at_us = $1, reason = $2, finished_at_us = $3 \
         WHERE customer_id = $4 AND number = $5 AND state = 'QUEUED'";
    sqlx::query(sql)
        .bind(NEVER_US)
        .bind(kept(reason))
        .bind(now.0)
        .bind(customer_id.as_str())
        .bind(number)
        .execute(&mut *connection)
        .await?;
    wake_next(connection, &customer_id, now).await
}

/// What is kept of a reason.
fn kept(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// Makes the customer's next e-mail due.
async fn wake_next(connection: &mut Connection, customer_id: &str, now: TimestampUs) -> Result<(), Error> {
    // Takes turns with whoever queues an e-mail for the same customer: that one would wait for an older one that is
    // just being sent.
    row::lock(connection, customer_id).await?;
    let Some(number) = oldest_queued(connection, customer_id).await? else { return Ok(()) };
    let sql = "UPDATE emails SET due_at_us = $1 WHERE customer_id = $2 AND number = $3 AND due_at_us = $4";
    let query = sqlx::query(sql).bind(now.0).bind(customer_id).bind(number).bind(NEVER_US);
    query.execute(connection).await?;
    Ok(())
}

async fn oldest_queued(connection: &mut Connection, customer_id: &str) -> Result<Option<i64>, Error> {
    let sql = "SELECT number FROM emails WHERE customer_id = $1 AND state = 'QUEUED' ORDER BY number LIMIT 1";
    let row = sqlx::query(sql).bind(customer_id).fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get("number")).transpose()?)
}

fn decode(row: &AnyRow) -> Result<Email, Error> {
    let customer_id: String = row.try_get("customer_id")?;
    let customer_id = CustomerId::parse(customer_id).map_err(|error| Error::column("customer_id", error))?;
    let attempts: i64 = row.try_get("attempts")?;
    Ok(Email {
        notification: row::decode(row, &customer_id)?,
        address: row.try_get("address")?,
        attempts: u32::try_from(attempts).map_err(|error| Error::column("attempts", error))?,
    })
}
