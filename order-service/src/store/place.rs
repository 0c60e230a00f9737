//! Keeps new orders: all that share a commit with the same few statements.

use service_kit::db::{Connection, Error, Item, JobFuture};
use service_kit::outbox::{self, Prepared};

use super::row;
use crate::app::{Fingerprint, Placed};
use crate::domain::{IdempotencyKey, Order};

/// An order to keep.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) order: Order,
    pub(super) key: IdempotencyKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) event: Prepared,
}

pub(super) fn place<'c>(
    connection: &'c mut Connection,
    items: &'c [Item<Place>],
) -> JobFuture<'c, Result<Vec<Placed>, Error>> {
    Box::pin(async move {
        let all_new = row::insert(connection, items.iter().map(|item| &item.value)).await? == items.len();
        let (mut placed, mut events) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for Item { value: place, .. } in items {
            let before = if all_new { None } else { before(connection, place).await? };
            if before.is_none() {
                events.push(place.event.clone());
            }
            placed.push(before.unwrap_or_else(|| Placed::New(place.order.clone())));
        }
        outbox::enqueue_all(connection, events).await?;
        Ok(placed)
    })
}

/// What an earlier request with the same key has come to; `None` if the key is that of this one.
async fn before(connection: &mut Connection, place: &Place) -> Result<Option<Placed>, Error> {
    match row::by_key(connection, &place.key).await? {
        Some((known, _)) if known.id == place.order.id => Ok(None),
        Some((known, fingerprint)) if fingerprint == place.fingerprint => Ok(Some(Placed::Known(known))),
        Some(_) => Ok(Some(Placed::KeyReused)),
        None => Err(Error::Race(format!("order `{}`", place.order.id))),
    }
}
