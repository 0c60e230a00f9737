//! The durable state and the one way to change it: [`Durable::apply`].

use std::collections::BTreeMap;

use crate::acked::AckedSet;
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::ReplayError;
use crate::ids::{Seq, SubscriptionId, TopicId};
use crate::names::{SubscriptionName, TopicName};
use crate::record::{FailReason, Record, SeqRange};
use crate::snapshot::{Failure, Snapshot, SubscriptionSnapshot, TopicSnapshot};
use crate::view::Totals;

/// What a restart brings back.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) epoch: u32,
    pub(crate) topic_id_last: u32,
    pub(crate) subscription_id_last: u32,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Topics that are not deleted.
    pub(crate) topic_names: BTreeMap<TopicName, TopicId>,
    pub(crate) subscription_names: BTreeMap<SubscriptionName, SubscriptionId>,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) config: TopicConfig,
    pub(crate) deleted: bool,
    pub(crate) last: Seq,
    /// Follows from the subscriptions; ascending.
    pub(crate) subscriptions: Vec<SubscriptionId>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicId,
    pub(crate) config: SubscriptionConfig,
    pub(crate) acked: AckedSet,
    /// Of unacked messages only.
    pub(crate) failures: BTreeMap<Seq, Failure>,
    pub(crate) totals: Totals,
}

impl Durable {
    /// Changes the state by one fact. After an error the state is no longer of use.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<(), ReplayError> {
        match record {
            Record::Started { epoch } => {
                if *epoch != self.epoch + 1 {
                    return Err(ReplayError::Epoch { last: self.epoch, found: *epoch });
                }
                self.epoch = *epoch;
                Ok(())
            }
            Record::TopicCreated { id, config } => self.create_topic(*id, config),
            Record::TopicDeleted { id } => self.delete_topic(*id),
            Record::SubscriptionCreated { id, topic, config, start } => {
                self.create_subscription(*id, *topic, config, *start)
            }
            Record::SubscriptionDeleted { id } => self.delete_subscription(*id),
            Record::Published { topic, first, count, time: _ } => self.publish(*topic, *first, *count),
            Record::Acked { subscription, ranges } => {
                for range in ranges {
                    let state = self.settle(*subscription, *range)?;
                    state.totals.acked += range.count();
                }
                Ok(())
            }
            Record::Failed { subscription, seq, attempts, not_before, reason } => {
                let failure = Failure { attempts: *attempts, not_before: *not_before, reason: *reason };
                self.fail(*subscription, *seq, failure)
            }
            Record::Forwarded { subscription, seq, to, as_seq, time: _ } => {
                self.publish(*to, *as_seq, 1)?;
                let state = self.settle(*subscription, SeqRange { first: *seq, last: *seq })?;
                state.totals.dead_lettered += 1;
                Ok(())
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let topic = |(id, topic): (&TopicId, &Topic)| TopicSnapshot {
            id: *id,
            config: topic.config.clone(),
            deleted: topic.deleted,
            last: topic.last,
        };
        let subscription = |(id, state): (&SubscriptionId, &Subscription)| SubscriptionSnapshot {
            id: *id,
            topic: state.topic,
            config: state.config.clone(),
            acked: state.acked.clone(),
            failures: state.failures.iter().map(|(seq, failure)| (*seq, *failure)).collect(),
            totals: state.totals,
        };
        Snapshot {
            epoch: self.epoch,
            topic_id_last: self.topic_id_last,
            subscription_id_last: self.subscription_id_last,
            topics: self.topics.iter().map(topic).collect(),
            subscriptions: self.subscriptions.iter().map(subscription).collect(),
        }
    }

    pub(crate) fn from_snapshot(snapshot: Snapshot) -> Result<Self, ReplayError> {
        let mut durable = Durable { epoch: snapshot.epoch, ..Durable::default() };
        for topic in snapshot.topics {
            durable.create_topic(topic.id, &topic.config)?;
            let state = durable.topic_mut(topic.id)?;
            state.last = topic.last;
            if topic.deleted {
                state.deleted = true;
                durable.topic_names.remove(&topic.config.name);
            }
        }
        for subscription in snapshot.subscriptions {
            let SubscriptionSnapshot { id, topic, config, acked, failures, totals } = subscription;
            durable.create_subscription(id, topic, &config, acked.floor())?;
            let state = durable.subscription_mut(id)?;
            state.acked = acked;
            state.failures = failures.into_iter().collect();
            state.totals = totals;
        }
        durable.topic_id_last = durable.topic_id_last.max(snapshot.topic_id_last);
        durable.subscription_id_last = durable.subscription_id_last.max(snapshot.subscription_id_last);
        Ok(durable)
    }

    fn create_topic(&mut self, id: TopicId, config: &TopicConfig) -> Result<(), ReplayError> {
        if id.0 <= self.topic_id_last || self.topic_names.contains_key(&config.name) {
            return Err(ReplayError::TopicTwice(id));
        }
        self.topic_id_last = id.0;
        self.topic_names.insert(config.name.clone(), id);
        let topic = Topic { config: config.clone(), deleted: false, last: Seq::ZERO, subscriptions: Vec::new() };
        self.topics.insert(id, topic);
        Ok(())
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted {
            return Err(ReplayError::TopicUnknown(id));
        }
        topic.deleted = true;
        let name = topic.config.name.clone();
        self.topic_names.remove(&name);
        self.drop_topic_without_use(id);
        Ok(())
    }

    /// A deleted topic is kept for as long as a subscription may hold messages of it.
    fn drop_topic_without_use(&mut self, id: TopicId) {
        if self.topics.get(&id).is_some_and(|topic| topic.deleted && topic.subscriptions.is_empty()) {
            self.topics.remove(&id);
        }
    }

    fn create_subscription(
        &mut self,
        id: SubscriptionId,
        topic: TopicId,
        config: &SubscriptionConfig,
        start: Seq,
    ) -> Result<(), ReplayError> {
        if id.0 <= self.subscription_id_last || self.subscription_names.contains_key(&config.name) {
            return Err(ReplayError::SubscriptionTwice(id));
        }
        let topic_state = self.topic_mut(topic)?;
        if start > topic_state.last {
            return Err(ReplayError::Gap { topic, last: topic_state.last, found: start });
        }
        topic_state.subscriptions.push(id);
        self.subscription_id_last = id.0;
        self.subscription_names.insert(config.name.clone(), id);
        let state = Subscription {
            topic,
            config: config.clone(),
            acked: AckedSet::new(start),
            failures: BTreeMap::new(),
            totals: Totals::default(),
        };
        self.subscriptions.insert(id, state);
        Ok(())
    }

    fn delete_subscription(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let state = self.subscriptions.remove(&id).ok_or(ReplayError::SubscriptionUnknown(id))?;
        self.subscription_names.remove(&state.config.name);
        self.topic_mut(state.topic)?.subscriptions.retain(|other| *other != id);
        self.drop_topic_without_use(state.topic);
        Ok(())
    }

    fn publish(&mut self, id: TopicId, first: Seq, count: u32) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted {
            return Err(ReplayError::TopicUnknown(id));
        }
        if first != topic.last.next() || count == 0 {
            return Err(ReplayError::Gap { topic: id, last: topic.last, found: first });
        }
        topic.last = Seq(topic.last.0 + u64::from(count));
        Ok(())
    }

    /// Settles messages and forgets their failures.
    fn settle(&mut self, id: SubscriptionId, range: SeqRange) -> Result<&mut Subscription, ReplayError> {
        let state = self.subscriptions.get_mut(&id).ok_or(ReplayError::SubscriptionUnknown(id))?;
        let topic = self.topics.get(&state.topic).ok_or(ReplayError::TopicUnknown(state.topic))?;
        let valid = range.first <= range.last && range.last <= topic.last;
        if !valid || !state.acked.insert(range) {
            return Err(ReplayError::NotUnacked { subscription: id, seq: range.first });
        }
        if !state.failures.is_empty() {
            if range.first == range.last {
                state.failures.remove(&range.first);
            } else {
                let settled: Vec<Seq> = state.failures.range(range.first..=range.last).map(|(seq, _)| *seq).collect();
                for seq in settled {
                    state.failures.remove(&seq);
                }
            }
        }
        Ok(state)
    }

    fn fail(&mut self, id: SubscriptionId, seq: Seq, failure: Failure) -> Result<(), ReplayError> {
        let state = self.subscriptions.get_mut(&id).ok_or(ReplayError::SubscriptionUnknown(id))?;
        let topic = self.topics.get(&state.topic).ok_or(ReplayError::TopicUnknown(state.topic))?;
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
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ReplayError> {
        self.topics.get_mut(&id).ok_or(ReplayError::TopicUnknown(id))
    }

    fn subscription_mut(&mut self, id: SubscriptionId) -> Result<&mut Subscription, ReplayError> {
        self.subscriptions.get_mut(&id).ok_or(ReplayError::SubscriptionUnknown(id))
    }
}
