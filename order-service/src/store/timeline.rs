//! The statements on the table `order_timeline`.

use std::collections::HashMap;

use orderflow_proto::orderflow::events::v1 as wire;
use prost::Message as _;
use service_kit::clock::now_us;
use service_kit::db::{Connection, Db, Error, JobFuture, list, pieces, query};
use service_kit::outbox::Taken;
use sqlx::Executor;

use super::{codec, event};
use crate::app::{Step, StepKind};
use crate::domain::{Note, Order, OrderEvent, OrderId, TimestampUs};

/// The step that a change of the order is, if the order does not tell it by itself.
pub(super) fn changed(order: &Order, event: OrderEvent) -> Option<Step> {
    let (kind, detail) = match event {
        OrderEvent::Placed => return None,
        OrderEvent::PaymentRetried => (StepKind::Retried, ""),
        OrderEvent::Paid => (StepKind::Paid, ""),
        OrderEvent::Declined => (StepKind::Declined, order.decline_reason().unwrap_or_default()),
        OrderEvent::Cancelled => (StepKind::Cancelled, codec::encode_cancel_reason(order.cancel_reason())),
        OrderEvent::RefundRequested => (StepKind::RefundRequested, ""),
        OrderEvent::Refunded => (StepKind::Refunded, ""),
    };
    Some(Step { at: order.updated_at, kind, attempt: order.attempt, detail: detail.to_owned() })
}

/// The step that was heard of a cancelled order's payment.
pub(super) fn noted(order: &Order, note: Note, at: TimestampUs) -> Step {
    let kind = match note {
        Note::Refunded => StepKind::Refunded,
        Note::Voided => StepKind::Voided,
    };
    Step { at, kind, attempt: order.attempt, detail: String::new() }
}

/// Writes that the broker has taken events which ask for a payment. Runs in the relay's transaction.
pub(crate) fn queued<'c>(connection: &'c mut Connection, taken: &'c [Taken]) -> JobFuture<'c, Result<(), Error>> {
    let queued = |event: &Taken| {
        let attempt = match event.kind.as_str() {
            event::PLACED => 1,
            event::PAYMENT_RETRIED => retried_attempt(event),
            _ => return None,
        };
        let at = TimestampUs(now_us());
        Some((event.ordering_key.clone(), Step { at, kind: StepKind::Queued, attempt, detail: String::new() }))
    };
    Box::pin(append(connection, taken.iter().filter_map(queued).collect()))
}

/// Writes steps, behind those that their orders have.
pub(super) async fn append(connection: &mut Connection, steps: Vec<(String, Step)>) -> Result<(), Error> {
    for some in pieces(steps) {
        insert(connection, some).await?;
    }
    Ok(())
}

async fn insert(connection: &mut Connection, steps: Vec<(String, Step)>) -> Result<(), Error> {
    const COLUMNS: usize = 5;
    // The last number of an order is read before the first row is written, for all rows of the order.
    let mut of_order: HashMap<&str, usize> = HashMap::new();
    let rows = steps.iter().enumerate().map(|(row, (order_id, _))| {
        let nth = of_order.entry(order_id).or_default();
        *nth += 1;
        let id = row * COLUMNS + 1;
        let last = format!("(SELECT COALESCE(MAX(number), 0) FROM order_timeline WHERE order_id = ${id})");
        format!("(${id}, {last} + {nth}, {})", list(id + 1, COLUMNS - 1))
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    let sql = format!("INSERT INTO order_timeline (order_id, number, at_us, kind, attempt, detail) VALUES {rows}");
    let mut insert = query(sql, steps.len());
    for (order_id, step) in steps {
        let kind = codec::encode_step_kind(step.kind)?;
        insert = insert.bind(order_id).bind(step.at.0).bind(kind).bind(i64::from(step.attempt)).bind(step.detail);
    }
    insert.execute(connection).await?;
    Ok(())
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

/// Which try a PaymentRetried asks for. The service wrote it itself, so that it always decodes.
fn retried_attempt(taken: &Taken) -> u32 {
    match wire::OrderEvent::decode(taken.payload.clone()).map(|event| event.event) {
        Ok(Some(wire::order_event::Event::PaymentRetried(retried))) => retried.attempt,
        _ => 0,
    }
}
