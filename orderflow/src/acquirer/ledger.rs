//! The ledger: what was charged, and under which key. On disk before anybody hears of it.

use service_kit::db::{self, Connection, Database, KIT_VERSION_MAX, Migration};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::cards::Card;
use super::wire::{ChargeReply, ChargeRequest, ChargeStatus, LedgerEntry};

const MIGRATIONS: [Migration; 1] =
    [Migration { version: KIT_VERSION_MAX + 1, name: "ledger", sql: include_str!("../../migrations/0100_ledger.sql") }];

/// Why the ledger can't do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key stands for another charge.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The ledger holds what this version can't have written.
    #[error("the ledger holds the unknown status `{0}`")]
    UnknownStatus(String),
    /// The database failed.
    #[error("the ledger's database failed")]
    Database(#[from] db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A charge as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) reply: ChargeReply,
    /// Whether it had been there before.
    pub(super) replayed: bool,
}

/// The durable ledger. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    database: Database,
}

impl Ledger {
    pub(super) async fn open(url: &str) -> Result<Self, Error> {
        Ok(Self { database: Database::open(url, &MIGRATIONS).await? })
    }

    /// Charges a card, or finds what became of the charge that was made under this key before.
    pub(super) async fn charge(&self, key: String, request: ChargeRequest) -> Result<Recorded, Error> {
        self.database.write(move |connection| Box::pin(charge(connection, key, request))).await
    }

    /// The entries after a number, oldest first.
    pub(super) async fn page(&self, after: i64, limit: u32) -> Result<Vec<LedgerEntry>, Error> {
        let rows = sqlx::query("SELECT * FROM charges WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.database.reads())
            .await?;
        rows.iter().map(entry).collect()
    }

    /// Waits until the ledger can't be written any more.
    pub(super) async fn broken(&self) -> Error {
        self.database.poisoned().await.into()
    }
}

async fn charge(connection: &mut Connection, key: String, request: ChargeRequest) -> Result<Recorded, Error> {
    let before = sqlx::query("SELECT * FROM charges WHERE idempotency_key = $1")
        .bind(&key)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = before {
        let entry = entry(&row)?;
        let asked = ChargeRequest {
            amount_minor: entry.charge.amount_minor,
            currency: entry.charge.currency.clone(),
            card: entry.card,
            reference: entry.charge.reference.clone(),
        };
        return if asked == request {
            Ok(Recorded { reply: entry.charge, replayed: true })
        } else {
            Err(Error::KeyReused)
        };
    }
    let reason = Card::from_token(&request.card).decline_reason().map(str::to_owned);
    let reply = ChargeReply {
        id: format!("ch_{}", Uuid::now_v7().simple()),
        status: if reason.is_none() { ChargeStatus::Captured } else { ChargeStatus::Declined },
        reason,
        amount_minor: request.amount_minor,
        currency: request.currency,
        reference: request.reference,
    };
    sqlx::query(
        "INSERT INTO charges \
         (number, idempotency_key, id, status, reason, amount_minor, currency, card, reference) \
         SELECT COALESCE(MAX(number), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM charges",
    )
    .bind(key)
    .bind(&reply.id)
    .bind(status_name(reply.status))
    .bind(&reply.reason)
    .bind(reply.amount_minor)
    .bind(&reply.currency)
    .bind(request.card)
    .bind(&reply.reference)
    .execute(connection)
    .await?;
    Ok(Recorded { reply, replayed: false })
}

fn status_name(status: ChargeStatus) -> &'static str {
    match status {
        ChargeStatus::Captured => "captured",
        ChargeStatus::Declined => "declined",
    }
}

fn entry(row: &AnyRow) -> Result<LedgerEntry, Error> {
    let status = match row.try_get("status")? {
        "captured" => ChargeStatus::Captured,
        "declined" => ChargeStatus::Declined,
        other => return Err(Error::UnknownStatus(other.to_owned())),
    };
    Ok(LedgerEntry {
        number: row.try_get("number")?,
        idempotency_key: row.try_get("idempotency_key")?,
        card: row.try_get("card")?,
        charge: ChargeReply {
            id: row.try_get("id")?,
            status,
            reason: row.try_get("reason")?,
            amount_minor: row.try_get("amount_minor")?,
            currency: row.try_get("currency")?,
            reference: row.try_get("reference")?,
        },
    })
}
