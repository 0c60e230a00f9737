//! Topics and subscriptions come and go.

use super::Broker;
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::Error;
use crate::ids::{SubscriptionId, Time, TopicId};
use crate::names::{SubscriptionName, TopicName};
use crate::output::{CloseReason, Effect, Output};
use crate::queue::Queue;
use crate::record::Record;

impl Broker {
    /// Creates a topic.
    pub fn handle_create_topic(&mut self, config: TopicConfig, out: &mut Output) -> Result<TopicId, Error> {
        if self.durable.topic_names.contains_key(&config.name) {
            return Err(Error::TopicExists(config.name));
        }
        exhausted("topics", self.durable.topics.len(), self.limits.topics_max)?;
        let id = TopicId(self.durable.topic_id_last + 1);
        self.record(Record::TopicCreated { id, config }, out);
        Ok(id)
    }

    /// Changes the settings of a topic to `config`, which names it.
    pub fn handle_update_topic(&mut self, config: TopicConfig, out: &mut Output) -> Result<TopicId, Error> {
        let id = self.topic_id(&config.name)?;
        if self.durable.topics[&id].config != config {
            self.record(Record::TopicUpdated { id, config }, out);
        }
        Ok(id)
    }

    /// Deletes a topic. Its subscriptions stay, and what they hold stays deliverable.
    pub fn handle_delete_topic(&mut self, name: &TopicName, out: &mut Output) -> Result<(), Error> {
        let id = self.topic_id(name)?;
        self.record(Record::TopicDeleted { id }, out);
        self.published.remove(&id);
        Ok(())
    }

    /// Creates a subscription, which sees what is published from now on. Its topic must exist, and so must its
    /// dead-letter topic, as the public API has it.
    pub fn handle_create_subscription(
        &mut self,
        config: SubscriptionConfig,
        now: Time,
        out: &mut Output,
    ) -> Result<SubscriptionId, Error> {
        if self.durable.subscription_names.contains_key(&config.name) {
            return Err(Error::SubscriptionExists(config.name));
        }
        let topic = self.topic_id(&config.topic)?;
        if let Some(policy) = &config.dead_letter {
            self.topic_id(policy.topic())?;
        }
        exhausted("subscriptions", self.durable.subscriptions.len(), self.limits.subscriptions_max)?;
        let id = SubscriptionId(self.durable.subscription_id_last + 1);
        let start = self.durable.topics[&topic].last;
        self.record(Record::SubscriptionCreated { id, topic, config, start, time: now }, out);
        self.queues.insert(id, Queue::new(id, &self.durable.subscriptions[&id]));
        self.watch_expiry(id);
        Ok(id)
    }

    /// Changes the settings of a subscription to `config`, which names it. They hold for leases that begin and attempts
    /// that fail from now on. The topic, the filter and whether there is ordering never change.
    pub fn handle_update_subscription(
        &mut self,
        config: SubscriptionConfig,
        now: Time,
        out: &mut Output,
    ) -> Result<SubscriptionId, Error> {
        let id = self.subscription_id(&config.name)?;
        let before = &self.durable.subscriptions[&id].config;
        for (field, same) in [
            ("topic", before.topic == config.topic),
            ("filter", before.filter == config.filter),
            ("enable_message_ordering", before.ordering == config.ordering),
        ] {
            if !same {
                return Err(Error::InvalidArgument { field, why: "it cannot be changed".to_owned() });
            }
        }
        let new_policy = config
            .dead_letter
            .as_ref()
            .filter(|policy| before.dead_letter.as_ref().is_none_or(|before| before.topic() != policy.topic()));
        if let Some(policy) = new_policy {
            self.topic_id(policy.topic())?;
        }
        // Also from one endpoint to another, so that what is published from now on does not go to the old one.
        let switches = before.push != config.push;
        if *before != config {
            self.record(Record::SubscriptionUpdated { id, config }, out);
        }
        if switches {
            self.close_consumers(id, now, out);
        }
        self.touch(id, now, out);
        self.watch_expiry(id);
        Ok(id)
    }

    /// Who pulls cannot go on when messages are pushed, nor the other way round. What they hold they may still settle.
    fn close_consumers(&mut self, id: SubscriptionId, now: Time, out: &mut Output) {
        for consumer in self.queues.get(&id).map(Queue::consumers).into_iter().flatten().collect::<Vec<_>>() {
            self.consumers.remove(&consumer);
            if let Some((queue, mut env)) = self.queue(id, now, out) {
                queue.detach(consumer, false, &mut env);
            }
            out.effects.push(Effect::ConsumerClosed { consumer, reason: CloseReason::Switched });
        }
    }

    /// Cuts a subscription off its topic for good: all that it holds is dropped, and its consumers are closed.
    pub fn handle_detach_subscription(&mut self, name: &SubscriptionName, out: &mut Output) -> Result<(), Error> {
        let id = self.subscription_id(name)?;
        if self.durable.subscriptions[&id].detached {
            return Ok(());
        }
        self.record(Record::SubscriptionDetached { id }, out);
        self.close(id, CloseReason::SubscriptionDetached, out);
        self.queues.insert(id, Queue::new(id, &self.durable.subscriptions[&id]));
        Ok(())
    }

    /// Deletes a subscription with all that it holds, and closes its consumers.
    pub fn handle_delete_subscription(&mut self, name: &SubscriptionName, out: &mut Output) -> Result<(), Error> {
        let id = self.subscription_id(name)?;
        self.drop_subscription(id, out);
        Ok(())
    }

    pub(super) fn drop_subscription(&mut self, id: SubscriptionId, out: &mut Output) {
        self.record(Record::SubscriptionDeleted { id }, out);
        self.close(id, CloseReason::SubscriptionDeleted, out);
    }

    /// Ends the volatile half of a subscription.
    fn close(&mut self, id: SubscriptionId, reason: CloseReason, out: &mut Output) {
        if let Some(queue) = self.queues.remove(&id) {
            for consumer in queue.consumers() {
                self.consumers.remove(&consumer);
                out.effects.push(Effect::ConsumerClosed { consumer, reason });
            }
            queue.close(&mut self.timers);
        }
    }
}

pub(super) fn exhausted(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count >= max {
        return Err(Error::ResourceExhausted { what, max });
    }
    Ok(())
}
