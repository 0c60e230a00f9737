//! How large backlogs are, without a look at their messages: what was published less what was settled.
//!
//! The size of what a seek brings back, or of what is given up as too old, is not known here. It is reckoned from the
//! average, until the backlog is empty and the count begins anew.

use super::{Durable, Subscription, Topic};
use crate::error::ReplayError;
use crate::ids::SubscriptionId;

impl Durable {
    /// The unacked messages of a subscription.
    pub(crate) fn backlog(&self, state: &Subscription) -> u64 {
        backlog(state, &self.topics[&state.topic])
    }

    /// Their size.
    pub(crate) fn backlog_bytes(&self, state: &Subscription) -> u64 {
        if state.detached { 0 } else { self.topics[&state.topic].bytes.saturating_sub(state.settled_bytes) }
    }

    /// Takes the size of messages off a backlog that they have left already; none if it is not known.
    pub(super) fn settle_bytes(
        &mut self,
        id: SubscriptionId,
        count: u64,
        bytes: Option<u64>,
    ) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        let bytes = bytes.unwrap_or_else(|| {
            state.bytes_exact = false;
            let before = topic.bytes.saturating_sub(state.settled_bytes);
            share(before, count, backlog(state, topic) + count)
        });
        state.settled_bytes = state.settled_bytes.saturating_add(bytes).min(topic.bytes);
        begin_anew(state, topic);
        Ok(())
    }

    /// Counts exactly again if the backlog is empty.
    pub(super) fn begin_anew(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        begin_anew(state, topic);
        Ok(())
    }

    /// Reckons the size of a backlog from the average of its topic, as what it holds was changed as a whole.
    pub(super) fn reckon_bytes(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        let bytes = share(topic.bytes, backlog(state, topic), topic.last.0);
        state.settled_bytes = topic.bytes - bytes;
        state.bytes_exact = false;
        begin_anew(state, topic);
        Ok(())
    }
}

/// The size of the last `count` messages of a topic by the average of all.
pub(crate) fn average_bytes(topic: &Topic, count: u64) -> u64 {
    share(topic.bytes, count, topic.last.0)
}

fn backlog(state: &Subscription, topic: &Topic) -> u64 {
    let last = if state.detached { state.acked.floor() } else { topic.last };
    last.0 - state.acked.floor().0 - state.acked.above_count()
}

fn begin_anew(state: &mut Subscription, topic: &Topic) {
    // Nothing stands above a floor that is up.
    if state.acked.floor() >= topic.last {
        state.settled_bytes = topic.bytes;
        state.bytes_exact = true;
    }
}

/// The part of `bytes` that `count` of `all` messages have.
fn share(bytes: u64, count: u64, all: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(count.min(all)) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(bytes)
}
