//! The durable state and the one way to change it: [`Durable::apply`].

mod delivery;
mod keep;
mod redrive;
mod size;

pub(crate) use size::average_bytes;
mod topology;

use std::collections::{BTreeMap, BTreeSet};

use crate::acked::AckedSet;
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::ReplayError;
use crate::ids::{LeaseId, Seq, SubscriptionId, Time, TopicId};
use crate::names::{SnapshotName, SubscriptionName, TopicName};
use crate::policy::{Policy, Resource};
use crate::record::{Record, SeqRange};
use crate::snapshot::{Bookmark, Failure, Snapshot, SubscriptionSnapshot, TopicSnapshot};
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
    /// Which topic each bookmark is kept with.
    pub(crate) bookmark_names: BTreeMap<SnapshotName, TopicId>,
    /// Follows from the bookmarks.
    pub(crate) bookmark_expiries: BTreeSet<(Time, SnapshotName)>,
    /// Of what is there only.
    pub(crate) policies: BTreeMap<Resource, Policy>,
    pub(crate) policy_revision_last: u64,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) config: TopicConfig,
    pub(crate) deleted: bool,
    pub(crate) last: Seq,
    /// The size of all messages that were ever published.
    pub(crate) bytes: u64,
    /// What was redriven to one subscription, and is none of the others' business. What nobody needs any more is in
    /// there as well.
    pub(crate) aimed: BTreeMap<SubscriptionId, AckedSet>,
    /// With a retention: every message after this one is kept.
    pub(crate) kept_from: Option<Seq>,
    pub(crate) bookmarks: BTreeMap<SnapshotName, Bookmark>,
    /// Follows from the subscriptions, detached ones included; ascending.
    pub(crate) subscriptions: Vec<SubscriptionId>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicId,
    pub(crate) config: SubscriptionConfig,
    pub(crate) acked: AckedSet,
    /// What no seek to a number brings back, a part of `acked`. Some if the subscription or its topic keeps what is
    /// acked; none stands for all of it.
    pub(crate) gone: Option<AckedSet>,
    /// With a filter: what does not match it, and what was published before the subscription could look at it. A part of
    /// `acked`, and of `gone`.
    pub(crate) filtered: Option<AckedSet>,
    /// Of unacked messages only.
    pub(crate) failures: BTreeMap<Seq, Failure>,
    pub(crate) totals: Totals,
    /// Of the bytes of its topic, those that it has settled or never had to.
    pub(crate) settled_bytes: u64,
    /// Whether they are counted; if not, they are reckoned.
    pub(crate) bytes_exact: bool,
    pub(crate) detached: bool,
    pub(crate) active: Time,
    pub(crate) leases_over: LeaseId,
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
            Record::TopicUpdated { id, config } => self.update_topic(*id, config),
            Record::TopicDeleted { id } => self.delete_topic(*id),
            Record::SubscriptionCreated { id, topic, config, start, time } => {
                self.create_subscription(*id, *topic, config, *start, *time)
            }
            Record::SubscriptionUpdated { id, config } => self.update_subscription(*id, config),
            Record::SubscriptionDetached { id } => self.detach_subscription(*id),
            Record::SubscriptionDeleted { id } => self.delete_subscription(*id),
            Record::Active { id, time } => {
                self.subscription_mut(*id)?.active = *time;
                Ok(())
            }
            Record::Published { topic, first, count, time: _, bytes, filtered } => {
                self.publish(*topic, *first, *count, *bytes, filtered)
            }
            Record::Acked { subscription, ranges, bytes } => {
                for range in ranges {
                    let state = self.settle(*subscription, *range)?;
                    state.totals.acked += range.count();
                }
                self.settle_bytes(*subscription, ranges.iter().map(SeqRange::count).sum(), *bytes)
            }
            Record::Failed { subscription, seq, attempts, not_before, reason } => {
                let failure = Failure { attempts: *attempts, not_before: *not_before, reason: *reason };
                self.fail(*subscription, *seq, failure)
            }
            Record::Forwarded { subscription, seq, to, as_seq, time: _, bytes, source_bytes, filtered } => {
                self.publish(*to, *as_seq, 1, *bytes, filtered)?;
                let state = self.settle(*subscription, (*seq).into())?;
                state.totals.dead_lettered += 1;
                self.settle_bytes(*subscription, 1, *source_bytes)
            }
            Record::Redriven { subscription, seq, source_bytes, target, to, as_seq, time: _, bytes } => {
                let state = self.settle(*subscription, (*seq).into())?;
                state.totals.redriven += 1;
                self.settle_bytes(*subscription, 1, Some(*source_bytes))?;
                self.publish_to(*target, *to, *as_seq, *bytes)
            }
            Record::Sought { id, to, leases } => self.seek(*id, to, *leases),
            Record::SubscriptionCut { id, before } => self.cut_subscription(*id, *before),
            Record::TopicCut { id, before } => self.cut_topic(*id, *before),
            Record::SnapshotCreated { name, subscription, labels, expires } => {
                self.create_bookmark(name, *subscription, labels, *expires)
            }
            Record::SnapshotUpdated { name, labels, expires } => self.update_bookmark(name, labels, *expires),
            Record::SnapshotDeleted { name } => self.delete_bookmark(name),
            Record::PolicySet { resource, policy } => self.set_policy(resource, policy),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let topic = |(id, topic): (&TopicId, &Topic)| TopicSnapshot {
            id: *id,
            config: topic.config.clone(),
            deleted: topic.deleted,
            last: topic.last,
            kept_from: topic.kept_from,
            bytes: topic.bytes,
            aimed: topic.aimed.iter().map(|(target, aimed)| (*target, aimed.clone())).collect(),
        };
        let subscription = |(id, state): (&SubscriptionId, &Subscription)| SubscriptionSnapshot {
            id: *id,
            topic: state.topic,
            config: state.config.clone(),
            acked: state.acked.clone(),
            gone: state.gone.clone(),
            filtered: state.filtered.clone(),
            failures: state.failures.iter().map(|(seq, failure)| (*seq, *failure)).collect(),
            totals: state.totals,
            settled_bytes: state.settled_bytes,
            bytes_exact: state.bytes_exact,
            detached: state.detached,
            active: state.active,
            leases_over: state.leases_over,
        };
        let bookmarks = self.bookmark_names.iter().map(|(name, topic)| self.topics[topic].bookmarks[name].clone());
        Snapshot {
            epoch: self.epoch,
            topic_id_last: self.topic_id_last,
            subscription_id_last: self.subscription_id_last,
            topics: self.topics.iter().map(topic).collect(),
            subscriptions: self.subscriptions.iter().map(subscription).collect(),
            bookmarks: bookmarks.collect(),
            policies: self.policies.iter().map(|(resource, policy)| (resource.clone(), policy.clone())).collect(),
            policy_revision_last: self.policy_revision_last,
        }
    }

    pub(crate) fn from_snapshot(snapshot: Snapshot) -> Result<Self, ReplayError> {
        let mut durable = Durable { epoch: snapshot.epoch, ..Durable::default() };
        for topic in snapshot.topics {
            durable.create_topic(topic.id, &topic.config)?;
            let state = durable.topic_mut(topic.id)?;
            state.last = topic.last;
            state.kept_from = topic.kept_from;
            state.bytes = topic.bytes;
            state.aimed = topic.aimed.into_iter().collect();
            if topic.deleted {
                state.deleted = true;
                durable.topic_names.remove(&topic.config.name);
            }
        }
        for subscription in snapshot.subscriptions {
            let SubscriptionSnapshot { id, topic, config, acked, gone, filtered, failures, totals, .. } = subscription;
            durable.create_subscription(id, topic, &config, acked.floor(), subscription.active)?;
            let state = durable.subscription_mut(id)?;
            state.acked = acked;
            state.gone = gone;
            state.filtered = filtered;
            state.failures = failures.into_iter().collect();
            state.totals = totals;
            state.settled_bytes = subscription.settled_bytes;
            state.bytes_exact = subscription.bytes_exact;
            state.detached = subscription.detached;
            state.leases_over = subscription.leases_over;
            if !state.bytes_exact && !state.detached {
                durable.begin_anew(id)?;
            }
        }
        for bookmark in snapshot.bookmarks {
            durable.insert_bookmark(bookmark)?;
        }
        durable.policies = snapshot.policies.into_iter().collect();
        durable.policy_revision_last = snapshot.policy_revision_last;
        durable.topic_id_last = durable.topic_id_last.max(snapshot.topic_id_last);
        durable.subscription_id_last = durable.subscription_id_last.max(snapshot.subscription_id_last);
        Ok(durable)
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ReplayError> {
        self.topics.get_mut(&id).ok_or(ReplayError::TopicUnknown(id))
    }

    fn subscription_mut(&mut self, id: SubscriptionId) -> Result<&mut Subscription, ReplayError> {
        self.subscriptions.get_mut(&id).ok_or(ReplayError::SubscriptionUnknown(id))
    }

    /// A subscription that is not detached, and its topic.
    fn attached(&mut self, id: SubscriptionId) -> Result<(&mut Subscription, &mut Topic), ReplayError> {
        let state = self.subscriptions.get_mut(&id).ok_or(ReplayError::SubscriptionUnknown(id))?;
        if state.detached {
            return Err(ReplayError::SubscriptionDetached(id));
        }
        let topic = self.topics.get_mut(&state.topic).ok_or(ReplayError::TopicUnknown(state.topic))?;
        Ok((state, topic))
    }
}
