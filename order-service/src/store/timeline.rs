//! The statements on the table `order_timeline`.

use orderflow_proto::orderflow::events::v1 as wire;
use prost::Message as _;
use service_kit::clock::now_us;
use service_kit::db::{Connection, Db, Error, JobFuture};
use service_kit::outbox::Taken;
use sqlx::Executor;

use super::{codec, event};
use crate::app::{Step, StepKind};
use crate::domain::{Note, Order, OrderEvent, OrderId, TimestampUs};

/// Writes the step that a change of the order is.
pub(super) async fn changed(connection: &mut Connection, order: &Order, event: OrderEvent) -> Result<(), Error> {
    let (kind, detail) = match event {
        // The order tells it by itself.
        OrderEvent::Placed => return Ok(()),
        OrderEvent::PaymentRetried => (StepKind::Retried, ""),
        OrderEvent::Paid => (StepKind::Paid, ""),
        OrderEvent::Declined => (StepKind::Declined, order.decline_reason().unwrap_or_default()),
        OrderEvent::Cancelled => (StepKind::Cancelled, codec::encode_cancel_reason(order.cancel_reason())),
        OrderEvent::RefundRequested => (StepKind::RefundRequested, ""),
        OrderEvent::Refunded => (StepKind::Refunded, ""),
    };
    let step = Step { at: order.updated_at, kind, attempt: order.attempt, detail: detail.to_owned() };
    append(connection, &order.id.to_string(), &step).await
}

/// Writes what was heard of a cancelled order's payment.
pub(super) async fn note(connection: &mut Connection, order: &Order, note: Note, at: TimestampUs) -> Result<(), Error> {
    let kind = match note {
        Note::Refunded => StepKind::Refunded,
        Note::Voided => StepKind::Voided,
    };
    let step = Step { at, kind, attempt: order.attempt, detail: String::new() };
    append(connection, &order.id.to_string(), &step).await
}

/// Writes that the broker has taken events which ask for a payment. Runs in the relay's transaction.
pub(crate) fn queued<'c>(connection: &'c mut Connection, taken: &'c [Taken]) -> JobFuture<'c, Result<(), Error>> {
    Box::pin(async move {
        for event in taken {
            let attempt = match event.kind.as_str() {
                event::PLACED => 1,
                event::PAYMENT_RETRIED => retried_attempt(event),
                _ => continue,
            };
            let at = TimestampUs(now_us());
            let step = Step { at, kind: StepKind::Queued, attempt, detail: String::new() };
            append(connection, &event.ordering_key, &step).await?;
        }
        Ok(())
    })
}

pub(super) async fn steps<'e>(executor: impl Executor<'e, Database = Db>, id: OrderId) -> Result<Vec<Step>, Error> {
    let sql = "SELECT at_us, kind, attempt, detail FROM order_timeline WHERE order_id = $1 ORDER BY number";
    let rows = sqlx::query_as::<_, (i64, String, i64, String)>(sql).bind(id.to_string()).fetch_all(executor).await?;
    let step = |(at_us, kind, attempt, detail): (i64, String, i64, String)| {
        let attempt = u32::try_from(attempt).map_err(|error| Error::column("attempt", error))?;
        Ok(Step { at: TimestampUs(at_us), kind: codec::decode_step_kind(&kind)?, attempt, detail })
    };
    rows.into_iter().map(step).collect()
}

async fn append(connection: &mut Connection, order_id: &str, step: &Step) -> Result<(), Error> {
    let sql = "INSERT INTO order_timeline (order_id, number, at_us, kind, attempt, detail) VALUES \
         ($1, (SELECT COALESCE(MAX(number), 0) + 1 FROM order_timeline WHERE order_id = $1), $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(order_id)
        .bind(step.at.0)
        .bind(codec::encode_step_kind(step.kind)?)
        .bind(i64::from(step.attempt))
        .bind(step.detail.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Which try a PaymentRetried asks for. The service wrote it itself, so that it always decodes.
fn retried_attempt(taken: &Taken) -> u32 {
    match wire::OrderEvent::decode(taken.payload.clone()).map(|event| event.event) {
        Ok(Some(wire::order_event::Event::PaymentRetried(retried))) => retried.attempt,
        _ => 0,
    }
}
