//! What goes by itself: snapshots, subscriptions that nobody uses, messages that are too old.

use super::Broker;
use crate::ids::{Seq, SubscriptionId, Time};
use crate::limits::ACTIVE_RECORD_MS;
use crate::output::{Cut, Keeper, Output};
use crate::record::Record;

impl Broker {
    /// Gives up messages that are too old. Unacked ones count as settled; a seek does not bring back any of them.
    /// Cuts that change nothing are ignored, and so are those of what is gone.
    pub fn handle_retention(&mut self, cuts: &[Cut], now: Time, out: &mut Output) {
        for Cut { keeper, before } in cuts {
            let to = Seq(before.0.saturating_sub(1));
            match keeper {
                Keeper::Topic(id) => {
                    let Some(topic) = self.durable.topics.get(id) else { continue };
                    let to = to.min(topic.last);
                    if topic.kept_from.is_some_and(|kept_from| kept_from < to) {
                        self.record(Record::TopicCut { id: *id, before: to.next() }, out);
                    }
                }
                Keeper::Subscription(id) => {
                    let Some(state) = self.durable.subscriptions.get(id) else { continue };
                    let to = to.min(self.durable.topics[&state.topic].last);
                    if !state.detached && state.oldest_kept() <= to {
                        self.cut(*id, to.next(), now, out);
                    }
                }
            }
        }
    }

    fn cut(&mut self, id: SubscriptionId, before: Seq, now: Time, out: &mut Output) {
        self.record(Record::SubscriptionCut { id, before }, out);
        if let Some((queue, mut env)) = self.queue(id, now, out) {
            queue.cut(before, env.timers);
            queue.dispatch(&mut env);
        }
    }

    /// Notes that somebody uses a subscription.
    pub(super) fn touch(&mut self, id: SubscriptionId, now: Time, out: &mut Output) {
        let state = &self.durable.subscriptions[&id];
        if state.config.expiration.is_some() && now >= state.active.plus_ms(ACTIVE_RECORD_MS) {
            self.record(Record::Active { id, time: now }, out);
        }
    }

    /// Notes that a consumer is there. The one of a push is the broker's own, and says nothing of who uses the
    /// subscription; an ack does.
    pub(super) fn touch_by_consumer(&mut self, id: SubscriptionId, now: Time, out: &mut Output) {
        if self.durable.subscriptions[&id].config.push.is_none() {
            self.touch(id, now, out);
        }
    }

    /// Sees to it that a subscription is looked at when it may have expired.
    pub(super) fn watch_expiry(&mut self, id: SubscriptionId) {
        if let Some(at) = self.expires(id) {
            self.expiries.insert((at, id));
        }
    }

    /// Deletes the snapshots and the subscriptions whose time has come.
    pub(super) fn expire(&mut self, now: Time, out: &mut Output) {
        while let Some((at, name)) = self.durable.bookmark_expiries.first()
            && *at <= now
        {
            let name = name.clone();
            self.record(Record::SnapshotDeleted { name }, out);
        }
        while let Some((at, id)) = self.expiries.first().copied()
            && at <= now
        {
            self.expiries.remove(&(at, id));
            if self.queues.get(&id).is_some_and(|queue| queue.consumers().len() > 0) {
                self.touch_by_consumer(id, now, out);
            }
            match self.expires(id) {
                Some(at) if at <= now => self.drop_subscription(id, out),
                Some(at) => {
                    self.expiries.insert((at, id));
                }
                None => {}
            }
        }
    }

    /// When a subscription expires if nobody uses it from now on. It may have been used for up to
    /// [`ACTIVE_RECORD_MS`] after what is written down, and while the broker was down nobody could use it.
    fn expires(&self, id: SubscriptionId) -> Option<Time> {
        let state = self.durable.subscriptions.get(&id)?;
        let unused = state.active.plus_ms(state.config.expiration?.ms());
        Some(unused.max(self.started).plus_ms(ACTIVE_RECORD_MS))
    }
}
