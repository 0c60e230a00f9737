//! Messages come in: from publishers, and from subscriptions that give them up.

use super::Broker;
use crate::error::Error;
use crate::ids::{Meta, Seq, SubscriptionId, Time, TopicId};
use crate::names::TopicName;
use crate::output::{Output, Published};
use crate::record::Record;

impl Broker {
    /// Publishes messages, at least one and at most [`crate::Limits::publish_messages_max`].
    pub fn handle_publish(
        &mut self,
        topic: &TopicName,
        messages: &[Meta],
        now: Time,
        out: &mut Output,
    ) -> Result<Published, Error> {
        let id = self.topic_id(topic)?;
        let max = self.limits.publish_messages_max;
        let count = match u32::try_from(messages.len()) {
            Ok(count) if count > 0 && messages.len() <= max => count,
            _ => {
                let why = format!("{} messages are not within 1 to {max}", messages.len());
                return Err(Error::InvalidArgument { field: "messages", why });
            }
        };
        let first = self.durable.topics[&id].last.next();
        self.record(Record::Published { topic: id, first, count, time: now }, out);
        self.fan_out(id, first, messages, now, out);
        Ok(Published { topic: id, first, count })
    }

    /// Answers an [`crate::Effect::Forward`]: the message, as it will stand in the dead-letter topic, is at hand. Gives
    /// the topic and number that it got there, for which a [`Record::Forwarded`] was put out; none when the answer is
    /// no longer waited for, or when the dead-letter topic is gone and the message is to be tried again later.
    pub fn handle_forwarded(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        meta: Meta,
        now: Time,
        out: &mut Output,
    ) -> Option<(TopicId, Seq)> {
        let (queue, mut env) = self.queue(subscription, now, out)?;
        if !queue.is_forwarding(seq) {
            return None;
        }
        let policy = env.facts.config.dead_letter.as_ref()?;
        let Some(to) = env.durable.topic_names.get(policy.topic()).copied() else {
            queue.rest(seq, true, &mut env);
            return None;
        };
        queue.settle(seq, env.timers);
        let as_seq = env.durable.topics[&to].last.next();
        self.record(Record::Forwarded { subscription, seq, to, as_seq, time: now }, out);
        self.fan_out(to, as_seq, &[meta], now, out);
        self.dispatch(subscription, now, out);
        Some((to, as_seq))
    }

    /// Shows new messages of a topic to all its subscriptions.
    fn fan_out(&mut self, topic: TopicId, first: Seq, metas: &[Meta], now: Time, out: &mut Output) {
        let count = self.durable.topics[&topic].subscriptions.len();
        for index in 0..count {
            let id = self.durable.topics[&topic].subscriptions[index];
            if let Some((queue, mut env)) = self.queue(id, now, out) {
                queue.offer(first, metas, env.limits);
                queue.dispatch(&mut env);
            }
        }
    }
}
