//! What is due when: the ends of leases and of delays, over all subscriptions. `Seq::ZERO` stands for a subscription that
//! wants to be looked at.

use std::collections::BTreeSet;

use crate::ids::{Seq, SubscriptionId, Time};

/// Each held message has at most one entry, removed as soon as it no longer counts, so no entry is ever out of date.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Time, SubscriptionId, Seq)>,
}

impl Timers {
    pub(crate) fn insert(&mut self, at: Time, subscription: SubscriptionId, seq: Seq) {
        self.due.insert((at, subscription, seq));
    }

    pub(crate) fn remove(&mut self, at: Time, subscription: SubscriptionId, seq: Seq) {
        self.due.remove(&(at, subscription, seq));
    }

    pub(crate) fn first(&self) -> Option<Time> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Takes the first entry that is due at `now`. Entries of one moment come in the order of their messages.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(SubscriptionId, Seq)> {
        if self.first()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, subscription, seq)| (subscription, seq))
    }
}
