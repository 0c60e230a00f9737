//! Does steps: all that share a commit with the same few statements.

use std::collections::HashSet;

use service_kit::db::{Connection, Error, Item, JobFuture};
use service_kit::{inbox, outbox};

use super::{SERVICE, event, row};
use crate::domain::{Change, Payment, Step, TimestampUs};

/// A step to do.
#[derive(Debug)]
pub(super) struct Apply {
    pub(super) message_id: Option<String>,
    pub(super) step: Step,
    pub(super) now: TimestampUs,
}

pub(super) fn apply<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Apply>],
) -> JobFuture<'c, Result<Vec<Option<Payment>>, Error>> {
    Box::pin(async move {
        let (mut applied, mut rest) = (Vec::with_capacity(items.len()), items);
        while !rest.is_empty() {
            let (first, later) = rest.split_at(different(rest));
            applied.append(&mut apply_each(connection, first).await?);
            rest = later;
        }
        Ok(applied)
    })
}

/// How many steps there are until the first of an order that has one before it.
fn different(items: &[Item<Apply>]) -> usize {
    let mut seen = HashSet::new();
    items.iter().take_while(|item| seen.insert(item.value.step.order_id())).count()
}

/// Does steps of different orders.
async fn apply_each(connection: &mut Connection, items: &[Item<Apply>]) -> Result<Vec<Option<Payment>>, Error> {
    let mut known = row::by_orders(connection, items.iter().map(|item| item.value.step.order_id())).await?;
    let mut changes = Vec::with_capacity(items.len());
    for Item { value: Apply { step, now, .. }, .. } in items {
        let known = known.remove(&step.order_id());
        let (known, version) = known.map_or((None, 0), |known| (Some(known.payment), known.version));
        changes.push(step.clone().apply(known, *now).map(|change| (change, version)));
    }
    forget_handled(connection, items, &mut changes).await?;
    let (mut payments, mut events) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for (change, item) in changes.iter().zip(items) {
        let Some((change, version)) = change else { continue };
        payments.push((&change.payment, *version));
        if let Some(told) = change.told {
            // What is told belongs to the trace of who asked.
            let event = event::encode(&change.payment, told);
            events.push(item.span.in_scope(|| outbox::prepare(SERVICE, event))?);
        }
    }
    row::put(connection, &payments).await?;
    outbox::enqueue_all(connection, events).await?;
    Ok(changes.into_iter().map(|change| Some(change?.0.payment)).collect())
}

/// Marks the messages that change something. One that did so before changes nothing again, whatever the payment looks
/// like.
async fn forget_handled(
    connection: &mut Connection,
    items: &[Item<Apply>],
    changes: &mut [Option<(Change, i64)>],
) -> Result<(), Error> {
    let changing = changes.iter_mut().zip(items).filter(|(change, _)| change.is_some());
    let (changing, message_ids): (Vec<_>, Vec<_>) =
        changing.filter_map(|(change, item)| Some((change, item.value.message_id.as_deref()?))).unzip();
    let first_times = inbox::first_times(connection, SERVICE, &message_ids).await?;
    for (change, first_time) in changing.into_iter().zip(first_times) {
        if !first_time {
            *change = None;
        }
    }
    Ok(())
}
