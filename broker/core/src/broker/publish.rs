//! Messages come in: from publishers, and from subscriptions that give them up.

use super::Broker;
use crate::error::Error;
use crate::ids::{Meta, Seq, SubscriptionId, Time, TopicId};
use crate::names::TopicName;
use crate::output::{Output, Published};
use crate::record::{Filtered, Record, SeqRange};

impl Broker {
    /// Publishes messages, at least one and at most [`crate::Limits::publish_messages_max`]. `attribute` gives the value
    /// of an attribute of one of them, counted from 0; it is asked only if a subscription has a filter.
    pub fn handle_publish<'a>(
        &mut self,
        topic: &TopicName,
        messages: &[Meta],
        attribute: impl Fn(usize, &str) -> Option<&'a str>,
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
        let filtered = self.filtered(id, first, messages, attribute);
        let bytes = size(messages);
        self.record(Record::Published { topic: id, first, count, time: now, bytes, filtered }, out);
        self.fan_out(id, first, messages, now, out);
        Ok(Published { topic: id, first, count })
    }

    /// Answers an [`crate::Effect::Forward`]: the message, as it will stand in the dead-letter topic, is at hand. Gives
    /// the topic and number that it got there, for which a [`Record::Forwarded`] was put out; none when the answer is
    /// no longer waited for, or when the dead-letter topic is gone and the message is to be tried again later.
    /// `attribute` gives the value of an attribute, as the message will have it there.
    pub fn handle_forwarded<'a>(
        &mut self,
        subscription: SubscriptionId,
        seq: Seq,
        meta: Meta,
        attribute: impl Fn(&str) -> Option<&'a str>,
        now: Time,
        out: &mut Output,
    ) -> Option<(TopicId, Seq)> {
        let (queue, mut env) = self.queue(subscription, now, out)?;
        if !queue.is_forwarding(seq) {
            return None;
        }
        let policy = env.facts.config.dead_letter.as_ref();
        let Some(to) = policy.and_then(|policy| env.durable.topic_names.get(policy.topic()).copied()) else {
            // The topic was deleted, or the policy was taken back.
            queue.rest(seq, true, &mut env);
            self.dispatch(subscription, now, out);
            return None;
        };
        let source_bytes = queue.settle(seq, env.timers).map(u64::from);
        let as_seq = env.durable.topics[&to].last.next();
        let filtered = self.filtered(to, as_seq, &[meta], |_, key| attribute(key));
        let (time, bytes) = (now, u64::from(meta.bytes));
        self.record(Record::Forwarded { subscription, seq, to, as_seq, time, bytes, source_bytes, filtered }, out);
        self.fan_out(to, as_seq, &[meta], now, out);
        self.dispatch(subscription, now, out);
        Some((to, as_seq))
    }

    /// What of a publication does not match the filters of the topic's subscriptions.
    fn filtered<'a>(
        &self,
        topic: TopicId,
        first: Seq,
        messages: &[Meta],
        attribute: impl Fn(usize, &str) -> Option<&'a str>,
    ) -> Vec<Filtered> {
        let mut filtered = Vec::new();
        for id in &self.durable.topics[&topic].subscriptions {
            let state = &self.durable.subscriptions[id];
            let Some(filter) = state.config.filter.as_ref().filter(|_| !state.detached) else { continue };
            let unseen = |index: &usize| !filter.matches(|key| attribute(*index, key));
            let unseen: Vec<usize> = (0..messages.len()).filter(unseen).collect();
            if !unseen.is_empty() {
                let bytes = unseen.iter().map(|index| u64::from(messages[*index].bytes)).sum();
                let seqs: Vec<Seq> = unseen.iter().map(|index| Seq(first.0 + *index as u64)).collect();
                filtered.push(Filtered { subscription: *id, ranges: SeqRange::all(&seqs), bytes });
            }
        }
        filtered
    }

    /// Shows new messages of a topic to all its subscriptions.
    pub(super) fn fan_out(&mut self, topic: TopicId, first: Seq, metas: &[Meta], now: Time, out: &mut Output) {
        if !self.durable.topics[&topic].deleted {
            self.published.entry(topic).or_default().add(now, metas.len() as u64);
        }
        let count = self.durable.topics[&topic].subscriptions.len();
        for index in 0..count {
            let id = self.durable.topics[&topic].subscriptions[index];
            if let Some((queue, mut env)) = self.queue(id, now, out) {
                queue.offer(first, metas, &env);
                queue.dispatch(&mut env);
            }
        }
    }
}

/// The size of messages, all together.
fn size(messages: &[Meta]) -> u64 {
    messages.iter().map(|meta| u64::from(meta.bytes)).sum()
}
