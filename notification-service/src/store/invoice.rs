//! The statements on the tables `invoices` and `invoice_positions`.

use service_kit::db::{Connection, Db, Error};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use crate::domain::{Amount, CustomerId, Invoice, InvoiceNumber, KeptInvoice, TimestampUs};

/// The order that has this invoice number.
pub(super) async fn order_of(connection: &mut Connection, number: &InvoiceNumber) -> Result<Option<String>, Error> {
    let sql = "SELECT order_id FROM invoices WHERE invoice_number = $1";
    let row = sqlx::query(sql).bind(number.as_str()).fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get("order_id")).transpose()?)
}

pub(super) async fn exists(connection: &mut Connection, order_id: &str) -> Result<bool, Error> {
    let sql = "SELECT position FROM invoices WHERE order_id = $1";
    Ok(sqlx::query(sql).bind(order_id).fetch_optional(connection).await?.is_some())
}

pub(super) async fn insert(
    connection: &mut Connection,
    invoice: &Invoice,
    pdf: &[u8],
    now: TimestampUs,
) -> Result<(), Error> {
    let pdf_bytes = i64::try_from(pdf.len()).map_err(|_| Error::TooLarge { what: "an invoice", bytes: pdf.len() })?;
    let sql = "INSERT INTO invoice_positions (id, last_position) VALUES (1, 1) ON CONFLICT (id) \
         DO UPDATE SET last_position = invoice_positions.last_position + 1 RETURNING last_position";
    let position: i64 = sqlx::query(sql).fetch_one(&mut *connection).await?.try_get("last_position")?;
    let sql = "INSERT INTO invoices (order_id, invoice_number, customer_id, currency_code, total_minor, pdf, \
         pdf_bytes, position, created_at_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    sqlx::query(sql)
        .bind(invoice.order_id.as_str())
        .bind(invoice.number.as_str())
        .bind(invoice.customer_id.as_str())
        .bind(invoice.total.currency_code.as_str())
        .bind(invoice.total.amount_minor)
        .bind(pdf.to_vec())
        .bind(pdf_bytes)
        .bind(position)
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn find(
    executor: impl Executor<'_, Database = Db>,
    order_id: &str,
) -> Result<Option<(KeptInvoice, Vec<u8>)>, Error> {
    let sql = "SELECT order_id, invoice_number, customer_id, currency_code, total_minor, pdf, pdf_bytes, position, \
         created_at_us FROM invoices WHERE order_id = $1";
    let row = sqlx::query(sql).bind(order_id).fetch_optional(executor).await?;
    row.map(|row| Ok((decode(&row)?, row.try_get("pdf")?))).transpose()
}

/// In the order of their arrival.
pub(super) async fn list(
    executor: impl Executor<'_, Database = Db>,
    after: i64,
    limit: u32,
) -> Result<Vec<KeptInvoice>, Error> {
    let sql = "SELECT order_id, invoice_number, customer_id, currency_code, total_minor, pdf_bytes, position, \
         created_at_us FROM invoices WHERE position > $1 ORDER BY position LIMIT $2";
    let query = sqlx::query(sql).bind(after).bind(i64::from(limit));
    query.fetch_all(executor).await?.iter().map(decode).collect()
}

fn decode(row: &AnyRow) -> Result<KeptInvoice, Error> {
    let number: String = row.try_get("invoice_number")?;
    let customer_id: String = row.try_get("customer_id")?;
    let invoice = Invoice {
        number: InvoiceNumber::parse(number).map_err(|error| Error::column("invoice_number", error))?,
        order_id: row.try_get("order_id")?,
        customer_id: CustomerId::parse(customer_id).map_err(|error| Error::column("customer_id", error))?,
        total: Amount { currency_code: row.try_get("currency_code")?, amount_minor: row.try_get("total_minor")? },
    };
    Ok(KeptInvoice {
        invoice,
        position: row.try_get("position")?,
        pdf_bytes: row.try_get("pdf_bytes")?,
        created_at: TimestampUs(row.try_get("created_at_us")?),
    })
}
