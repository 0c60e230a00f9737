//! What is due when: the ends of leases and of delays, over all subscriptions. `Seq::ZERO` stands for a subscription that
//! wants to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Seq, SubscriptionId, Time};

/// Each held message has at most one entry, removed as soon as it no longer counts, so no entry is ever out of date.
///
/// What is delivered together is due together, so that the messages of one moment have a set of their own: few moments,
/// and small entries.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Time, SubscriptionId), BTreeSet<Seq>>,
}

impl Timers {
    pub(crate) fn insert(&mut self, at: Time, subscription: SubscriptionId, seq: Seq) {
        self.due.entry((at, subscription)).or_default().insert(seq);
    }

    pub(crate) fn remove(&mut self, at: Time, subscription: SubscriptionId, seq: Seq) {
        let Some(seqs) = self.due.get_mut(&(at, subscription)) else { return };
        seqs.remove(&seq);
        if seqs.is_empty() {
            self.due.remove(&(at, subscription));
        }
    }

    pub(crate) fn first(&self) -> Option<Time> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first entry that is due at `now`. Entries of one moment come in the order of their messages.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(SubscriptionId, Seq)> {
        let mut moment = self.due.first_entry().filter(|moment| moment.key().0 <= now)?;
        let (_, subscription) = *moment.key();
        let seq = moment.get_mut().pop_first();
        if moment.get().is_empty() {
            moment.remove();
        }
        seq.map(|seq| (subscription, seq))
    }
}
