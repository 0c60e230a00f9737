//! Notifications, invoices and e-mails in the database. What is persisted, and how, stands in this folder and in
//! `migrations`.

mod email;
mod invoice;
mod row;

use bytes::Bytes;
use service_kit::db::{self, Connection, Database, Migration};
use service_kit::inbox;

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
    sends_emails: bool,
}

impl Store {
    /// With `sends_emails`, notifications of customers with an address become e-mails as well.
    pub(crate) fn new(database: Database, sends_emails: bool) -> Self {
        Self { database, sends_emails }
    }
}

impl Notifications for Store {
    async fn keep(&self, draft: Draft, now: TimestampUs) -> Result<Option<Notification>, StoreError> {
        let sends_emails = self.sends_emails;
        let kept = self.database.write(move |connection| Box::pin(keep(connection, draft, now, sends_emails)));
        Ok(self.database.judged(kept).await?)
    }

    async fn keep_invoice(
        &self,
        invoice: Invoice,
        pdf: Bytes,
        draft: Draft,
        now: TimestampUs,
    ) -> Result<InvoiceFate, StoreError> {
        let sends_emails = self.sends_emails;
        let kept = self.database.write(move |connection| {
            Box::pin(async move {
                if let Some(order_id) = invoice::order_of(connection, &invoice.number).await? {
                    let same = order_id == invoice.order_id;
                    return Ok(if same { InvoiceFate::KnownAlready } else { InvoiceFate::NumberTaken { order_id } });
                }
                // An order has one invoice, even if another one arrives under another number.
                if invoice::exists(connection, &invoice.order_id).await? {
                    return Ok(InvoiceFate::KnownAlready);
                }
                let Some(notification) = keep(connection, draft, now, sends_emails).await? else {
                    return Ok(InvoiceFate::KnownAlready);
                };
                invoice::insert(connection, &invoice, &pdf, now).await?;
                Ok::<_, db::Error>(InvoiceFate::Kept(notification.into()))
            })
        });
        Ok(self.database.judged(kept).await?)
    }

    async fn list(
        &self,
        customer_id: &CustomerId,
        order_id: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Notification>, StoreError> {
        let list = row::list(self.database.reads(), customer_id, order_id, after, limit);
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

/// Keeps a notification and queues its e-mail, in the transaction that the caller has.
async fn keep(
    connection: &mut Connection,
    draft: Draft,
    now: TimestampUs,
    sends_emails: bool,
) -> Result<Option<Notification>, db::Error> {
    // The inbox forgets after its retention, the notification does not: both are asked before a number is taken, so
    // that a number once taken is always used.
    let first_time = inbox::first_time(connection, SERVICE, &draft.event_id).await?;
    if !first_time || row::exists(connection, &draft.event_id).await? {
        return Ok(None);
    }
    let number = row::next_number(connection, &draft.customer_id).await?;
    let notification = Notification { number, draft, created_at: now, emailed_at: None };
    row::insert(connection, &notification).await?;
    email::remember_address(connection, &notification.draft).await?;
    if sends_emails {
        email::queue(connection, &notification.draft, now).await?;
    }
    Ok(Some(notification))
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
