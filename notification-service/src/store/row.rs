//! The statements on the tables `notifications` and `customers`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use service_kit::db::{Connection, Db, Error, list, query, rows};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use crate::domain::{CustomerId, Draft, Kind, Notification, TimestampUs};

/// The customers' next numbers, one for each time that a customer is named: what follows the last one of each.
pub(super) async fn take_numbers<'a>(
    connection: &mut Connection,
    customers: impl Iterator<Item = &'a CustomerId>,
) -> Result<HashMap<CustomerId, RangeInclusive<i64>>, Error> {
    // In one order for everybody, so that two writers who wait for each other's rows cannot wait for ever.
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    customers.for_each(|customer_id| *counts.entry(customer_id.as_str()).or_default() += 1);
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "INSERT INTO customers (customer_id, last_number) VALUES {} ON CONFLICT (customer_id) DO UPDATE SET \
         last_number = customers.last_number + excluded.last_number RETURNING customer_id, last_number",
        rows(counts.len(), 2)
    );
    let take = query(sql, counts.len());
    let take = counts.iter().fold(take, |take, (customer_id, count)| take.bind((*customer_id).to_owned()).bind(*count));
    let numbers = |row: &AnyRow| {
        let (customer_id, last): (String, i64) = (row.try_get("customer_id")?, row.try_get("last_number")?);
        let count = counts.get(customer_id.as_str()).copied().unwrap_or_default();
        let customer_id = CustomerId::parse(customer_id).map_err(|error| Error::column("customer_id", error))?;
        Ok((customer_id, last - count + 1..=last))
    };
    take.fetch_all(connection).await?.iter().map(numbers).collect()
}

/// Those of the events that have a notification.
pub(super) async fn known(connection: &mut Connection, event_ids: &[&str]) -> Result<HashSet<String>, Error> {
    let sql = format!("SELECT event_id FROM notifications WHERE event_id IN ({})", list(1, event_ids.len()));
    let query = query(sql, event_ids.len());
    let query = event_ids.iter().fold(query, |query, event_id| query.bind((*event_id).to_owned()));
    query.fetch_all(connection).await?.iter().map(|row| Ok(row.try_get("event_id")?)).collect()
}

pub(super) async fn insert(
    connection: &mut Connection,
    notifications: impl Iterator<Item = &Notification> + Clone,
) -> Result<(), Error> {
    let count = notifications.clone().count();
    if count == 0 {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO notifications (customer_id, number, order_id, kind, body, event_id, created_at_us) VALUES {}",
        rows(count, 7)
    );
    let insert = notifications.fold(query(sql, count), |insert, notification| {
        let Notification { number, draft, created_at, emailed_at: _ } = notification;
        insert
            .bind(draft.customer_id.as_str().to_owned())
            .bind(*number)
            .bind(draft.order_id.clone())
            .bind(encode_kind(draft.kind))
            .bind(draft.text.clone())
            .bind(draft.event_id.clone())
            .bind(created_at.0)
    });
    insert.execute(connection).await?;
    Ok(())
}

/// Takes the customer's row for the rest of the transaction.
pub(super) async fn lock(connection: &mut Connection, customer_id: &str) -> Result<(), Error> {
    let sql = "UPDATE customers SET last_number = last_number WHERE customer_id = $1";
    sqlx::query(sql).bind(customer_id).execute(connection).await?;
    Ok(())
}

/// Oldest first; of one order, if it is named.
pub(super) async fn page<'e>(
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
