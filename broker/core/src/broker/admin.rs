//! Topics and subscriptions come and go.

use super::Broker;
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::Error;
use crate::ids::{SubscriptionId, TopicId};
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

    /// Deletes a topic. Its subscriptions stay, and what they hold stays deliverable.
    pub fn handle_delete_topic(&mut self, name: &TopicName, out: &mut Output) -> Result<(), Error> {
        let id = self.topic_id(name)?;
        self.record(Record::TopicDeleted { id }, out);
        Ok(())
    }

    /// Creates a subscription, which sees what is published from now on. Its topic must exist, and so must its
    /// dead-letter topic, as the public API has it.
    pub fn handle_create_subscription(
        &mut self,
        config: SubscriptionConfig,
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
        self.record(Record::SubscriptionCreated { id, topic, config, start }, out);
        self.queues.insert(id, Queue::new(id, &self.durable.subscriptions[&id]));
        Ok(id)
    }

    /// Deletes a subscription with all that it holds, and closes its consumers.
    pub fn handle_delete_subscription(&mut self, name: &SubscriptionName, out: &mut Output) -> Result<(), Error> {
        let id = self.subscription_id(name)?;
        self.record(Record::SubscriptionDeleted { id }, out);
        if let Some(queue) = self.queues.remove(&id) {
            for consumer in queue.consumers() {
                self.consumers.remove(&consumer);
                out.effects.push(Effect::ConsumerClosed { consumer, reason: CloseReason::SubscriptionDeleted });
            }
            queue.close(&mut self.timers);
        }
        Ok(())
    }
}

fn exhausted(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count >= max {
        return Err(Error::ResourceExhausted { what, max });
    }
    Ok(())
}
