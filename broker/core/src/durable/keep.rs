//! What is kept, and for whom: unacked messages for their subscription, acked ones for a seek, all for a bookmark.
//!
//! **Invariant:** a message that nobody keeps is never wanted again, since the caller may have deleted it. So whatever
//! makes acked messages unacked again must find them outside of what is `gone`, or in a bookmark.

use super::redrive::pass_over;
use super::{Durable, Subscription, Topic};
use crate::acked::AckedSet;
use crate::error::ReplayError;
use crate::ids::{LeaseId, Seq, SubscriptionId, TopicId};
use crate::record::SeekTo;

impl Durable {
    /// The newest message of a topic up to which nobody needs any.
    pub(crate) fn floor(&self, id: TopicId) -> Option<Seq> {
        let topic = self.topics.get(&id)?;
        let kept_by = topic.subscriptions.iter().filter_map(|id| Some(self.subscriptions[id].gone()?.floor()));
        let bookmarked = topic.bookmarks.values().map(|bookmark| bookmark.acked.floor());
        Some(kept_by.chain(bookmarked).chain(topic.kept_from).min().unwrap_or(topic.last))
    }

    /// Whether somebody needs a message.
    pub(crate) fn is_live(&self, id: TopicId, seq: Seq) -> bool {
        let Some(topic) = self.topics.get(&id).filter(|topic| seq <= topic.last) else { return false };
        topic.kept_from.is_some_and(|kept_from| seq > kept_from)
            || topic
                .subscriptions
                .iter()
                .any(|id| self.subscriptions[id].gone().is_some_and(|gone| !gone.contains(seq)))
            || topic.bookmarks.values().any(|bookmark| !bookmark.acked.contains(seq))
    }

    /// Who keeps messages of a topic: what each of them has let go of, and the first message that the topic keeps itself.
    fn keepers<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = &'a AckedSet> {
        let kept_by = topic.subscriptions.iter().filter_map(|id| self.subscriptions[id].gone());
        kept_by.chain(topic.bookmarks.values().map(|bookmark| &bookmark.acked))
    }

    /// The first message from `from` on that somebody needs. It costs a look at each who may, however far it is.
    pub(crate) fn next_live(&self, id: TopicId, from: Seq) -> Option<Seq> {
        let topic = self.topics.get(&id)?;
        let own = topic.kept_from.map(|kept_from| from.max(kept_from.next()));
        let first = self.keepers(topic).map(|gone| gone.next_unsettled(from)).chain(own).min()?;
        Some(first).filter(|seq| *seq <= topic.last)
    }

    /// Whether more than `max` of the messages `first..=last` are needed by one of those who keep them.
    pub(crate) fn has_more_live(&self, id: TopicId, first: Seq, last: Seq, max: u64) -> bool {
        let Some(topic) = self.topics.get(&id) else { return false };
        let last = last.min(topic.last);
        let own = topic.kept_from.map_or(0, |kept_from| (last.0 + 1).saturating_sub(first.0.max(kept_from.0 + 1)));
        own > max || self.keepers(topic).any(|gone| gone.unsettled_within(first, last) > max)
    }

    /// How many may need a message of a topic.
    pub(crate) fn keeper_count(&self, id: TopicId) -> usize {
        self.topics.get(&id).map_or(0, |topic| 1 + topic.subscriptions.len() + topic.bookmarks.len())
    }

    /// Starts or stops keeping all messages of a topic; what is there already counts only as far as somebody has it.
    pub(super) fn keep_in_topic(&mut self, id: TopicId, keep: bool) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        match (topic.kept_from, keep) {
            (None, true) => topic.kept_from = Some(topic.last),
            (Some(_), false) => topic.kept_from = None,
            _ => return,
        }
        for id in topic.subscriptions.clone() {
            // A detached one has nothing to keep.
            self.keep_in_subscription(id).ok();
        }
    }

    /// Adapts to a change of what is kept of acked messages.
    pub(super) fn keep_in_subscription(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        if !state.config.retain_acked && topic.kept_from.is_none() {
            state.gone = None;
            return Ok(());
        }
        state.gone.get_or_insert_with(|| state.acked.clone());
        state.let_go(topic.kept_from);
        Ok(())
    }

    pub(super) fn seek(&mut self, id: SubscriptionId, to: &SeekTo, leases: LeaseId) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        match to {
            SeekTo::After(seq) => {
                if let Some(gone) = &state.gone {
                    state.acked = gone.clone();
                }
                state.acked.raise((*seq).min(topic.last));
            }
            SeekTo::Snapshot(name) => {
                let bookmark = topic.bookmarks.get(name).ok_or_else(|| ReplayError::SnapshotUnknown(name.clone()))?;
                state.acked = bookmark.acked.clone();
                if let Some(filtered) = &state.filtered {
                    state.acked.absorb(filtered, topic.last);
                }
                pass_over(&mut state.acked, id, &topic.aimed, topic.last);
                if let Some(gone) = &mut state.gone {
                    gone.restrict(&state.acked);
                }
            }
        }
        state.let_go(topic.kept_from);
        state.failures.clear();
        state.leases_over = leases;
        self.reckon_bytes(id)
    }

    pub(super) fn cut_subscription(&mut self, id: SubscriptionId, before: Seq) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        if before > topic.last.next() || before == Seq::ZERO {
            return Err(ReplayError::NotUnacked { subscription: id, seq: before });
        }
        let to = Seq(before.0 - 1);
        let given_up = state.acked.raise(to);
        state.totals.too_old += given_up;
        state.failures = state.failures.split_off(&before);
        if let Some(gone) = &mut state.gone {
            gone.raise(topic.kept_from.map_or(to, |kept_from| kept_from.min(to)));
        }
        if given_up > 0 { self.settle_bytes(id, given_up, None) } else { Ok(()) }
    }

    pub(super) fn cut_topic(&mut self, id: TopicId, before: Seq) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        let to = Seq(before.0.saturating_sub(1));
        let Some(kept_from) = topic.kept_from.filter(|_| to <= topic.last) else {
            return Err(ReplayError::TopicUnknown(id));
        };
        topic.kept_from = Some(kept_from.max(to));
        for id in topic.subscriptions.clone() {
            if let Ok((state, topic)) = self.attached(id) {
                state.let_go(topic.kept_from);
            }
        }
        Ok(())
    }
}

impl Subscription {
    /// What it does not keep; none of a detached one, which keeps nothing.
    pub(crate) fn gone(&self) -> Option<&AckedSet> {
        (!self.detached).then(|| self.gone.as_ref().unwrap_or(&self.acked))
    }

    /// The oldest message that it keeps; it need not be published yet.
    pub(crate) fn oldest_kept(&self) -> Seq {
        let kept = self.gone.as_ref().filter(|_| self.config.retain_acked).unwrap_or(&self.acked);
        kept.next_unsettled(Seq::ZERO)
    }

    /// Without retention of its own, what is acked goes when its topic no longer keeps it.
    fn let_go(&mut self, kept_from: Option<Seq>) {
        if !self.config.retain_acked
            && let (Some(gone), Some(kept_from)) = (&mut self.gone, kept_from)
        {
            gone.absorb(&self.acked, kept_from);
        }
    }
}
