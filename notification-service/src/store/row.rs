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
    let Notification { number, draft, created_at, emailed_at: _ } = notification;
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

/// Takes the customer's row for the rest of the transaction.
pub(super) async fn lock(connection: &mut Connection, customer_id: &str) -> Result<(), Error> {
    let sql = "UPDATE customers SET last_number = last_number WHERE customer_id = $1";
    sqlx::query(sql).bind(customer_id).execute(connection).await?;
    Ok(())
}

/// Oldest first; of one order, if it is named.
pub(super) async fn list<'e>(
    executor: impl Executor<'e, Database = Db>,
    customer_id: &CustomerId,
    order_id: Option<&str>,
    after: i64,
    limit: u32,
) -> Result<Vec<Notification>, Error> {
    let all = "SELECT n.number, n.order_id, n.kind, n.body, n.event_id, n.created_at_us, \
         COALESCE(e.finished_at_us, 0) AS emailed_at_us FROM notifications n \
         LEFT JOIN emails e ON e.customer_id = n.customer_id AND e.number = n.number AND e.state = 'SENT' \
         WHERE n.customer_id = $1 AND n.number > $2 ORDER BY n.number LIMIT $3";
    let of_an_order = "SELECT n.number, n.order_id, n.kind, n.body, n.event_id, n.created_at_us, \
         COALESCE(e.finished_at_us, 0) AS emailed_at_us FROM notifications n \
         LEFT JOIN emails e ON e.customer_id = n.customer_id AND e.number = n.number AND e.state = 'SENT' \
         WHERE n.customer_id = $1 AND n.number > $2 AND n.order_id = $4 ORDER BY n.number LIMIT $3";
    let query = sqlx::query(if order_id.is_some() { of_an_order } else { all });
    let query = query.bind(customer_id.as_str()).bind(after).bind(i64::from(limit));
    let query = if let Some(order_id) = order_id { query.bind(order_id) } else { query };
    query.fetch_all(executor).await?.iter().map(|row| decode(row, customer_id)).collect()
}

/// Remembers what the customer has seen and says how far that is now; `None` if there are not so many.
pub(super) async fn acknowledge(
    connection: &mut Connection,
    customer_id: &CustomerId,
    number: i64,
) -> Result<Option<i64>, Error> {
    let sql = "UPDATE customers SET acknowledged_number = $1 \
         WHERE customer_id = $2 AND acknowledged_number < $1 AND last_number >= $1";
    sqlx::query(sql).bind(number).bind(customer_id.as_str()).execute(&mut *connection).await?;
    let acknowledged = acknowledged(connection, customer_id).await?;
    Ok((acknowledged >= number).then_some(acknowledged))
}

/// The last number that the customer has said to have seen.
pub(super) async fn acknowledged(
    executor: impl Executor<'_, Database = Db>,
    customer_id: &CustomerId,
) -> Result<i64, Error> {
    let sql = "SELECT acknowledged_number FROM customers WHERE customer_id = $1";
    let row = sqlx::query(sql).bind(customer_id.as_str()).fetch_optional(executor).await?;
    Ok(row.map(|row| row.try_get("acknowledged_number")).transpose()?.unwrap_or_default())
}

fn encode_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::OrderReceived => "ORDER_RECEIVED",
        Kind::PaymentCaptured => "PAYMENT_CAPTURED",
        Kind::PaymentDeclined => "PAYMENT_DECLINED",
        Kind::OrderConfirmed => "ORDER_CONFIRMED",
        Kind::OrderCancelled => "ORDER_CANCELLED",
        Kind::PaymentRefunded => "PAYMENT_REFUNDED",
        Kind::InvoiceReady => "INVOICE_READY",
    }
}

fn decode_kind(text: &str) -> Result<Kind, Error> {
    match text {
        "ORDER_RECEIVED" => Ok(Kind::OrderReceived),
        "PAYMENT_CAPTURED" => Ok(Kind::PaymentCaptured),
        "PAYMENT_DECLINED" => Ok(Kind::PaymentDeclined),
        "ORDER_CONFIRMED" => Ok(Kind::OrderConfirmed),
        "ORDER_CANCELLED" => Ok(Kind::OrderCancelled),
        "PAYMENT_REFUNDED" => Ok(Kind::PaymentRefunded),
        "INVOICE_READY" => Ok(Kind::InvoiceReady),
        other => Err(Error::Column { column: "kind", reason: format!("unknown kind `{other}`") }),
    }
}

pub(super) fn decode(row: &AnyRow, customer_id: &CustomerId) -> Result<Notification, Error> {
    let draft = Draft {
        customer_id: customer_id.clone(),
        order_id: row.try_get("order_id")?,
        kind: decode_kind(row.try_get("kind")?)?,
        text: row.try_get("body")?,
        event_id: row.try_get("event_id")?,
        // Not kept with the notification: the e-mail has its own row.
        email: None,
    };
    let emailed_at_us: i64 = row.try_get("emailed_at_us")?;
    Ok(Notification {
        number: row.try_get("number")?,
        draft,
        created_at: TimestampUs(row.try_get("created_at_us")?),
        emailed_at: (emailed_at_us > 0).then_some(TimestampUs(emailed_at_us)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_and_others_are_refused() {
        for kind in Kind::ALL {
            assert_eq!(decode_kind(encode_kind(kind)).unwrap(), kind);
        }
        assert!(decode_kind("").is_err());
        assert!(decode_kind("order_received").is_err());
    }
}
