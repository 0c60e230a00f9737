//! The statements of the ledger.

use std::collections::{HashMap, HashSet};

use service_kit::clock::now_ms;
use service_kit::db::{Connection, Db, list, query};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use super::{Asked, Error};
use crate::acquirer::wire::{ChargeReply, ChargeRequest, ChargeStatus, LedgerEntry, Movement};

/// A charge and what only the ledger needs to know of it.
pub(super) struct Stored {
    pub(super) entry: LedgerEntry,
    captures: bool,
}

/// A step that was asked for under a key of its own.
pub(super) struct Done {
    pub(super) charge_number: i64,
    pub(super) kind: ChargeStatus,
    pub(super) amount_minor: i64,
}

impl Stored {
    /// What was asked for under the key.
    pub(super) fn asked(&self) -> ChargeRequest {
        let charge = &self.entry.charge;
        ChargeRequest {
            amount_minor: charge.amount_minor,
            currency: charge.currency.clone(),
            card: self.entry.card.clone(),
            reference: charge.reference.clone(),
            capture: self.captures,
        }
    }
}

pub(super) async fn by_key<'e>(executor: impl Executor<'e, Database = Db>, key: &str) -> Result<Option<Stored>, Error> {
    let query = sqlx::query("SELECT * FROM charges WHERE idempotency_key = $1").bind(key.to_owned());
    query.fetch_optional(executor).await?.as_ref().map(stored).transpose()
}

pub(super) async fn by_keys(connection: &mut Connection, keys: &[&str]) -> Result<HashMap<String, Stored>, Error> {
    let sql = format!("SELECT * FROM charges WHERE idempotency_key IN ({})", list(1, keys.len()));
    let query = keys.iter().fold(query(sql, keys.len()), |query, key| query.bind(*key));
    let keyed = |row: &AnyRow| stored(row).map(|stored| (stored.entry.idempotency_key.clone(), stored));
    query.fetch_all(connection).await?.iter().map(keyed).collect()
}

pub(super) async fn by_id<'e>(executor: impl Executor<'e, Database = Db>, id: &str) -> Result<Option<Stored>, Error> {
    let query = sqlx::query("SELECT * FROM charges WHERE id = $1").bind(id.to_owned());
    query.fetch_optional(executor).await?.as_ref().map(stored).transpose()
}

pub(super) async fn page<'e>(
    executor: impl Executor<'e, Database = Db>,
    after: i64,
    limit: u32,
) -> Result<Vec<LedgerEntry>, Error> {
    let query = sqlx::query("SELECT * FROM charges WHERE number > $1 ORDER BY number LIMIT $2");
    let rows = query.bind(after).bind(i64::from(limit)).fetch_all(executor).await?;
    rows.iter().map(|row| Ok(stored(row)?.entry)).collect()
}

/// Fills in the movements of entries that follow each other in the ledger.
pub(super) async fn add_movements<'e>(
    executor: impl Executor<'e, Database = Db>,
    entries: &mut [LedgerEntry],
) -> Result<(), Error> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let sql = "SELECT * FROM movements WHERE charge_number BETWEEN $1 AND $2 ORDER BY charge_number, number";
    let rows = sqlx::query(sql).bind(first.number).bind(last.number).fetch_all(executor).await?;
    for row in &rows {
        let charge_number: i64 = row.try_get("charge_number")?;
        // A step that was made after the entries were read belongs to nobody here, or is told a little early.
        if let Ok(at) = entries.binary_search_by_key(&charge_number, |entry| entry.number) {
            entries[at].movements.push(Movement {
                kind: status(row.try_get("kind")?)?,
                amount_minor: row.try_get("amount_minor")?,
                id: row.try_get("id")?,
                time_ms: row.try_get("created_at_ms")?,
            });
        }
    }
    Ok(())
}

/// Writes new charges down and gives their numbers.
pub(super) async fn insert(connection: &mut Connection, new: &[(&Asked, ChargeReply)]) -> Result<Vec<i64>, Error> {
    const COLUMNS: usize = 9;
    // The largest number is read once, before the first row is written.
    let row = |at: usize| {
        let values = list(at * COLUMNS + 1, COLUMNS);
        format!("((SELECT COALESCE(MAX(number), 0) FROM charges) + {}, {values})", at + 1)
    };
    let sql = format!(
        "INSERT INTO charges (number, idempotency_key, id, status, reason, amount_minor, currency, card, reference, \
         captures) VALUES {} RETURNING id, number",
        (0..new.len()).map(row).collect::<Vec<_>>().join(", ")
    );
    let mut insert = query(sql, new.len());
    for (asked, charge) in new {
        insert = insert
            .bind(asked.key.as_str())
            .bind(&charge.id)
            .bind(status_name(charge.status))
            .bind(&charge.reason)
            .bind(charge.amount_minor)
            .bind(&charge.currency)
            .bind(asked.request.card.as_str())
            .bind(&charge.reference)
            .bind(i64::from(asked.request.capture));
    }
    let inserted = insert.fetch_all(connection).await?;
    let numbers = inserted.iter().map(|row| Ok((row.try_get("id")?, row.try_get("number")?)));
    let numbers: HashMap<String, i64> = numbers.collect::<Result<_, sqlx::Error>>()?;
    let number = |(_, charge): &(&Asked, ChargeReply)| numbers.get(&charge.id).copied().ok_or(sqlx::Error::RowNotFound);
    Ok(new.iter().map(number).collect::<Result<_, _>>()?)
}

/// Writes down what new charges began with.
pub(super) async fn add_first_movements(
    connection: &mut Connection,
    new: &[(&Asked, ChargeReply)],
    numbers: &[i64],
) -> Result<(), Error> {
    const COLUMNS: usize = 4;
    let row = |at: usize| {
        let values = list(at * COLUMNS + 2, COLUMNS);
        format!("((SELECT COALESCE(MAX(number), 0) FROM movements) + {}, {values}, $1)", at + 1)
    };
    let sql = format!(
        "INSERT INTO movements (number, charge_number, kind, amount_minor, id, created_at_ms) VALUES {}",
        (0..new.len()).map(row).collect::<Vec<_>>().join(", ")
    );
    let mut insert = query(sql, new.len()).bind(now_ms());
    for ((_, charge), number) in new.iter().zip(numbers) {
        insert = insert.bind(*number).bind(status_name(charge.status)).bind(charge.amount_minor).bind(&charge.id);
    }
    insert.execute(connection).await?;
    Ok(())
}

pub(super) async fn update(connection: &mut Connection, number: i64, charge: &ChargeReply) -> Result<(), Error> {
    sqlx::query("UPDATE charges SET status = $1, refunded_minor = $2, refund_id = $3 WHERE number = $4")
        .bind(status_name(charge.status))
        .bind(charge.refunded_minor)
        .bind(&charge.refund_id)
        .bind(number)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn add_movement(
    connection: &mut Connection,
    charge_number: i64,
    kind: ChargeStatus,
    amount_minor: i64,
    id: &str,
    key: Option<&str>,
) -> Result<(), Error> {
    let sql = "INSERT INTO movements (number, charge_number, kind, amount_minor, id, idempotency_key, created_at_ms) \
         SELECT COALESCE(MAX(number), 0) + 1, $1, $2, $3, $4, $5, $6 FROM movements";
    sqlx::query(sql)
        .bind(charge_number)
        .bind(status_name(kind))
        .bind(amount_minor)
        .bind(id)
        .bind(key)
        .bind(now_ms())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn movement_by_key(connection: &mut Connection, key: &str) -> Result<Option<Done>, Error> {
    let sql = "SELECT charge_number, kind, amount_minor FROM movements WHERE idempotency_key = $1";
    let row = sqlx::query(sql).bind(key).fetch_optional(connection).await?;
    let done = |row: &AnyRow| {
        Ok(Done {
            charge_number: row.try_get("charge_number")?,
            kind: status(row.try_get("kind")?)?,
            amount_minor: row.try_get("amount_minor")?,
        })
    };
    row.as_ref().map(done).transpose()
}

/// Blocks a key; false if it was blocked before.
pub(super) async fn block(connection: &mut Connection, key: &str) -> Result<bool, Error> {
    let sql = "INSERT INTO blocked_keys (idempotency_key, created_at_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    Ok(sqlx::query(sql).bind(key).bind(now_ms()).execute(connection).await?.rows_affected() == 1)
}

/// Those of the keys that are blocked.
pub(super) async fn blocked(connection: &mut Connection, keys: &[&str]) -> Result<HashSet<String>, Error> {
    let sql = format!("SELECT idempotency_key FROM blocked_keys WHERE idempotency_key IN ({})", list(1, keys.len()));
    let query = keys.iter().fold(query(sql, keys.len()), |query, key| query.bind(*key));
    query.fetch_all(connection).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) fn status_name(status: ChargeStatus) -> &'static str {
    match status {
        ChargeStatus::Authorised => "authorised",
        ChargeStatus::Captured => "captured",
        ChargeStatus::Declined => "declined",
        ChargeStatus::Voided => "voided",
        ChargeStatus::Refunded => "refunded",
    }
}

fn status(name: &str) -> Result<ChargeStatus, Error> {
    match name {
        "authorised" => Ok(ChargeStatus::Authorised),
        "captured" => Ok(ChargeStatus::Captured),
        "declined" => Ok(ChargeStatus::Declined),
        "voided" => Ok(ChargeStatus::Voided),
        "refunded" => Ok(ChargeStatus::Refunded),
        other => Err(Error::UnknownStatus(other.to_owned())),
    }
}

fn stored(row: &AnyRow) -> Result<Stored, Error> {
    let charge = ChargeReply {
        id: row.try_get("id")?,
        status: status(row.try_get("status")?)?,
        reason: row.try_get("reason")?,
        amount_minor: row.try_get("amount_minor")?,
        currency: row.try_get("currency")?,
        reference: row.try_get("reference")?,
        refunded_minor: row.try_get("refunded_minor")?,
        refund_id: row.try_get("refund_id")?,
    };
    let entry = LedgerEntry {
        number: row.try_get("number")?,
        idempotency_key: row.try_get("idempotency_key")?,
        card: row.try_get("card")?,
        charge,
        movements: Vec::new(),
    };
    Ok(Stored { entry, captures: row.try_get::<i64, _>("captures")? != 0 })
}
