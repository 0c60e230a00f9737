//! The ledger: what was charged, what went back, and under which key. On disk before anybody hears of it.

mod rows;

use std::collections::HashSet;

use service_kit::db::{self, Bulk, Connection, Database, Item, JobFuture, KIT_VERSION_MAX, Migration};
use uuid::Uuid;

use super::wire::{
    CANCELLED, CancellationOutcome, CancellationReply, ChargeReply, ChargeRequest, ChargeStatus, LedgerEntry,
};

const MIGRATIONS: [Migration; 2] = [
    Migration { version: KIT_VERSION_MAX + 1, name: "ledger", sql: include_str!("../../migrations/0100_ledger.sql") },
    Migration {
        version: KIT_VERSION_MAX + 2,
        name: "movements",
        sql: include_str!("../../migrations/0101_movements.sql"),
    },
];

/// The newest tables that this version knows.
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Why the ledger can't do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key stands for another request.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// There is no such charge.
    #[error("there is no charge `{0}`")]
    NotFound(String),
    /// The charge does not stand as it must for this.
    #[error("a charge that is {0} can't be {1}")]
    State(&'static str, &'static str),
    /// More, less or nothing.
    #[error("`amount_minor` must be {0}")]
    Amount(String),
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

/// What the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded<T> {
    pub(super) reply: T,
    /// Whether it had been done before.
    pub(super) replayed: bool,
}

/// What is to become of a charge.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) charge_id: String,
    /// Captured, voided or refunded.
    pub(super) to: ChargeStatus,
    /// All that is left when absent.
    pub(super) amount_minor: Option<i64>,
    /// The key of this change.
    pub(super) key: String,
}

/// The durable ledger. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    database: Database,
    charging: Bulk<Asked, Recorded<ChargeReply>, Error>,
}

/// A charge that is asked for.
#[derive(Debug)]
struct Asked {
    key: String,
    request: ChargeRequest,
    /// Why it is declined, if it is a new one.
    decline: Option<&'static str>,
}

impl Ledger {
    pub(super) async fn open(url: &str) -> Result<Self, Error> {
        let database = Database::open(url, &MIGRATIONS).await?;
        Ok(Self { charging: database.bulk(charge), database })
    }

    /// Charges a card, or finds what became of the charge that was made under this key before. A new charge is
    /// declined if there is a reason to.
    pub(super) async fn charge(
        &self,
        key: String,
        request: ChargeRequest,
        decline: Option<&'static str>,
    ) -> Result<Recorded<ChargeReply>, Error> {
        self.charging.run(Asked { key, request, decline }).await
    }

    /// Captures, voids or refunds a charge, once for each key.
    pub(super) async fn change(&self, change: Change) -> Result<Recorded<ChargeReply>, Error> {
        self.database.write(move |connection| Box::pin(apply(connection, change))).await
    }

    /// Sees to it that nothing stays taken under a key, now and later.
    pub(super) async fn cancel(&self, key: String) -> Result<Recorded<CancellationReply>, Error> {
        self.database.write(move |connection| Box::pin(cancel(connection, key))).await
    }

    /// The entries after a number, oldest first.
    pub(super) async fn page(&self, after: i64, limit: u32) -> Result<Vec<LedgerEntry>, Error> {
        let mut entries = rows::page(self.database.reads(), after, limit).await?;
        rows::add_movements(self.database.reads(), &mut entries).await?;
        Ok(entries)
    }

    /// One charge and how it came to stand as it does.
    pub(super) async fn entry(&self, charge_id: &str) -> Result<LedgerEntry, Error> {
        let stored = rows::by_id(self.database.reads(), charge_id).await?;
        let mut entries = [stored.ok_or_else(|| Error::NotFound(charge_id.to_owned()))?.entry];
        rows::add_movements(self.database.reads(), &mut entries).await?;
        let [entry] = entries;
        Ok(entry)
    }

    /// The charge under a key, without its movements.
    pub(super) async fn by_key(&self, key: &str) -> Result<Option<LedgerEntry>, Error> {
        Ok(rows::by_key(self.database.reads(), key).await?.map(|stored| stored.entry))
    }

    /// Waits until the ledger can't be written any more.
    pub(super) async fn broken(&self) -> Error {
        self.database.poisoned().await.into()
    }
}

fn charge<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Asked>],
) -> JobFuture<'c, Result<Vec<Recorded<ChargeReply>>, Error>> {
    Box::pin(async move {
        let (mut recorded, mut rest) = (Vec::with_capacity(items.len()), items);
        while !rest.is_empty() {
            let mut seen = HashSet::new();
            let different = rest.iter().take_while(|item| seen.insert(&item.value.key)).count();
            let (first, later) = rest.split_at(different);
            recorded.append(&mut charge_each(connection, first).await?);
            rest = later;
        }
        Ok(recorded)
    })
}

/// Charges under different keys.
async fn charge_each(connection: &mut Connection, items: &[Item<Asked>]) -> Result<Vec<Recorded<ChargeReply>>, Error> {
    let keys: Vec<_> = items.iter().map(|item| item.value.key.as_str()).collect();
    let known = rows::by_keys(connection, &keys).await?;
    let blocked = rows::blocked(connection, &keys).await?;
    let (mut recorded, mut new) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for Item { value: asked, .. } in items {
        recorded.push(match known.get(&asked.key) {
            Some(stored) if stored.asked() == asked.request => {
                Recorded { reply: stored.entry.charge.clone(), replayed: true }
            }
            Some(_) => return Err(Error::KeyReused),
            None => {
                let reply = decide(asked, blocked.contains(&asked.key));
                new.push((asked, reply.clone()));
                Recorded { reply, replayed: false }
            }
        });
    }
    if !new.is_empty() {
        let numbers = rows::insert(connection, &new).await?;
        rows::add_first_movements(connection, &new, &numbers).await?;
    }
    Ok(recorded)
}

/// What becomes of a new charge.
fn decide(asked: &Asked, blocked: bool) -> ChargeReply {
    let Asked { request, decline, .. } = asked;
    let reason = if blocked { Some(CANCELLED) } else { *decline };
    let status = match reason {
        Some(_) => ChargeStatus::Declined,
        None if request.capture => ChargeStatus::Captured,
        None => ChargeStatus::Authorised,
    };
    ChargeReply {
        id: format!("ch_{}", Uuid::now_v7().simple()),
        status,
        reason: reason.map(str::to_owned),
        amount_minor: request.amount_minor,
        currency: request.currency.clone(),
        reference: request.reference.clone(),
        refunded_minor: 0,
        refund_id: None,
    }
}

async fn apply(connection: &mut Connection, change: Change) -> Result<Recorded<ChargeReply>, Error> {
    let Change { charge_id, to, amount_minor, key } = change;
    let stored = rows::by_id(&mut *connection, &charge_id).await?;
    let entry = stored.ok_or_else(|| Error::NotFound(charge_id))?.entry;
    if let Some(done) = rows::movement_by_key(connection, &key).await? {
        let same = done.charge_number == entry.number
            && done.kind == to
            && amount_minor.is_none_or(|amount_minor| amount_minor == done.amount_minor);
        return if same { Ok(Recorded { reply: entry.charge, replayed: true }) } else { Err(Error::KeyReused) };
    }
    let status = entry.charge.status;
    let allowed = match to {
        ChargeStatus::Captured | ChargeStatus::Voided => status == ChargeStatus::Authorised,
        ChargeStatus::Refunded => status == ChargeStatus::Captured,
        ChargeStatus::Authorised | ChargeStatus::Declined => false,
    };
    if !allowed {
        return Err(Error::State(rows::status_name(status), rows::status_name(to)));
    }
    let left = entry.charge.amount_minor - entry.charge.refunded_minor;
    let amount_minor = amount_minor.unwrap_or(left);
    if to == ChargeStatus::Refunded && !(1..=left).contains(&amount_minor) {
        return Err(Error::Amount(format!("1 to {left}, which is left of the charge")));
    }
    if to != ChargeStatus::Refunded && amount_minor != left {
        return Err(Error::Amount(format!("{left}, the whole of the charge")));
    }
    let reply = move_to(connection, entry, to, amount_minor, Some(&key)).await?;
    Ok(Recorded { reply, replayed: false })
}

async fn cancel(connection: &mut Connection, key: String) -> Result<Recorded<CancellationReply>, Error> {
    let Some(stored) = rows::by_key(&mut *connection, &key).await? else {
        let replayed = !rows::block(connection, &key).await?;
        let reply = CancellationReply { outcome: CancellationOutcome::Blocked, charge: None };
        return Ok(Recorded { reply, replayed });
    };
    let (entry, before) = (stored.entry.clone(), stored.entry.charge);
    let (outcome, to) = match before.status {
        ChargeStatus::Declined if before.reason.as_deref() == Some(CANCELLED) => (CancellationOutcome::Blocked, None),
        ChargeStatus::Declined => (CancellationOutcome::Declined, None),
        ChargeStatus::Voided => (CancellationOutcome::Voided, None),
        ChargeStatus::Refunded => (CancellationOutcome::Refunded, None),
        ChargeStatus::Authorised => (CancellationOutcome::Voided, Some(ChargeStatus::Voided)),
        ChargeStatus::Captured => (CancellationOutcome::Refunded, Some(ChargeStatus::Refunded)),
    };
    let charge = match to {
        None => before,
        Some(to) => {
            let left = before.amount_minor - before.refunded_minor;
            move_to(connection, entry, to, left, None).await?
        }
    };
    let reply = CancellationReply { outcome, charge: Some(charge) };
    Ok(Recorded { reply, replayed: to.is_none() })
}

/// Writes down a step that is allowed.
async fn move_to(
    connection: &mut Connection,
    entry: LedgerEntry,
    to: ChargeStatus,
    amount_minor: i64,
    key: Option<&str>,
) -> Result<ChargeReply, Error> {
    let LedgerEntry { number, mut charge, .. } = entry;
    let mut id = charge.id.clone();
    if to == ChargeStatus::Refunded {
        id = format!("re_{}", Uuid::now_v7().simple());
        charge.refund_id = Some(id.clone());
        charge.refunded_minor += amount_minor;
    }
    // A charge of which a part went back stays captured.
    if to != ChargeStatus::Refunded || charge.refunded_minor == charge.amount_minor {
        charge.status = to;
    }
    rows::update(connection, number, &charge).await?;
    rows::add_movement(connection, number, to, amount_minor, &id, key).await?;
    Ok(charge)
}
