//! The statements on the table `payments`.

use std::fmt::Display;

use service_kit::db::{Connection, Db, Error};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use crate::app::Position;
use crate::domain::{Answer, CustomerId, Money, OrderId, Payment, PaymentStatus, TimestampUs};

macro_rules! select_payments {
    ($tail:literal) => {
        concat!(
            "SELECT order_id, customer_id, currency_code, amount_minor, status, charge_id, decline_reason, ",
            "created_at_us FROM payments WHERE ",
            $tail
        )
    };
}

/// Keeps a payment; false if the order has one already.
pub(super) async fn insert(connection: &mut Connection, payment: &Payment) -> Result<bool, Error> {
    let sql = "INSERT INTO payments (order_id, customer_id, currency_code, amount_minor, status, charge_id, \
         decline_reason, created_at_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
    let (charge_id, reason) = match &payment.answer {
        Answer::Captured { charge_id } => (charge_id.as_str(), ""),
        Answer::Declined { reason } => ("", reason.as_str()),
    };
    let inserted = sqlx::query(sql)
        .bind(payment.order_id.to_string())
        .bind(payment.customer_id.as_str())
        .bind(payment.amount.currency().as_str())
        .bind(payment.amount.amount_minor())
        .bind(encode_status(payment.status()))
        .bind(charge_id)
        .bind(reason)
        .bind(payment.created_at.0)
        .execute(connection)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn by_order<'e>(
    executor: impl Executor<'e, Database = Db>,
    order_id: OrderId,
) -> Result<Option<Payment>, Error> {
    let query = sqlx::query(select_payments!("order_id = $1")).bind(order_id.to_string());
    query.fetch_optional(executor).await?.as_ref().map(decode).transpose()
}

/// Newest first. Each filter has its own statement, so that each finds its index.
pub(super) async fn list<'e>(
    executor: impl Executor<'e, Database = Db>,
    status: Option<PaymentStatus>,
    before: Option<Position>,
    limit: u32,
) -> Result<Vec<Payment>, Error> {
    // No payment comes after the end of time.
    let (before_us, before_id) =
        before.map_or((i64::MAX, String::new()), |before| (before.created_at.0, before.order_id.to_string()));
    let query = match status {
        None => sqlx::query(select_payments!(
            "(created_at_us, order_id) < ($1, $2) ORDER BY created_at_us DESC, order_id DESC LIMIT $3"
        ))
        .bind(before_us)
        .bind(before_id)
        .bind(i64::from(limit)),
        Some(status) => sqlx::query(select_payments!(
            "status = $1 AND (created_at_us, order_id) < ($2, $3) \
             ORDER BY created_at_us DESC, order_id DESC LIMIT $4"
        ))
        .bind(encode_status(status))
        .bind(before_us)
        .bind(before_id)
        .bind(i64::from(limit)),
    };
    query.fetch_all(executor).await?.iter().map(decode).collect()
}

fn encode_status(status: PaymentStatus) -> &'static str {
    match status {
        PaymentStatus::Captured => "CAPTURED",
        PaymentStatus::Declined => "DECLINED",
    }
}

fn decode(row: &AnyRow) -> Result<Payment, Error> {
    let currency = column("currency_code", row.try_get::<&str, _>("currency_code")?.parse())?;
    let answer = match row.try_get("status")? {
        "CAPTURED" => Answer::Captured { charge_id: row.try_get("charge_id")? },
        "DECLINED" => Answer::Declined { reason: row.try_get("decline_reason")? },
        other => column("status", Err(format!("unknown status `{other}`")))?,
    };
    Ok(Payment {
        order_id: column("order_id", row.try_get::<&str, _>("order_id")?.parse())?,
        customer_id: column("customer_id", CustomerId::parse(row.try_get::<String, _>("customer_id")?))?,
        amount: column("amount_minor", Money::new(currency, row.try_get("amount_minor")?))?,
        answer,
        created_at: TimestampUs(row.try_get("created_at_us")?),
    })
}

fn column<T>(column: &'static str, value: Result<T, impl Display>) -> Result<T, Error> {
    value.map_err(|reason| Error::column(column, reason))
}
