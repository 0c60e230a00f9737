//! What can be asked of the state.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Broker;
use crate::durable::{Subscription, Topic, average_bytes};
use crate::error::Error;
use crate::ids::{Seq, SubscriptionId, Time, TopicId};
use crate::names::{ProjectName, SnapshotName, SubscriptionName, TopicName};
use crate::output::Keeper;
use crate::snapshot::Bookmark;
use crate::view::{Peeked, Retained, SnapshotView, SubscriptionStats, SubscriptionView, TopicStats, TopicView};

impl Broker {
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
        page(&self.durable.topic_names, &prefix, after, limit).map(|(_, id)| view(id)).collect()
    }

    /// The ids of all topics whose messages may still be needed, deleted ones that have subscriptions included.
    pub fn topic_ids(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.durable.topics.keys().copied()
    }

    /// The names of a topic's subscriptions that are not detached, from the first one after `after`, at most `limit`.
    pub fn topic_subscriptions(
        &self,
        topic: &TopicName,
        after: Option<&SubscriptionName>,
        limit: usize,
    ) -> Result<Vec<SubscriptionName>, Error> {
        let id = self.topic_id(topic)?;
        let attached = |id: &SubscriptionId| Some(&self.durable.subscriptions[id]).filter(|state| !state.detached);
        let states = self.durable.topics[&id].subscriptions.iter().filter_map(attached);
        let mut names: Vec<SubscriptionName> = states.map(|state| state.config.name.clone()).collect();
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

    /// Whether a subscription delivers exactly once: asked with every ack, so it copies nothing.
    pub fn is_exactly_once(&self, name: &SubscriptionName) -> Result<bool, Error> {
        Ok(self.durable.subscriptions[&self.subscription_id(name)?].config.exactly_once)
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
        page(&self.durable.subscription_names, &prefix, after, limit).map(|(_, id)| view(id)).collect()
    }

    /// The ids of all subscriptions.
    pub fn subscription_ids(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        self.durable.subscriptions.keys().copied()
    }

    /// A snapshot by its name.
    pub fn snapshot_view(&self, name: &SnapshotName) -> Result<SnapshotView, Error> {
        let view = self.durable.bookmark_names.get(name).map(|topic| self.bookmark_view(name, *topic));
        view.ok_or_else(|| Error::SnapshotNotFound(name.clone()))
    }

    /// The snapshots of a project by name, from the first one after `after`, at most `limit`.
    pub fn snapshots(&self, project: &ProjectName, after: Option<&SnapshotName>, limit: usize) -> Vec<SnapshotView> {
        let prefix = project.prefix(SnapshotName::COLLECTION);
        let names = page(&self.durable.bookmark_names, &prefix, after, limit);
        names.map(|(name, topic)| self.bookmark_view(name, *topic)).collect()
    }

    /// The names of the snapshots that keep messages of a topic, from the first one after `after`, at most `limit`.
    pub fn topic_snapshots(
        &self,
        topic: &TopicName,
        after: Option<&SnapshotName>,
        limit: usize,
    ) -> Result<Vec<SnapshotName>, Error> {
        let id = self.topic_id(topic)?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.durable.topics[&id].bookmarks.range::<SnapshotName, _>((start, Bound::Unbounded));
        Ok(names.take(limit).map(|(name, _)| name.clone()).collect())
    }

    /// Whether a subscription of the topic has a filter, so that a publish needs the attributes of its messages.
    pub fn has_filters(&self, topic: TopicId) -> bool {
        let filtered = |id: &SubscriptionId| self.durable.subscriptions[id].filtered.is_some();
        self.durable.topics.get(&topic).is_some_and(|topic| topic.subscriptions.iter().any(filtered))
    }

    /// Who keeps messages for a time only. The caller compares the time of publication of each `oldest` message with
    /// the retention, finds where to cut, and calls [`Broker::handle_retention`].
    pub fn retained(&self) -> Vec<Retained> {
        let mut retained = Vec::new();
        for (id, topic) in &self.durable.topics {
            let mut keep = |keeper, retention, oldest: Seq| {
                if oldest <= topic.last {
                    retained.push(Retained { keeper, topic: *id, retention, oldest, last: topic.last });
                }
            };
            if let (Some(kept_from), Some(retention)) = (topic.kept_from, topic.config.retention) {
                keep(Keeper::Topic(*id), retention, kept_from.next());
            }
            for id in &topic.subscriptions {
                let state = &self.durable.subscriptions[id];
                if !state.detached {
                    keep(Keeper::Subscription(*id), state.config.retention, state.oldest_kept());
                }
            }
        }
        retained
    }

    /// The figures of a subscription.
    pub fn stats(&self, id: SubscriptionId, now: Time) -> Option<SubscriptionStats> {
        let state = self.durable.subscriptions.get(&id)?;
        let last = if state.detached { state.acked.floor() } else { self.durable.topics[&state.topic].last };
        let mut stats = SubscriptionStats {
            backlog_messages: self.durable.backlog(state),
            backlog_bytes: self.durable.backlog_bytes(state),
            backlog_bytes_exact: state.bytes_exact || state.detached,
            floor: state.acked.floor(),
            oldest_unacked: Some(state.acked.next_unsettled(Seq::ZERO)).filter(|seq| *seq <= last),
            totals: state.totals,
            ..SubscriptionStats::default()
        };
        self.queues[&id].fill_stats(&mut stats, now);
        Some(stats)
    }

    /// The figures of a topic.
    pub fn topic_stats(&self, id: TopicId, now: Time) -> Option<TopicStats> {
        let topic = self.durable.topics.get(&id)?;
        let attached = topic.subscriptions.iter().filter(|id| !self.durable.subscriptions[id].detached);
        let retained = topic.last.0 - self.durable.floor(id)?.0;
        Some(TopicStats {
            subscriptions: attached.count(),
            published_messages: topic.last.0,
            published_bytes: topic.bytes,
            retained_messages: retained,
            retained_bytes: average_bytes(topic, retained),
            published_rate: self.published.get(&id).map_or(0.0, |meter| meter.per_second(now)),
        })
    }

    /// The unacked messages of a subscription from the first one after `after`, at most `limit`.
    pub fn peek(&self, name: &SubscriptionName, after: Seq, limit: usize, now: Time) -> Result<Vec<Peeked>, Error> {
        let id = self.attached_id(name)?;
        let state = &self.durable.subscriptions[&id];
        let last = self.durable.topics[&state.topic].last;
        let mut peeked = Vec::new();
        let mut next = state.acked.next_unsettled(after.next());
        while next <= last && peeked.len() < limit {
            peeked.push(self.peeked(id, next, now));
            next = state.acked.next_unsettled(next.next());
        }
        Ok(peeked)
    }

    /// One unacked message of a subscription; none if it is not unacked.
    pub fn peek_at(&self, name: &SubscriptionName, seq: Seq, now: Time) -> Result<Option<Peeked>, Error> {
        let id = self.attached_id(name)?;
        Ok(self.is_unacked(id, seq).then(|| self.peeked(id, seq, now)))
    }

    pub(super) fn is_unacked(&self, id: SubscriptionId, seq: Seq) -> bool {
        let state = &self.durable.subscriptions[&id];
        let last = self.durable.topics[&state.topic].last;
        !state.detached && Seq::ZERO < seq && seq <= last && !state.acked.contains(seq)
    }

    pub(super) fn peeked(&self, id: SubscriptionId, seq: Seq, now: Time) -> Peeked {
        let failure = self.durable.subscriptions[&id].failures.get(&seq);
        Peeked { seq, state: self.queues[&id].state(seq, failure, now), failure: failure.copied() }
    }

    /// Whether this message is still needed: unacked, kept for a seek, or kept by a snapshot.
    pub fn is_live(&self, topic: TopicId, seq: Seq) -> bool {
        self.durable.is_live(topic, seq)
    }

    /// The first message from `from` on that is still needed. It takes [`Broker::keeper_count`] lookups.
    pub fn next_live(&self, topic: TopicId, from: Seq) -> Option<Seq> {
        self.durable.next_live(topic, from)
    }

    /// Whether one of those who keep messages of a topic needs more than `max` of `first..=last`.
    pub fn has_more_live(&self, topic: TopicId, first: Seq, last: Seq, max: u64) -> bool {
        self.durable.has_more_live(topic, first, last, max)
    }

    /// How many there are who may need a message of a topic.
    pub fn keeper_count(&self, topic: TopicId) -> usize {
        self.durable.keeper_count(topic)
    }

    /// The first message from `from` on that a subscription has not settled; it need not be published yet.
    pub fn next_unacked(&self, subscription: SubscriptionId, from: Seq) -> Option<Seq> {
        let state = self.durable.subscriptions.get(&subscription).filter(|state| !state.detached)?;
        Some(state.acked.next_unsettled(from))
    }

    /// The newest message of a topic below which, itself included, none is needed. None for a topic that is
    /// gone: nothing of it is needed. Like [`Broker::snapshot`], it may run ahead of what is durable.
    pub fn topic_floor(&self, topic: TopicId) -> Option<Seq> {
        self.durable.floor(topic)
    }

    fn subscription_view(&self, id: SubscriptionId, state: &Subscription) -> SubscriptionView {
        let topic_deleted = self.durable.topics[&state.topic].deleted;
        let detached = state.detached;
        SubscriptionView { id, topic: state.topic, topic_deleted, detached, config: state.config.clone() }
    }

    fn bookmark_view(&self, name: &SnapshotName, id: TopicId) -> SnapshotView {
        let topic = &self.durable.topics[&id];
        let Bookmark { labels, expires, .. } = &topic.bookmarks[name];
        let topic_name = (!topic.deleted).then(|| topic.config.name.clone());
        SnapshotView { name: name.clone(), topic: id, topic_name, labels: labels.clone(), expires: *expires }
    }
}

fn topic_view(id: TopicId, topic: &Topic) -> TopicView {
    TopicView { id, config: topic.config.clone(), deleted: topic.deleted, last: topic.last }
}

/// The entries of a map of names that start with `prefix`, after `after`.
fn page<'a, N, V>(
    names: &'a BTreeMap<N, V>,
    prefix: &'a str,
    after: Option<&N>,
    limit: usize,
) -> impl Iterator<Item = (&'a N, &'a V)> + use<'a, N, V>
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
}
