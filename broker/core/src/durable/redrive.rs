//! Messages that are published to one subscription of a topic alone: dead letters that go back.
//!
//! **Invariant:** no other subscription of the topic ever sees such a message, whatever it seeks to, and neither does one
//! that is created later.

use super::Durable;
use crate::acked::AckedSet;
use crate::error::ReplayError;
use crate::ids::{Seq, SubscriptionId, TopicId};

impl Durable {
    /// Publishes one message to one subscription alone. Its topic may be deleted by name.
    pub(super) fn publish_to(
        &mut self,
        target: SubscriptionId,
        to: TopicId,
        as_seq: Seq,
        bytes: u64,
    ) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(target)?;
        if state.topic != to {
            return Err(ReplayError::Misfit(state.config.name.to_string()));
        }
        if as_seq != topic.last.next() {
            return Err(ReplayError::Gap { topic: to, last: topic.last, found: as_seq });
        }
        topic.last = as_seq;
        topic.bytes += bytes;
        topic.aimed.entry(target).or_insert_with(|| AckedSet::new(Seq::ZERO)).cover(as_seq.into());
        for other in topic.subscriptions.clone() {
            if other != target
                && let Ok((state, _)) = self.attached(other)
            {
                state.acked.cover(as_seq.into());
                state.gone.as_mut().map(|gone| gone.cover(as_seq.into()));
                state.filtered.as_mut().map(|filtered| filtered.cover(as_seq.into()));
                state.settled_bytes += bytes;
            }
        }
        // What is not needed by anybody any more need not be told apart. What has closed up to the floor stays above it.
        let floor = self.floor(to).unwrap_or_default();
        let topic = self.topic_mut(to)?;
        topic.aimed.values_mut().for_each(|aimed| {
            aimed.raise(floor);
        });
        topic.aimed.retain(|_, aimed| aimed.floor() > floor || aimed.above_count() > 0);
        Ok(())
    }
}

/// Settles what was aimed at other subscriptions than this one.
pub(super) fn pass_over(
    set: &mut AckedSet,
    id: SubscriptionId,
    aimed: &std::collections::BTreeMap<SubscriptionId, AckedSet>,
    to: Seq,
) {
    for (_, others) in aimed.iter().filter(|(target, _)| **target != id) {
        set.absorb(others, to);
    }
}
