//! Keeps invoices: all that share a commit with the same few statements.

use std::collections::HashSet;

use bytes::Bytes;
use service_kit::db::{Connection, Error, Item, JobFuture};

use super::{Keep, invoice, keep};
use crate::app::InvoiceFate;
use crate::domain::Invoice;

/// An invoice to keep, with its notification.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) invoice: Invoice,
    pub(super) pdf: Bytes,
    pub(super) keep: Keep,
}

pub(super) fn keep_all<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Arrived>],
) -> JobFuture<'c, Result<Vec<InvoiceFate>, Error>> {
    Box::pin(async move {
        let (mut fates, mut rest) = (Vec::with_capacity(items.len()), items);
        while !rest.is_empty() {
            let (first, later) = rest.split_at(different(rest));
            fates.append(&mut keep_each(connection, first).await?);
            rest = later;
        }
        Ok(fates)
    })
}

/// How many invoices there are until the first whose order or number one before it has.
fn different(items: &[Item<Arrived>]) -> usize {
    let (mut orders, mut numbers) = (HashSet::new(), HashSet::new());
    let invoices = items.iter().map(|item| &item.value.invoice);
    invoices.take_while(|one| orders.insert(one.order_id.as_str()) & numbers.insert(one.number.as_str())).count()
}

/// Keeps invoices of different orders, with different numbers.
async fn keep_each(connection: &mut Connection, items: &[Item<Arrived>]) -> Result<Vec<InvoiceFate>, Error> {
    let known = invoice::known(connection, items.iter().map(|item| &item.value.invoice)).await?;
    let orders: HashSet<_> = known.values().map(String::as_str).collect();
    let fate = |Invoice { number, order_id, .. }: &Invoice| match known.get(number.as_str()) {
        Some(other) if other != order_id => Some(InvoiceFate::NumberTaken { order_id: other.clone() }),
        // An order has one invoice, even if another one arrives under another number.
        _ => orders.contains(order_id.as_str()).then_some(InvoiceFate::KnownAlready),
    };
    let mut fates: Vec<_> = items.iter().map(|item| fate(&item.value.invoice)).collect();
    let (open, arrived): (Vec<_>, Vec<_>) =
        fates.iter_mut().zip(items).filter(|(fate, _)| fate.is_none()).map(|(fate, item)| (fate, &item.value)).unzip();
    let kept = keep(connection, &arrived.iter().map(|arrived| &arrived.keep).collect::<Vec<_>>()).await?;
    let mut new = Vec::with_capacity(arrived.len());
    for ((fate, arrived), notification) in open.into_iter().zip(arrived).zip(kept) {
        if let Some(notification) = notification {
            new.push((&arrived.invoice, &*arrived.pdf, arrived.keep.now));
            *fate = Some(InvoiceFate::Kept(notification.into()));
        }
    }
    invoice::insert(connection, &new).await?;
    // Without a notification, its event was handled before.
    Ok(fates.into_iter().map(|fate| fate.unwrap_or(InvoiceFate::KnownAlready)).collect())
}
