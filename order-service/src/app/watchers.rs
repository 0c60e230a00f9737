use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Error, Orders, StoreError};
use crate::domain::{Order, OrderId};

/// Watches that may be open at once.
pub(crate) const WATCHES_MAX: usize = 10_000;

/// Changes of one order that wait for a slow watcher; when more come, it reads the order again instead.
const CHANGES_WAITING_MAX: usize = 8;

/// How long a watch waits to be told of a change before it looks all the same, in milliseconds: another instance on the same
/// database tells only those who watch there.
const WATCH_POLL_MS: u64 = 1_000;

/// Who wants to hear of which order. Orders that nobody watches take no room.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    orders: HashMap<OrderId, broadcast::Sender<Order>>,
    watches: usize,
}

/// One watcher's place; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Subscription {
    watchers: Arc<Watchers>,
    id: OrderId,
    changes: broadcast::Receiver<Order>,
}

/// Follows one order until it waits for nothing any more.
#[derive(Debug)]
pub(crate) struct Watch<S> {
    store: Arc<S>,
    subscription: Subscription,
    /// What the watcher gets first; taken then.
    first: Option<Order>,
    told_revision: i64,
    ended: bool,
}

impl Watchers {
    /// Hears of the order's changes from now on. `None` when [`WATCHES_MAX`] are open.
    pub(super) fn subscribe(self: &Arc<Self>, id: OrderId) -> Option<Subscription> {
        let mut watched = self.lock();
        if watched.watches >= WATCHES_MAX {
            return None;
        }
        watched.watches += 1;
        let changes = watched.orders.entry(id).or_insert_with(|| broadcast::channel(CHANGES_WAITING_MAX).0).subscribe();
        Some(Subscription { watchers: Arc::clone(self), id, changes })
    }

    /// Tells a change, once it is on disk, to all who watch the order.
    pub(super) fn tell(&self, order: &Order) {
        if let Some(sender) = self.lock().orders.get(&order.id) {
            // It fails only when the last watcher is just leaving.
            let _ = sender.send(order.clone());
        }
    }

    /// Whether nobody watches and nothing is left of those who did.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let watched = self.lock();
        watched.orders.is_empty() && watched.watches == 0
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing in the critical sections panics halfway through a change.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.watchers.lock();
        watched.watches -= 1;
        // This receiver still counts as one.
        if watched.orders.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.orders.remove(&self.id);
        }
    }
}

impl<S: Orders> Watch<S> {
    pub(super) fn new(store: Arc<S>, subscription: Subscription, first: Order) -> Self {
        Self { store, subscription, first: Some(first), told_revision: 0, ended: false }
    }

    /// The next state of the order; `None` once it waits for nothing any more.
    pub(crate) async fn next(&mut self) -> Result<Option<Order>, Error> {
        while !self.ended {
            let order = match self.first.take() {
                Some(order) => order,
                None => self.change().await?,
            };
            if order.revision > self.told_revision {
                self.told_revision = order.revision;
                self.ended = !order.status.is_waiting();
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    /// What may be a change: the order as somebody here has changed it, or as it stands now.
    async fn change(&mut self) -> Result<Order, Error> {
        let (id, patience) = (self.subscription.id, Duration::from_millis(WATCH_POLL_MS));
        loop {
            let read = match tokio::time::timeout(patience, self.subscription.changes.recv()).await {
                Ok(Ok(order)) => return Ok(order),
                // Too slow for the channel (it cannot close before its subscription ends): the store knows the rest.
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => self.store.order(id).await,
                Err(_) => match self.store.order(id).await {
                    // Nothing was missed so far as anybody knows: the next look tells.
                    Err(StoreError::Unavailable(_)) => continue,
                    read => read,
                },
            };
            return read?.ok_or(Error::NotFound(id));
        }
    }
}
