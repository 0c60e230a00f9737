//! Messages come, fail and are settled.

use super::{Durable, Subscription};
use crate::error::ReplayError;
use crate::ids::{Seq, SubscriptionId, TopicId};
use crate::record::{FailReason, Filtered, SeqRange};
use crate::snapshot::Failure;

impl Durable {
    pub(super) fn publish(
        &mut self,
        id: TopicId,
        first: Seq,
        count: u32,
        bytes: u64,
        filtered: &[Filtered],
    ) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted {
            return Err(ReplayError::TopicUnknown(id));
        }
        if first != topic.last.next() || count == 0 {
            return Err(ReplayError::Gap { topic: id, last: topic.last, found: first });
        }
        let last = Seq(topic.last.0 + u64::from(count));
        topic.last = last;
        topic.bytes += bytes;
        for Filtered { subscription, ranges, bytes } in filtered {
            let (state, _) = self.attached(*subscription)?;
            let Some(known) = state.filtered.as_mut().filter(|_| state.topic == id) else {
                return Err(ReplayError::Misfit(state.config.name.to_string()));
            };
            for range in ranges {
                let valid = first <= range.first && range.first <= range.last && range.last <= last;
                if !valid || !state.acked.insert(*range) {
                    return Err(ReplayError::NotUnacked { subscription: *subscription, seq: range.first });
                }
                known.cover(*range);
                state.gone.as_mut().map(|gone| gone.cover(*range));
                state.totals.filtered += range.count();
            }
            state.settled_bytes += bytes;
        }
        if !filtered.is_empty() {
            self.forget_filtered(id, filtered);
        }
        Ok(())
    }

    /// What is not needed by anybody any more need not be told apart.
    fn forget_filtered(&mut self, id: TopicId, filtered: &[Filtered]) {
        let floor = self.floor(id).unwrap_or_default();
        for Filtered { subscription, .. } in filtered {
            let known = self.subscriptions.get_mut(subscription).and_then(|state| state.filtered.as_mut());
            known.map(|known| known.raise(floor));
        }
    }

    /// Settles messages and forgets their failures.
    pub(super) fn settle(&mut self, id: SubscriptionId, range: SeqRange) -> Result<&mut Subscription, ReplayError> {
        let (state, topic) = self.attached(id)?;
        let valid = range.first <= range.last && range.last <= topic.last;
        if !valid || !state.acked.insert(range) {
            return Err(ReplayError::NotUnacked { subscription: id, seq: range.first });
        }
        if !state.config.retain_acked
            && let (Some(gone), Some(kept_from)) = (&mut state.gone, topic.kept_from)
            && range.first <= kept_from
        {
            gone.cover(SeqRange { first: range.first, last: range.last.min(kept_from) });
        }
        if !state.failures.is_empty() {
            if range.first == range.last {
                state.failures.remove(&range.first);
            } else {
                state.failures.retain(|seq, _| *seq < range.first || *seq > range.last);
            }
        }
        Ok(state)
    }

    pub(super) fn fail(&mut self, id: SubscriptionId, seq: Seq, failure: Failure) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        if seq > topic.last || state.acked.contains(seq) {
            return Err(ReplayError::NotUnacked { subscription: id, seq });
        }
        let last = state.failures.insert(seq, failure).map_or(0, |before| before.attempts);
        if failure.attempts != last.saturating_add(1) {
            return Err(ReplayError::Attempts { subscription: id, seq, last, found: failure.attempts });
        }
        match failure.reason {
            FailReason::Nacked => state.totals.nacked += 1,
            FailReason::Expired => state.totals.expired += 1,
            FailReason::Lost => state.totals.lost += 1,
        }
        Ok(())
    }
}
