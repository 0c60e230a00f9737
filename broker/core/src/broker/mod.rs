//! The machine. Its inputs, and what can be asked of it, stand in the modules beside this one.

mod admin;
mod bookmarks;
mod consume;
mod expiry;
mod policies;
mod publish;
mod query;
mod redrive;
mod seek;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use crate::durable::Durable;
use crate::error::Error;
use crate::ids::{ConsumerId, Seq, SubscriptionId, Time, TopicId};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::names::{SubscriptionName, TopicName};
use crate::output::Output;
use crate::queue::{Env, Queue};
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::timers::Timers;

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
    /// When to look whether a subscription has expired. One that was used since is looked at again later.
    expiries: BTreeSet<(Time, SubscriptionId)>,
    /// How much is published to the topics that are not deleted.
    published: BTreeMap<TopicId, Meter>,
    /// When this run began.
    started: Time,
    /// The number of the last lease of this epoch.
    lease_last: u64,
    /// Reused from call to call.
    scratch: Vec<Seq>,
}

impl Broker {
    pub(crate) fn begin(durable: Durable, limits: Limits, seed: u64, now: Time, out: &mut Output) -> Self {
        let queues = durable.subscriptions.iter().map(|(id, facts)| (*id, Queue::new(*id, facts))).collect();
        let mut broker = Broker {
            durable,
            limits,
            rng: fastrand::Rng::with_seed(seed),
            queues,
            consumers: BTreeMap::new(),
            timers: Timers::default(),
            expiries: BTreeSet::new(),
            published: BTreeMap::new(),
            started: now,
            lease_last: 0,
            scratch: Vec::new(),
        };
        broker.record(Record::Started { epoch: broker.durable.epoch + 1 }, out);
        let ids: Vec<SubscriptionId> = broker.subscription_ids().collect();
        ids.into_iter().for_each(|id| broker.watch_expiry(id));
        broker
    }

    /// All durable state, as it stands after the last record that was given out.
    pub fn snapshot(&self) -> Snapshot {
        self.durable.snapshot()
    }

    /// When [`Broker::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let snapshot = self.durable.bookmark_expiries.first().map(|(at, _)| *at);
        let subscription = self.expiries.first().map(|(at, _)| *at);
        [self.timers.first(), snapshot, subscription].into_iter().flatten().min()
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

    /// A subscription that is not detached.
    fn attached_id(&self, name: &SubscriptionName) -> Result<SubscriptionId, Error> {
        let id = self.subscription_id(name)?;
        if self.durable.subscriptions[&id].detached {
            return Err(Error::Detached(name.clone()));
        }
        Ok(id)
    }
}
