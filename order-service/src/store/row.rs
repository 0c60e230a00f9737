//! The statements on the table `orders`.

use service_kit::db::{Connection, Db, Error};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use super::codec;
use crate::app::{Filter, Fingerprint};
use crate::domain::{CurrencyCode, CustomerId, IdempotencyKey, Order, OrderId, PaymentToken, TimestampUs, ValueError};

macro_rules! select_orders {
    ($tail:literal) => {
        concat!(
            "SELECT order_id, customer_id, lines, currency_code, payment_token, status, decline_reason, revision, ",
            "created_at_us, updated_at_us, fingerprint FROM orders WHERE ",
            $tail
        )
    };
}

/// Sorts after every order id.
const AFTER_ALL_IDS: &str = "g";

pub(super) async fn insert(
    connection: &mut Connection,
    order: &Order,
    key: &IdempotencyKey,
    fingerprint: &Fingerprint,
) -> Result<(), Error> {
    let sql = "INSERT INTO orders (order_id, customer_id, lines, currency_code, payment_token, status, decline_reason, \
         revision, created_at_us, updated_at_us, idempotency_key, fingerprint) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    sqlx::query(sql)
        .bind(order.id.to_string())
        .bind(order.customer_id.as_str())
        .bind(codec::encode_lines(&order.lines)?)
        .bind(order.total().currency().as_str())
        .bind(order.payment_token.as_str())
        .bind(codec::encode_status((&order.status).into()))
        .bind(order.decline_reason().unwrap_or_default())
        .bind(order.revision)
        .bind(order.created_at.0)
        .bind(order.updated_at.0)
        .bind(key.as_str())
        .bind(fingerprint.0.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps a changed status; false if the order is no longer at `revision_before`.
pub(super) async fn update(connection: &mut Connection, order: &Order, revision_before: i64) -> Result<bool, Error> {
    let sql = "UPDATE orders SET status = $1, decline_reason = $2, revision = $3, updated_at_us = $4 \
         WHERE order_id = $5 AND revision = $6";
    let updated = sqlx::query(sql)
        .bind(codec::encode_status((&order.status).into()))
        .bind(order.decline_reason().unwrap_or_default())
        .bind(order.revision)
        .bind(order.updated_at.0)
        .bind(order.id.to_string())
        .bind(revision_before)
        .execute(connection)
        .await?;
    Ok(updated.rows_affected() == 1)
}

pub(super) async fn by_id<'e>(executor: impl Executor<'e, Database = Db>, id: OrderId) -> Result<Option<Order>, Error> {
    let row = sqlx::query(select_orders!("order_id = $1")).bind(id.to_string()).fetch_optional(executor).await?;
    row.as_ref().map(decode).transpose()
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
pub(super) async fn list<'e>(
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
    Ok(Order {
        id: row.try_get::<&str, _>("order_id")?.parse().map_err(column("order_id"))?,
        customer_id: CustomerId::parse(row.try_get::<String, _>("customer_id")?).map_err(column("customer_id"))?,
        lines: codec::decode_lines(row.try_get("lines")?, currency)?,
        payment_token: PaymentToken::parse(row.try_get::<String, _>("payment_token")?)
            .map_err(column("payment_token"))?,
        status: codec::decode_status(row.try_get("status")?, row.try_get("decline_reason")?)?,
        revision: row.try_get("revision")?,
        created_at: TimestampUs(row.try_get("created_at_us")?),
        updated_at: TimestampUs(row.try_get("updated_at_us")?),
    })
}
