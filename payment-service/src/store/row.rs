//! The statements on the table `payments`.

use std::collections::HashMap;
use std::fmt::Display;

use service_kit::db::{Connection, Db, Error, Item, JobFuture, list, query, rows};
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};

use super::attempts;
use crate::app::Position;
use crate::domain::{CustomerId, Money, OrderId, Payment, PaymentStatus, State, TimestampUs};

macro_rules! select_payments {
    ($tail:literal) => {
        concat!(
            "SELECT order_id, customer_id, currency_code, amount_minor, status, charge_id, decline_reason, ",
            "created_at_us, attempt, refund_id, captured_at_us, refunded_at_us, updated_at_us, attempts, version ",
            "FROM payments WHERE ",
            $tail
        )
    };
}

/// A payment and how often it was changed.
pub(super) struct Versioned {
    pub(super) payment: Payment,
    pub(super) version: i64,
}

/// Keeps payments, each of which was read in the version beside it; 0 stands for one that was not there.
pub(super) async fn put(connection: &mut Connection, payments: &[(&Payment, i64)]) -> Result<(), Error> {
    const COLUMNS: usize = 15;
    let (new, known): (Vec<_>, Vec<_>) = payments.iter().copied().partition(|(_, version)| *version == 0);
    if !new.is_empty() {
        let sql = format!(
            "INSERT INTO payments (order_id, customer_id, currency_code, amount_minor, status, charge_id, \
             decline_reason, created_at_us, attempt, refund_id, captured_at_us, refunded_at_us, updated_at_us, \
             attempts, version) VALUES {} ON CONFLICT DO NOTHING",
            rows(new.len(), COLUMNS)
        );
        write(connection, sql, &new).await?;
    }
    for one in known {
        let sql = "UPDATE payments SET customer_id = $2, currency_code = $3, amount_minor = $4, status = $5, \
             charge_id = $6, decline_reason = $7, created_at_us = $8, attempt = $9, refund_id = $10, \
             captured_at_us = $11, refunded_at_us = $12, updated_at_us = $13, attempts = $14, version = $15 \
             WHERE order_id = $1 AND version = $15 - 1";
        write(connection, sql.to_owned(), &[one]).await?;
    }
    Ok(())
}

/// Writes payments in the versions that follow those beside them.
async fn write(connection: &mut Connection, sql: String, payments: &[(&Payment, i64)]) -> Result<(), Error> {
    let us = |time: Option<TimestampUs>| time.map_or(0, |time| time.0);
    let mut write = query(sql, payments.len());
    for (payment, version) in payments {
        let (charge_id, refund_id, reason) = match &payment.state {
            State::Pending | State::Voided => ("", "", ""),
            State::Captured { charge_id } => (charge_id.as_str(), "", ""),
            State::Refunded { charge_id, refund_id } => (charge_id.as_str(), refund_id.as_str(), ""),
            State::Declined { reason } => ("", "", reason.as_str()),
        };
        write = write
            .bind(payment.order_id.to_string())
            .bind(payment.customer_id.as_str())
            .bind(payment.amount.as_ref().map_or("", |amount| amount.currency().as_str()))
            .bind(payment.amount.as_ref().map_or(0, Money::amount_minor))
            .bind(encode_status(payment.status()))
            .bind(charge_id)
            .bind(reason)
            .bind(payment.created_at.0)
            .bind(i64::from(payment.attempt))
            .bind(refund_id)
            .bind(us(payment.captured_at))
            .bind(us(payment.refunded_at))
            .bind(payment.updated_at.0)
            .bind(attempts::encode(&payment.attempts)?)
            .bind(version + 1);
    }
    let written = write.execute(connection).await?.rows_affected();
    if usize::try_from(written) == Ok(payments.len()) {
        return Ok(());
    }
    let ids: Vec<_> = payments.iter().map(|(payment, _)| format!("`{}`", payment.order_id)).collect();
    Err(Error::Race(format!("payment {}", ids.join(" or "))))
}

pub(super) async fn by_orders(
    connection: &mut Connection,
    order_ids: impl ExactSizeIterator<Item = OrderId>,
) -> Result<HashMap<OrderId, Versioned>, Error> {
    let count = order_ids.len();
    let sql = format!("{}order_id IN ({})", select_payments!(""), list(1, count));
    let query = order_ids.fold(query(sql, count), |query, order_id| query.bind(order_id.to_string()));
    let versioned = |row: &AnyRow| versioned(row).map(|known| (known.payment.order_id, known));
    query.fetch_all(connection).await?.iter().map(versioned).collect()
}

/// The payments of orders, one for each item.
pub(super) fn find<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<OrderId>],
) -> JobFuture<'c, Result<Vec<Option<Payment>>, Error>> {
    Box::pin(async move {
        let found = by_orders(connection, items.iter().map(|item| item.value)).await?;
        Ok(items.iter().map(|item| found.get(&item.value).map(|known| known.payment.clone())).collect())
    })
}

/// Newest first. Each filter has its own statement, so that each finds its index.
pub(super) async fn page<'e>(
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

pub(super) fn encode_status(status: PaymentStatus) -> &'static str {
    match status {
        PaymentStatus::Pending => "PENDING",
        PaymentStatus::Captured => "CAPTURED",
        PaymentStatus::Declined => "DECLINED",
        PaymentStatus::Voided => "VOIDED",
        PaymentStatus::Refunded => "REFUNDED",
    }
}

pub(super) fn decode_status(text: &str) -> Result<PaymentStatus, String> {
    match text {
        "PENDING" => Ok(PaymentStatus::Pending),
        "CAPTURED" => Ok(PaymentStatus::Captured),
        "DECLINED" => Ok(PaymentStatus::Declined),
        "VOIDED" => Ok(PaymentStatus::Voided),
        "REFUNDED" => Ok(PaymentStatus::Refunded),
        other => Err(format!("unknown status `{other}`")),
    }
}

fn versioned(row: &AnyRow) -> Result<Versioned, Error> {
    Ok(Versioned { payment: decode(row)?, version: row.try_get("version")? })
}

fn decode(row: &AnyRow) -> Result<Payment, Error> {
    let charge_id = row.try_get("charge_id")?;
    let state = match column("status", decode_status(row.try_get("status")?))? {
        PaymentStatus::Pending => State::Pending,
        PaymentStatus::Captured => State::Captured { charge_id },
        PaymentStatus::Declined => State::Declined { reason: row.try_get("decline_reason")? },
        PaymentStatus::Voided => State::Voided,
        PaymentStatus::Refunded => State::Refunded { charge_id, refund_id: row.try_get("refund_id")? },
    };
    let time = |column: &str| Ok::<_, Error>(Some(row.try_get(column)?).filter(|us| *us != 0).map(TimestampUs));
    Ok(Payment {
        order_id: column("order_id", row.try_get::<&str, _>("order_id")?.parse())?,
        customer_id: column("customer_id", CustomerId::parse(row.try_get::<String, _>("customer_id")?))?,
        amount: amount(row)?,
        state,
        attempt: column("attempt", u32::try_from(row.try_get::<i64, _>("attempt")?))?,
        created_at: TimestampUs(row.try_get("created_at_us")?),
        captured_at: time("captured_at_us")?,
        refunded_at: time("refunded_at_us")?,
        updated_at: TimestampUs(row.try_get("updated_at_us")?),
        attempts: attempts::decode(row.try_get("attempts")?)?,
    })
}

fn amount(row: &AnyRow) -> Result<Option<Money>, Error> {
    let currency: &str = row.try_get("currency_code")?;
    if currency.is_empty() {
        return Ok(None);
    }
    let currency = column("currency_code", currency.parse())?;
    column("amount_minor", Money::new(currency, row.try_get("amount_minor")?)).map(Some)
}

fn column<T>(column: &'static str, value: Result<T, impl Display>) -> Result<T, Error> {
    value.map_err(|reason| Error::column(column, reason))
}
