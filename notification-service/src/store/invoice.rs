//! The statements on the tables `invoices` and `invoice_positions`.

use std::collections::HashMap;

use service_kit::db::{self, Connection, Db, Error, query, rows};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use crate::domain::{Amount, CustomerId, Invoice, InvoiceNumber, KeptInvoice, TimestampUs};

/// The invoices that have one of these numbers or belong to one of these orders: the order of each number.
pub(super) async fn known(
    connection: &mut Connection,
    invoices: impl ExactSizeIterator<Item = &Invoice> + Clone,
) -> Result<HashMap<String, String>, Error> {
    let count = invoices.len();
    let sql = format!(
        "SELECT invoice_number, order_id FROM invoices WHERE invoice_number IN ({}) OR order_id IN ({})",
        db::list(1, count),
        db::list(count + 1, count)
    );
    let query = query(sql, count);
    let query = invoices.clone().fold(query, |query, invoice| query.bind(invoice.number.as_str().to_owned()));
    let query = invoices.fold(query, |query, invoice| query.bind(invoice.order_id.clone()));
    let known = |row: &AnyRow| Ok((row.try_get("invoice_number")?, row.try_get("order_id")?));
    query.fetch_all(connection).await?.iter().map(known).collect()
}

/// Keeps new invoices, in the order of their arrival.
pub(super) async fn insert(
    connection: &mut Connection,
    invoices: &[(&Invoice, &[u8], TimestampUs)],
) -> Result<(), Error> {
    const COLUMNS: usize = 9;
    if invoices.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(invoices.len()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO invoice_positions (id, last_position) VALUES (1, $1) ON CONFLICT (id) \
         DO UPDATE SET last_position = invoice_positions.last_position + excluded.last_position \
         RETURNING last_position";
    let last: i64 = sqlx::query(sql).bind(count).fetch_one(&mut *connection).await?.try_get("last_position")?;
    let sql = format!(
        "INSERT INTO invoices (order_id, invoice_number, customer_id, currency_code, total_minor, pdf, pdf_bytes, \
         position, created_at_us) VALUES {}",
        rows(invoices.len(), COLUMNS)
    );
    let mut insert = query(sql, invoices.len());
    for (position, (invoice, pdf, now)) in (last - count + 1..=last).zip(invoices) {
        let pdf_bytes =
            i64::try_from(pdf.len()).map_err(|_| Error::TooLarge { what: "an invoice", bytes: pdf.len() })?;
        insert = insert
            .bind(invoice.order_id.clone())
            .bind(invoice.number.as_str().to_owned())
            .bind(invoice.customer_id.as_str().to_owned())
            .bind(invoice.total.currency_code.clone())
            .bind(invoice.total.amount_minor)
            .bind(pdf.to_vec())
            .bind(pdf_bytes)
            .bind(position)
            .bind(now.0);
    }
    insert.execute(connection).await?;
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
