//! The statements on the table `orders`.

use std::collections::HashMap;

use service_kit::db::{Connection, Db, Error, list, query, rows};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use super::codec::{self, StatusColumns};
use super::place::Place;
use crate::app::{Filter, Fingerprint};
use crate::domain::{
    CurrencyCode, CustomerId, Email, IdempotencyKey, InvoiceNumber, Order, OrderId, PaymentToken, TimestampUs,
    ValueError,
};

macro_rules! select_orders {
    ($tail:literal) => {
        concat!(
            "SELECT order_id, customer_id, customer_email, lines, currency_code, payment_token, checkout_mode, status, ",
            "decline_reason, cancel_reason, refund_pending, payment_attempt, payment_deadline_us, call_deadline_us, ",
            "invoice_number, revision, created_at_us, updated_at_us, fingerprint FROM orders WHERE ",
            $tail
        )
    };
}

/// Sorts after every order id.
const AFTER_ALL_IDS: &str = "g";

/// Keeps new orders but for those whose keys were used before, and says how many it kept.
pub(super) async fn insert(
    connection: &mut Connection,
    places: impl ExactSizeIterator<Item = &Place>,
) -> Result<usize, Error> {
    // Columns that a new order leaves empty keep their defaults.
    let sql = format!(
        "INSERT INTO orders (order_id, customer_id, lines, currency_code, payment_token, status, decline_reason, \
         revision, created_at_us, updated_at_us, idempotency_key, fingerprint, customer_email, checkout_mode, \
         payment_deadline_us, call_deadline_us, due_at_us) VALUES {} ON CONFLICT (idempotency_key) DO NOTHING",
        rows(places.len(), 17)
    );
    let mut insert = query(sql, places.len());
    for Place { order, key, fingerprint, .. } in places {
        insert = insert
            .bind(order.id.to_string())
            .bind(order.customer_id.as_str().to_owned())
            .bind(codec::encode_lines(&order.lines)?)
            .bind(order.total().currency().as_str().to_owned())
            .bind(order.payment_token.as_str().to_owned())
            .bind(codec::encode_status((&order.status).into()))
            .bind(order.decline_reason().unwrap_or_default().to_owned())
            .bind(order.revision)
            .bind(order.created_at.0)
            .bind(order.updated_at.0)
            .bind(key.as_str().to_owned())
            .bind(fingerprint.0.clone())
            .bind(order.customer_email.as_ref().map_or("", Email::as_str).to_owned())
            .bind(codec::encode_mode(order.checkout_mode))
            .bind(order.payment_deadline.map(|at| at.0))
            .bind(order.call_deadline.map(|at| at.0))
            .bind(order.due().map(|(at, _)| at.0));
    }
    let inserted = insert.execute(connection).await?.rows_affected();
    Ok(usize::try_from(inserted).unwrap_or(usize::MAX))
}

/// Keeps changed orders, each if it is still at the revision that stands beside it.
pub(super) async fn update<'a>(
    connection: &mut Connection,
    orders: impl ExactSizeIterator<Item = (&'a Order, i64)>,
) -> Result<(), Error> {
    const COLUMNS: usize = 13;
    let count = orders.len();
    if count == 0 {
        return Ok(());
    }
    // A list of values has no columns to tell the types.
    let types = [
        "TEXT", "TEXT", "BIGINT", "BIGINT", "TEXT", "BIGINT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT",
        "BIGINT",
    ];
    let row = |row: usize| {
        let value = |(at, of_type): (usize, &&str)| format!("CAST(${} AS {of_type})", row * COLUMNS + at + 1);
        format!("({})", types.iter().enumerate().map(value).collect::<Vec<_>>().join(", "))
    };
    let sql = format!(
        "UPDATE orders SET status = new.column1, decline_reason = new.column2, revision = new.column3, \
         updated_at_us = new.column4, payment_token = new.column5, payment_attempt = new.column6, \
         cancel_reason = new.column7, refund_pending = new.column8, call_deadline_us = new.column9, \
         due_at_us = new.column10, invoice_number = new.column11 FROM (VALUES {}) AS new \
         WHERE orders.order_id = new.column12 AND orders.revision = new.column13",
        (0..count).map(row).collect::<Vec<_>>().join(", ")
    );
    let (mut update, mut ids) = (query(sql, count), Vec::with_capacity(count));
    for (order, revision_before) in orders {
        ids.push(order.id);
        update = update
            .bind(codec::encode_status((&order.status).into()))
            .bind(order.decline_reason().unwrap_or_default().to_owned())
            .bind(order.revision)
            .bind(order.updated_at.0)
            .bind(order.payment_token.as_str().to_owned())
            .bind(i64::from(order.attempt))
            .bind(codec::encode_cancel_reason(order.cancel_reason()))
            .bind(i64::from(order.refund_pending()))
            .bind(order.call_deadline.map(|at| at.0))
            .bind(order.due().map(|(at, _)| at.0))
            .bind(order.invoice_number.map(|number| number.0))
            .bind(order.id.to_string())
            .bind(revision_before);
    }
    let updated = update.execute(connection).await?.rows_affected();
    if usize::try_from(updated) == Ok(count) {
        return Ok(());
    }
    let ids: Vec<_> = ids.iter().map(|id| format!("`{id}`")).collect();
    Err(Error::Race(format!("order {}", ids.join(" or "))))
}

/// Gives an order's idempotency key back, so that the same request makes a new order.
///
/// The column stays unique by the order's id behind a control character, which no caller's key holds.
pub(super) async fn free_key(connection: &mut Connection, id: OrderId) -> Result<(), Error> {
    let sql = "UPDATE orders SET idempotency_key = $1 WHERE order_id = $2";
    sqlx::query(sql).bind(format!("\u{1f}{id}")).bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// The next numbers of invoices. Numbers have no gaps, because an undone transaction undoes this as well.
pub(super) async fn next_invoices(
    connection: &mut Connection,
    count: usize,
) -> Result<impl Iterator<Item = InvoiceNumber> + use<>, Error> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let last: i64 = if count == 0 {
        0
    } else {
        let sql = "UPDATE counters SET value = value + $1 WHERE name = 'invoices' RETURNING value";
        sqlx::query_scalar(sql).bind(count).fetch_one(connection).await?
    };
    Ok((last - count + 1..=last).map(InvoiceNumber))
}

/// The orders that fall due next, the earliest first.
pub(super) async fn due<'e>(
    executor: impl Executor<'e, Database = Db>,
    limit: u32,
) -> Result<Vec<(OrderId, TimestampUs)>, Error> {
    let sql = "SELECT order_id, due_at_us FROM orders WHERE due_at_us IS NOT NULL ORDER BY due_at_us LIMIT $1";
    let rows = sqlx::query_as::<_, (String, i64)>(sql).bind(i64::from(limit)).fetch_all(executor).await?;
    let parse = |(id, at): (String, i64)| {
        let id = id.parse().map_err(|error: ValueError| Error::column("order_id", error))?;
        Ok((id, TimestampUs(at)))
    };
    rows.into_iter().map(parse).collect()
}

pub(super) async fn by_id<'e>(executor: impl Executor<'e, Database = Db>, id: OrderId) -> Result<Option<Order>, Error> {
    let row = sqlx::query(select_orders!("order_id = $1")).bind(id.to_string()).fetch_optional(executor).await?;
    row.as_ref().map(decode).transpose()
}

pub(super) async fn by_ids(
    connection: &mut Connection,
    ids: impl ExactSizeIterator<Item = OrderId>,
) -> Result<HashMap<OrderId, Order>, Error> {
    let count = ids.len();
    let sql = format!("{}order_id IN ({})", select_orders!(""), list(1, count));
    let query = ids.fold(query(sql, count), |query, id| query.bind(id.to_string()));
    let order = |row: &AnyRow| decode(row).map(|order| (order.id, order));
    query.fetch_all(connection).await?.iter().map(order).collect()
}

pub(super) async fn by_key(
    connection: &mut Connection,
    key: &IdempotencyKey,
) -> Result<Option<(Order, Fingerprint)>, Error> {
    let sql = select_orders!("idempotency_key = $1");
    let Some(row) = sqlx::query(sql).bind(key.as_str()).fetch_optional(connection).await? else { return Ok(None) };
    Ok(Some((decode(&row)?, Fingerprint(row.try_get("fingerprint")?))))
}

/// Every combination of filters has its own statement, so that each finds its index.
pub(super) async fn page<'e>(
    executor: impl Executor<'e, Database = Db>,
    filter: &Filter,
    before: Option<OrderId>,
    limit: u32,
) -> Result<Vec<Order>, Error> {
    let before = before.map_or_else(|| AFTER_ALL_IDS.to_owned(), |id| id.to_string());
    let customer_id = filter.customer_id.as_ref().map(CustomerId::as_str);
    let status = filter.status.map(codec::encode_status);
    let (limit, query) = (i64::from(limit), sqlx::query);
    let query = match (customer_id, status) {
        (None, None) => query(select_orders!("order_id < $1 ORDER BY order_id DESC LIMIT $2")).bind(before).bind(limit),
        (Some(customer_id), None) => {
            query(select_orders!("customer_id = $1 AND order_id < $2 ORDER BY order_id DESC LIMIT $3"))
                .bind(customer_id)
                .bind(before)
                .bind(limit)
        }
        (None, Some(status)) => query(select_orders!("status = $1 AND order_id < $2 ORDER BY order_id DESC LIMIT $3"))
            .bind(status)
            .bind(before)
            .bind(limit),
        (Some(customer_id), Some(status)) => {
            query(select_orders!("customer_id = $1 AND status = $2 AND order_id < $3 ORDER BY order_id DESC LIMIT $4"))
                .bind(customer_id)
                .bind(status)
                .bind(before)
                .bind(limit)
        }
    };
    query.fetch_all(executor).await?.iter().map(decode).collect()
}

fn decode(row: &AnyRow) -> Result<Order, Error> {
    let column = |column: &'static str| move |error: ValueError| Error::column(column, error);
    let currency: CurrencyCode = row.try_get::<&str, _>("currency_code")?.parse().map_err(column("currency_code"))?;
    let time = |column: &str| Ok::<_, Error>(row.try_get::<Option<i64>, _>(column)?.map(TimestampUs));
    let status = StatusColumns {
        status: row.try_get("status")?,
        decline_reason: row.try_get("decline_reason")?,
        cancel_reason: row.try_get("cancel_reason")?,
        refund_pending: row.try_get("refund_pending")?,
    };
    let customer_email = match row.try_get::<String, _>("customer_email")? {
        none if none.is_empty() => None,
        text => Some(Email::parse(text).map_err(column("customer_email"))?),
    };
    let attempt = u32::try_from(row.try_get::<i64, _>("payment_attempt")?);
    Ok(Order {
        id: row.try_get::<&str, _>("order_id")?.parse().map_err(column("order_id"))?,
        customer_id: CustomerId::parse(row.try_get::<String, _>("customer_id")?).map_err(column("customer_id"))?,
        customer_email,
        lines: codec::decode_lines(row.try_get("lines")?, currency)?,
        payment_token: PaymentToken::parse(row.try_get::<String, _>("payment_token")?)
            .map_err(column("payment_token"))?,
        checkout_mode: codec::decode_mode(row.try_get("checkout_mode")?)?,
        status: codec::decode_status(status)?,
        attempt: attempt.map_err(|error| Error::column("payment_attempt", error))?,
        payment_deadline: time("payment_deadline_us")?,
        call_deadline: time("call_deadline_us")?,
        invoice_number: row.try_get::<Option<i64>, _>("invoice_number")?.map(InvoiceNumber),
        revision: row.try_get("revision")?,
        created_at: TimestampUs(row.try_get("created_at_us")?),
        updated_at: TimestampUs(row.try_get("updated_at_us")?),
    })
}
