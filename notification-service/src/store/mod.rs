//! Notifications, invoices and e-mails in the database. What is persisted, and how, stands in this folder and in
//! `migrations`.

mod arrival;
mod email;
mod invoice;
mod row;

use bytes::Bytes;
use service_kit::db::{self, Bulk, Connection, Database, Item, JobFuture, Migration};
use service_kit::inbox;

use arrival::Arrived;

use crate::app::{Emails, InvoiceFate, Notifications, Settled, StoreError};
use crate::domain::{CustomerId, Draft, Email, Invoice, KeptInvoice, Notification, TimestampUs};

/// The steps of the service's tables.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 100, name: "notifications", sql: include_str!("../../migrations/0100_notifications.sql") },
    Migration {
        version: 101,
        name: "acknowledged, emails, invoices",
        sql: include_str!("../../migrations/0101_acknowledged_emails_invoices.sql"),
    },
];

/// The newest tables that this version knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The name under which the inbox marks messages.
const SERVICE: &str = "notification-service";

/// A store in a database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    database: Database,
    keeping: Bulk<Keep, Option<Notification>>,
    keeping_invoices: Bulk<Arrived, InvoiceFate>,
    sends_emails: bool,
}

/// A notification to keep.
#[derive(Debug)]
struct Keep {
    draft: Draft,
    now: TimestampUs,
    sends_emails: bool,
}

impl Store {
    /// With `sends_emails`, notifications of customers with an address become e-mails as well.
    pub(crate) fn new(database: Database, sends_emails: bool) -> Self {
        let (keeping, keeping_invoices) = (database.bulk(keep_all), database.bulk(arrival::keep_all));
        Self { database, keeping, keeping_invoices, sends_emails }
    }
}

impl Notifications for Store {
    async fn keep(&self, draft: Draft, now: TimestampUs) -> Result<Option<Notification>, StoreError> {
        let keep = Keep { draft, now, sends_emails: self.sends_emails };
        Ok(self.database.judged(self.keeping.run(keep)).await?)
    }

    async fn keep_invoice(
        &self,
        invoice: Invoice,
        pdf: Bytes,
        draft: Draft,
        now: TimestampUs,
    ) -> Result<InvoiceFate, StoreError> {
        let keep = Keep { draft, now, sends_emails: self.sends_emails };
        let arrived = Arrived { invoice, pdf, keep };
        Ok(self.database.judged(self.keeping_invoices.run(arrived)).await?)
    }

    async fn list(
        &self,
        customer_id: &CustomerId,
        order_id: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Notification>, StoreError> {
        let list = row::page(self.database.reads(), customer_id, order_id, after, limit);
        Ok(self.database.judged(list).await?)
    }

    async fn acknowledge(&self, customer_id: CustomerId, number: i64) -> Result<Option<i64>, StoreError> {
        let acknowledged = self
            .database
            .write(move |connection| Box::pin(async move { row::acknowledge(connection, &customer_id, number).await }));
        Ok(self.database.judged(acknowledged).await?)
    }

    async fn acknowledged(&self, customer_id: &CustomerId) -> Result<i64, StoreError> {
        Ok(self.database.judged(row::acknowledged(self.database.reads(), customer_id)).await?)
    }

    async fn invoice(&self, order_id: &str) -> Result<Option<(KeptInvoice, Vec<u8>)>, StoreError> {
        Ok(self.database.judged(invoice::find(self.database.reads(), order_id)).await?)
    }

    async fn invoices(&self, after: i64, limit: u32) -> Result<Vec<KeptInvoice>, StoreError> {
        Ok(self.database.judged(invoice::list(self.database.reads(), after, limit)).await?)
    }
}

impl Emails for Store {
    async fn next_due(&self) -> Result<Option<TimestampUs>, StoreError> {
        Ok(self.database.judged(email::next_due(self.database.reads())).await?)
    }

    async fn claim(&self, now: TimestampUs, until: TimestampUs, limit: u32) -> Result<Vec<Email>, StoreError> {
        let claimed = self
            .database
            .write(move |connection| Box::pin(async move { email::claim(connection, now, until, limit).await }));
        Ok(self.database.judged(claimed).await?)
    }

    async fn settle(&self, email: Email, settled: Settled, now: TimestampUs) -> Result<(), StoreError> {
        let settled = self
            .database
            .write(move |connection| Box::pin(async move { email::settle(connection, &email, settled, now).await }));
        Ok(self.database.judged(settled).await?)
    }
}

fn keep_all<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Keep>],
) -> JobFuture<'c, Result<Vec<Option<Notification>>, db::Error>> {
    Box::pin(async move {
        let keeps: Vec<_> = items.iter().map(|item| &item.value).collect();
        keep(connection, &keeps).await
    })
}

/// Keeps notifications and queues their e-mails, in the transaction that the caller has.
async fn keep(connection: &mut Connection, keeps: &[&Keep]) -> Result<Vec<Option<Notification>>, db::Error> {
    if keeps.is_empty() {
        return Ok(Vec::new());
    }
    // The inbox forgets after its retention, the notification does not: both are asked before a number is taken, so
    // that a number once taken is always used.
    let event_ids: Vec<_> = keeps.iter().map(|keep| keep.draft.event_id.as_str()).collect();
    let first_time = inbox::first_times(connection, SERVICE, &event_ids).await?;
    let known = row::known(connection, &event_ids).await?;
    let is_new = |at: usize| first_time[at] && !known.contains(event_ids[at]);
    let customers = (0..keeps.len()).filter(|at| is_new(*at)).map(|at| &keeps[at].draft.customer_id);
    let mut numbers = row::take_numbers(connection, customers).await?;
    let mut kept = Vec::with_capacity(keeps.len());
    for (at, Keep { draft, now, .. }) in keeps.iter().enumerate() {
        let number = if is_new(at) { numbers.get_mut(&draft.customer_id).and_then(Iterator::next) } else { None };
        let notification = |number| Notification { number, draft: draft.clone(), created_at: *now, emailed_at: None };
        kept.push(number.map(notification));
    }
    row::insert(connection, kept.iter().flatten()).await?;
    email::remember_addresses(connection, kept.iter().flatten()).await?;
    if keeps.iter().any(|keep| keep.sends_emails) {
        email::queue(connection, kept.iter().flatten()).await?;
    }
    Ok(kept)
}

impl From<db::Error> for StoreError {
    fn from(error: db::Error) -> Self {
        match error.kind() {
            db::Kind::OfTheRow => Self::Broken(error.into()),
            // What lasts ends the service, which finds it out by itself; until then it is unavailable.
            db::Kind::Passing | db::Kind::Lasting => Self::Unavailable(error.into()),
        }
    }
}
