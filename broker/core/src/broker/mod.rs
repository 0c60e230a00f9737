//! The machine: its state, and what can be asked of it. Its inputs stand in the modules beside this one.

mod admin;
mod consume;
mod publish;
mod settle;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::durable::{Durable, Subscription, Topic};
use crate::error::Error;
use crate::ids::{ConsumerId, Seq, SubscriptionId, Time, TopicId};
use crate::limits::Limits;
use crate::names::{ProjectName, SubscriptionName, TopicName};
use crate::output::Output;
use crate::queue::{Env, Queue};
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::timers::Timers;
use crate::view::{SubscriptionStats, SubscriptionView, TopicView};

/// The running state machine. Made by [`crate::Recovery::begin`].
#[derive(Debug)]
pub struct Broker {
    durable: Durable,
    limits: Limits,
    rng: fastrand::Rng,
    /// One for each subscription.
    queues: BTreeMap<SubscriptionId, Queue>,
    /// Where each attached consumer is attached.
    consumers: BTreeMap<ConsumerId, SubscriptionId>,
    timers: Timers,
    /// The number of the last lease of this epoch.
    lease_last: u64,
    /// Reused from call to call.
    scratch: Vec<Seq>,
}

impl Broker {
    pub(crate) fn begin(durable: Durable, limits: Limits, seed: u64, out: &mut Output) -> Self {
        let queues = durable.subscriptions.iter().map(|(id, facts)| (*id, Queue::new(*id, facts))).collect();
        let mut broker = Broker {
            durable,
            limits,
            rng: fastrand::Rng::with_seed(seed),
            queues,
            consumers: BTreeMap::new(),
            timers: Timers::default(),
            lease_last: 0,
            scratch: Vec::new(),
        };
        broker.record(Record::Started { epoch: broker.durable.epoch + 1 }, out);
        broker
    }

    /// All durable state, as it stands after the last record that was given out.
    pub fn snapshot(&self) -> Snapshot {
        self.durable.snapshot()
    }

    /// When [`Broker::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.first()
    }

    /// A topic by its name.
    pub fn topic(&self, name: &TopicName) -> Result<TopicView, Error> {
        let id = self.topic_id(name)?;
        Ok(topic_view(id, &self.durable.topics[&id]))
    }

    /// A topic by its id, also one that is deleted and still has subscriptions.
    pub fn topic_by_id(&self, id: TopicId) -> Option<TopicView> {
        self.durable.topics.get(&id).map(|topic| topic_view(id, topic))
    }

    /// The topics of a project by name, from the first one after `after`, at most `limit`.
    pub fn topics(&self, project: &ProjectName, after: Option<&TopicName>, limit: usize) -> Vec<TopicView> {
        let view = |id: &TopicId| topic_view(*id, &self.durable.topics[id]);
        let prefix = project.prefix(TopicName::COLLECTION);
        page(&self.durable.topic_names, &prefix, after, limit).map(view).collect()
    }

    /// The ids of all topics whose messages may still be needed, deleted ones that have subscriptions included.
    pub fn topic_ids(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.durable.topics.keys().copied()
    }

    /// The names of a topic's subscriptions, from the first one after `after`, at most `limit`.
    pub fn topic_subscriptions(
        &self,
        topic: &TopicName,
        after: Option<&SubscriptionName>,
        limit: usize,
    ) -> Result<Vec<SubscriptionName>, Error> {
        let id = self.topic_id(topic)?;
        let name = |id: &SubscriptionId| self.durable.subscriptions[id].config.name.clone();
        let mut names: Vec<SubscriptionName> = self.durable.topics[&id].subscriptions.iter().map(name).collect();
        names.retain(|name| after.is_none_or(|after| name > after));
        names.sort();
        names.truncate(limit);
        Ok(names)
    }

    /// A subscription by its name.
    pub fn subscription(&self, name: &SubscriptionName) -> Result<SubscriptionView, Error> {
        let id = self.subscription_id(name)?;
        Ok(self.subscription_view(id, &self.durable.subscriptions[&id]))
    }

    /// A subscription by its id.
    pub fn subscription_by_id(&self, id: SubscriptionId) -> Option<SubscriptionView> {
        self.durable.subscriptions.get(&id).map(|state| self.subscription_view(id, state))
    }

    /// The subscriptions of a project by name, from the first one after `after`, at most `limit`.
    pub fn subscriptions(
        &self,
        project: &ProjectName,
        after: Option<&SubscriptionName>,
        limit: usize,
    ) -> Vec<SubscriptionView> {
        let view = |id: &SubscriptionId| self.subscription_view(*id, &self.durable.subscriptions[id]);
        let prefix = project.prefix(SubscriptionName::COLLECTION);
        page(&self.durable.subscription_names, &prefix, after, limit).map(view).collect()
    }

    /// The ids of all subscriptions.
    pub fn subscription_ids(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        self.durable.subscriptions.keys().copied()
    }

    /// The figures of a subscription.
    pub fn stats(&self, id: SubscriptionId) -> Option<SubscriptionStats> {
        let state = self.durable.subscriptions.get(&id)?;
        let last = self.durable.topics[&state.topic].last;
        let mut stats = SubscriptionStats {
            backlog_messages: last.0 - state.acked.floor().0 - state.acked.above_count(),
            floor: state.acked.floor(),
            totals: state.totals,
            ..SubscriptionStats::default()
        };
        self.queues[&id].fill_stats(&mut stats);
        Some(stats)
    }

    /// Whether a subscription still needs this message.
    pub fn is_live(&self, topic: TopicId, seq: Seq) -> bool {
        self.durable.topics.get(&topic).is_some_and(|state| {
            seq <= state.last
                && state.subscriptions.iter().any(|id| !self.durable.subscriptions[id].acked.contains(seq))
        })
    }

    /// The newest message of a topic below which, itself included, no subscription needs any. None for a topic that is
    /// gone: nothing of it is needed. Like [`Broker::snapshot`], it may run ahead of what is durable.
    pub fn topic_floor(&self, topic: TopicId) -> Option<Seq> {
        let state = self.durable.topics.get(&topic)?;
        let floors = state.subscriptions.iter().map(|id| self.durable.subscriptions[id].acked.floor());
        Some(floors.min().unwrap_or(state.last))
    }

    /// Writes down a fact and lets it take effect, as a replay will.
    fn record(&mut self, record: Record, out: &mut Output) {
        self.durable.apply(&record).expect("a record that was decided on fits the state");
        out.records.push(record);
    }

    /// A queue and what it needs from around it.
    fn queue<'a>(&'a mut self, id: SubscriptionId, now: Time, out: &'a mut Output) -> Option<(&'a mut Queue, Env<'a>)> {
        let Broker { durable, limits, queues, consumers, timers, lease_last, .. } = self;
        let facts = durable.subscriptions.get(&id)?;
        let queue = queues.get_mut(&id)?;
        Some((queue, Env { now, durable, facts, limits, consumers, timers, lease_last, out }))
    }

    /// Delivers what a subscription can deliver now.
    fn dispatch(&mut self, id: SubscriptionId, now: Time, out: &mut Output) {
        if let Some((queue, mut env)) = self.queue(id, now, out) {
            queue.dispatch(&mut env);
        }
    }

    fn topic_id(&self, name: &TopicName) -> Result<TopicId, Error> {
        self.durable.topic_names.get(name).copied().ok_or_else(|| Error::TopicNotFound(name.clone()))
    }

    fn subscription_id(&self, name: &SubscriptionName) -> Result<SubscriptionId, Error> {
        let id = self.durable.subscription_names.get(name).copied();
        id.ok_or_else(|| Error::SubscriptionNotFound(name.clone()))
    }

    fn subscription_view(&self, id: SubscriptionId, state: &Subscription) -> SubscriptionView {
        let topic_deleted = self.durable.topics[&state.topic].deleted;
        SubscriptionView { id, topic: state.topic, topic_deleted, config: state.config.clone() }
    }
}

fn topic_view(id: TopicId, topic: &Topic) -> TopicView {
    TopicView { id, config: topic.config.clone(), deleted: topic.deleted, last: topic.last }
}

/// The values of a map of names that start with `prefix`, after `after`.
fn page<'a, N, V>(
    names: &'a BTreeMap<N, V>,
    prefix: &'a str,
    after: Option<&N>,
    limit: usize,
) -> impl Iterator<Item = &'a V> + use<'a, N, V>
where
    N: Ord + AsRef<str> + std::borrow::Borrow<str>,
{
    let start = match after {
        Some(after) if after.as_ref() >= prefix => Bound::Excluded(after.as_ref()),
        _ => Bound::Included(prefix),
    };
    names
        .range::<str, _>((start, Bound::Unbounded))
        .take_while(move |(name, _)| name.as_ref().starts_with(prefix))
        .take(limit)
        .map(|(_, value)| value)
}
