//! The statements on the tables `notifications` and `customers`.

use service_kit::db::{Connection, Db, Error};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use crate::domain::{CustomerId, Draft, Kind, Notification, TimestampUs};

/// The customer's next number: one more than the last.
pub(super) async fn next_number(connection: &mut Connection, customer_id: &CustomerId) -> Result<i64, Error> {
    let sql = "INSERT INTO customers (customer_id, last_number) VALUES ($1, 1) \
         ON CONFLICT (customer_id) DO UPDATE SET last_number = customers.last_number + 1 RETURNING last_number";
    Ok(sqlx::query(sql).bind(customer_id.as_str()).fetch_one(connection).await?.try_get("last_number")?)
}

pub(super) async fn exists(connection: &mut Connection, event_id: &str) -> Result<bool, Error> {
    let sql = "SELECT number FROM notifications WHERE event_id = $1";
    Ok(sqlx::query(sql).bind(event_id).fetch_optional(connection).await?.is_some())
}

pub(super) async fn insert(connection: &mut Connection, notification: &Notification) -> Result<(), Error> {
    let sql = "INSERT INTO notifications (customer_id, number, order_id, kind, body, event_id, created_at_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let Notification { number, draft, created_at } = notification;
    sqlx::query(sql)
        .bind(draft.customer_id.as_str())
        .bind(*number)
        .bind(draft.order_id.as_str())
        .bind(encode_kind(draft.kind))
        .bind(draft.text.as_str())
        .bind(draft.event_id.as_str())
        .bind(created_at.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Oldest first.
pub(super) async fn list<'e>(
    executor: impl Executor<'e, Database = Db>,
    customer_id: &CustomerId,
    after: i64,
    limit: u32,
) -> Result<Vec<Notification>, Error> {
    let sql = "SELECT number, order_id, kind, body, event_id, created_at_us FROM notifications \
         WHERE customer_id = $1 AND number > $2 ORDER BY number LIMIT $3";
    let query = sqlx::query(sql).bind(customer_id.as_str()).bind(after).bind(i64::from(limit));
    query.fetch_all(executor).await?.iter().map(|row| decode(row, customer_id)).collect()
}

fn encode_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::OrderReceived => "ORDER_RECEIVED",
        Kind::PaymentCaptured => "PAYMENT_CAPTURED",
        Kind::PaymentDeclined => "PAYMENT_DECLINED",
        Kind::OrderConfirmed => "ORDER_CONFIRMED",
    }
}

fn decode_kind(text: &str) -> Result<Kind, Error> {
    match text {
        "ORDER_RECEIVED" => Ok(Kind::OrderReceived),
        "PAYMENT_CAPTURED" => Ok(Kind::PaymentCaptured),
        "PAYMENT_DECLINED" => Ok(Kind::PaymentDeclined),
        "ORDER_CONFIRMED" => Ok(Kind::OrderConfirmed),
        other => Err(Error::Column { column: "kind", reason: format!("unknown kind `{other}`") }),
    }
}

fn decode(row: &AnyRow, customer_id: &CustomerId) -> Result<Notification, Error> {
    let draft = Draft {
        customer_id: customer_id.clone(),
        order_id: row.try_get("order_id")?,
        kind: decode_kind(row.try_get("kind")?)?,
        text: row.try_get("body")?,
        event_id: row.try_get("event_id")?,
    };
    Ok(Notification { number: row.try_get("number")?, draft, created_at: TimestampUs(row.try_get("created_at_us")?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_and_others_are_refused() {
        for kind in [Kind::OrderReceived, Kind::PaymentCaptured, Kind::PaymentDeclined, Kind::OrderConfirmed] {
            assert_eq!(decode_kind(encode_kind(kind)).unwrap(), kind);
        }
        assert!(decode_kind("").is_err());
        assert!(decode_kind("order_received").is_err());
    }
}
