use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::CustomerId;

/// Watches that may be open at once.
pub(crate) const WATCHES_MAX: usize = 10_000;

/// One bell for each customer that somebody watches. A bell says that there is something new, not what.
#[derive(Debug, Default)]
pub(super) struct Bells {
    hung: Mutex<Hung>,
}

#[derive(Debug, Default)]
struct Hung {
    bells: HashMap<CustomerId, watch::Sender<()>>,
    listeners: usize,
}

/// One listener's ear; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Bell {
    bells: Arc<Bells>,
    customer_id: CustomerId,
    rings: watch::Receiver<()>,
}

impl Bells {
    /// Hears the customer's bell from now on. `None` when [`WATCHES_MAX`] listen.
    pub(super) fn hear(self: &Arc<Self>, customer_id: &CustomerId) -> Option<Bell> {
        let mut hung = self.lock();
        if hung.listeners >= WATCHES_MAX {
            return None;
        }
        hung.listeners += 1;
        let rings = hung.bells.entry(customer_id.clone()).or_insert_with(|| watch::channel(()).0).subscribe();
        Some(Bell { bells: Arc::clone(self), customer_id: customer_id.clone(), rings })
    }

    /// Wakes all who listen to the customer's bell.
    pub(super) fn ring(&self, customer_id: &CustomerId) {
        if let Some(bell) = self.lock().bells.get(customer_id) {
            bell.send_replace(());
        }
    }

    /// Whether nobody listens and nothing is left of those who did.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let hung = self.lock();
        hung.bells.is_empty() && hung.listeners == 0
    }

    fn lock(&self) -> MutexGuard<'_, Hung> {
        // Nothing in the critical sections panics halfway through a change.
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    /// Forgets the rings so far.
    pub(super) fn silence(&mut self) {
        self.rings.mark_unchanged();
    }

    /// Waits for a ring since the last [`Bell::silence`].
    pub(super) async fn rung(&mut self) {
        // The sender cannot be gone: it stays as long as a bell like this one exists.
        let _ = self.rings.changed().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut hung = self.bells.lock();
        hung.listeners -= 1;
        // This receiver still counts as one.
        if hung.bells.get(&self.customer_id).is_some_and(|bell| bell.receiver_count() <= 1) {
            hung.bells.remove(&self.customer_id);
        }
    }
}
