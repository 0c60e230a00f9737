//! Changes orders: all changes that share a commit with the same few statements.

use std::collections::HashSet;
use std::fmt;

use service_kit::clock::now_us;
use service_kit::db::{Connection, Error, Item, JobFuture};
use service_kit::{inbox, outbox};
use tracing::Span;

use super::{SERVICE, event, row, timeline};
use crate::app::{Changed, Happening, Step};
use crate::domain::{CancelReason, Effect, Order, OrderEvent, OrderId, TimestampUs};

/// A change of an order.
pub(super) struct Change {
    pub(super) message_id: Option<String>,
    pub(super) id: OrderId,
    pub(super) decide: Box<dyn Fn(&mut Order) -> Happening + Send + Sync>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("message_id", &self.message_id).field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn change<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Change>],
) -> JobFuture<'c, Result<Vec<Changed>, Error>> {
    Box::pin(async move {
        let (mut changed, mut rest) = (Vec::with_capacity(items.len()), items);
        while !rest.is_empty() {
            let (first, later) = rest.split_at(different(rest));
            changed.append(&mut change_each(connection, first).await?);
            rest = later;
        }
        Ok(changed)
    })
}

/// How many changes there are until the first of an order that is changed before it.
fn different(items: &[Item<Change>]) -> usize {
    let mut seen = HashSet::new();
    items.iter().take_while(|item| seen.insert(item.value.id)).count()
}

/// What is to become of a change, while it is found out.
enum Fate {
    Ended(Box<Changed>),
    Decided { before: Box<Order>, after: Box<Order>, effect: Effect },
}

/// Changes orders that are different ones.
async fn change_each(connection: &mut Connection, items: &[Item<Change>]) -> Result<Vec<Changed>, Error> {
    let known = row::by_ids(connection, items.iter().map(|item| item.value.id)).await?;
    let mut fates = Vec::with_capacity(items.len());
    for Item { value: change, .. } in items {
        let Some(before) = known.get(&change.id).cloned().map(Box::new) else {
            fates.push(Fate::Ended(Box::new(Changed::Unknown)));
            continue;
        };
        let mut after = before.clone();
        fates.push(match (change.decide)(&mut after) {
            Ok(effect) => Fate::Decided { before, after, effect },
            // Not marked as handled: it is set aside first, and a crash before that must not lose it.
            Err(refusal) => Fate::Ended(Box::new(Changed::Refused(refusal))),
        });
    }
    forget_handled(connection, items, &mut fates).await?;
    let (mut steps, mut told) = (Vec::new(), Vec::new());
    for (fate, item) in fates.iter_mut().zip(items) {
        if let Fate::Decided { before, after, effect } = fate {
            match *effect {
                Effect::Nothing => {}
                Effect::Noted(note) => {
                    steps.push((before.id.to_string(), timeline::noted(before, note, TimestampUs(now_us()))));
                }
                Effect::Told(event) => {
                    told.push(Told { order: after, revision_before: before.revision, event, span: &item.span });
                }
            }
        }
    }
    keep(connection, told, steps).await?;
    let changed = |fate| match fate {
        Fate::Ended(changed) => *changed,
        Fate::Decided { after, effect: Effect::Told(_), .. } => Changed::To(*after),
        Fate::Decided { before, effect: Effect::Nothing | Effect::Noted(_), .. } => Changed::Nothing(*before),
    };
    Ok(fates.into_iter().map(changed).collect())
}

/// Marks the messages that were decided about; one that was handled before changes nothing.
async fn forget_handled(connection: &mut Connection, items: &[Item<Change>], fates: &mut [Fate]) -> Result<(), Error> {
    let decided = fates.iter_mut().zip(items).filter(|(fate, _)| matches!(fate, Fate::Decided { .. }));
    let (decided, message_ids): (Vec<_>, Vec<_>) =
        decided.filter_map(|(fate, item)| Some((fate, item.value.message_id.as_deref()?))).unzip();
    let first_times = inbox::first_times(connection, SERVICE, &message_ids).await?;
    for (fate, first_time) in decided.into_iter().zip(first_times) {
        if let (Fate::Decided { effect, .. }, false) = (fate, first_time) {
            *effect = Effect::Nothing;
        }
    }
    Ok(())
}

/// An order that has changed, and how that is told.
struct Told<'a> {
    order: &'a mut Order,
    revision_before: i64,
    event: OrderEvent,
    span: &'a Span,
}

/// Writes what changes are made of: the orders, their steps, their events, and what belongs to their new status.
async fn keep(
    connection: &mut Connection,
    mut told: Vec<Told<'_>>,
    mut steps: Vec<(String, Step)>,
) -> Result<(), Error> {
    let paid: Vec<_> = told.iter_mut().filter(|told| told.event == OrderEvent::Paid).collect();
    let numbers = row::next_invoices(connection, paid.len()).await?;
    for (told, number) in paid.into_iter().zip(numbers) {
        told.order.invoice_number = Some(number);
    }
    row::update(connection, told.iter().map(|told| (&*told.order, told.revision_before))).await?;
    let mut events = Vec::with_capacity(told.len());
    for Told { order, event, span, .. } in &told {
        if order.cancel_reason() == Some(CancelReason::PaymentUnavailable) {
            row::free_key(connection, order.id).await?;
        }
        steps.extend(timeline::changed(order, *event).map(|step| (order.id.to_string(), step)));
        // What is told belongs to the trace of who asked.
        let prepare = |event| span.in_scope(|| outbox::prepare(SERVICE, event));
        events.push(prepare(event::encode(order, *event))?);
        if let Some(number) = order.invoice_number.filter(|_| *event == OrderEvent::Paid) {
            events.push(prepare(event::invoice_job(order, number))?);
        }
    }
    timeline::append(connection, steps).await?;
    outbox::enqueue_all(connection, events).await
}
