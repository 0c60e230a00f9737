//! Consumers come and go, and what the caller has read for them comes in.

use super::Broker;
use crate::config::AckDeadline;
use crate::error::Error;
use crate::ids::{ConsumerId, Meta, Seq, SubscriptionId, Time};
use crate::names::SubscriptionName;
use crate::output::{Attach, Detach, Output};
use crate::record::FailReason;

impl Broker {
    /// Attaches a consumer to a subscription. Deliveries follow as effects, possibly in `out` already.
    pub fn handle_attach(
        &mut self,
        consumer: ConsumerId,
        subscription: &SubscriptionName,
        attach: Attach,
        now: Time,
        out: &mut Output,
    ) -> Result<SubscriptionId, Error> {
        let id = self.attached_id(subscription)?;
        if self.consumers.contains_key(&consumer) {
            return Err(Error::ConsumerAttached(consumer));
        }
        let max = self.limits.consumers_max;
        let Some((queue, mut env)) = self.queue(id, now, out) else {
            return Err(Error::SubscriptionNotFound(subscription.clone()));
        };
        if queue.consumers().len() >= max {
            return Err(Error::ResourceExhausted { what: "consumers of one subscription", max });
        }
        queue.attach(consumer, attach, &env);
        env.consumers.insert(consumer, id);
        queue.dispatch(&mut env);
        self.touch_by_consumer(id, now, out);
        Ok(id)
    }

    /// Detaches a consumer. One that is not attached (any more) is ignored.
    pub fn handle_detach(&mut self, consumer: ConsumerId, detach: Detach, now: Time, out: &mut Output) {
        let Some(id) = self.consumers.remove(&consumer) else { return };
        if let Some((queue, mut env)) = self.queue(id, now, out) {
            let suspect = queue.detach(consumer, detach == Detach::ConnectionLost, &mut env);
            if let Some(seq) = suspect {
                self.fail(id, seq, FailReason::Lost, now, out);
            }
            self.dispatch(id, now, out);
        }
    }

    /// Detaches a consumer as [`Broker::handle_detach`] does, of whose leases only those up to the number `seen` have left
    /// the broker. What is on the others comes back at once, counts no attempt, and no loss either.
    pub fn handle_detach_unseen(
        &mut self,
        consumer: ConsumerId,
        detach: Detach,
        seen: u64,
        now: Time,
        out: &mut Output,
    ) {
        let id = self.consumers.get(&consumer).copied();
        if let Some(queue) = id.and_then(|id| self.queues.get_mut(&id)) {
            // From the newest to the oldest, so that none takes another one of them back along with it.
            for seq in queue.leased_after(consumer, seen) {
                queue.give_back(seq, &mut self.timers);
            }
        }
        self.handle_detach(consumer, detach, now, out);
    }

    /// Changes how long the later leases of a consumer last. One that is not attached (any more) is ignored.
    pub fn handle_consumer_deadline(&mut self, consumer: ConsumerId, ack_deadline: AckDeadline) {
        if let Some(queue) = self.consumers.get(&consumer).and_then(|id| self.queues.get_mut(id)) {
            queue.set_ack_deadline(consumer, ack_deadline);
        }
    }

    /// Answers an [`crate::Effect::Load`]: `metas` is what the journal has of the topic within `from..next`, ascending,
    /// and `next`, above `from`, is where a next load would go on. An answer that is no longer waited for is ignored.
    pub fn handle_loaded(
        &mut self,
        subscription: SubscriptionId,
        from: Seq,
        metas: &[(Seq, Meta)],
        next: Seq,
        now: Time,
        out: &mut Output,
    ) {
        if let Some((queue, mut env)) = self.queue(subscription, now, out)
            && queue.loaded(from, metas, next, &env)
        {
            queue.dispatch(&mut env);
        }
    }
}
