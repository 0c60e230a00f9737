//! What must be true, written down a second time and as simply as possible.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::*;

/// The durable state as it follows from the records, kept in the plainest of sets.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) epoch: u32,
    pub(crate) topics: BTreeMap<TopicId, ModelTopic>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, ModelSubscription>,
}

pub(crate) struct ModelTopic {
    pub(crate) name: TopicName,
    pub(crate) deleted: bool,
    pub(crate) last: u64,
    /// With a retention: every later message is kept.
    pub(crate) kept_from: Option<u64>,
    pub(crate) bookmarks: BTreeMap<SnapshotName, ModelBookmark>,
    /// What was redriven, and to whom.
    pub(crate) aimed: BTreeMap<u64, SubscriptionId>,
}

pub(crate) struct ModelBookmark {
    pub(crate) expires: Time,
    settled: BTreeSet<u64>,
}

pub(crate) struct ModelSubscription {
    pub(crate) config: SubscriptionConfig,
    pub(crate) topic: TopicId,
    /// What was published before its creation included.
    pub(crate) settled: BTreeSet<u64>,
    /// What of it no seek to a number brings back.
    pub(crate) gone: BTreeSet<u64>,
    /// What of it the filter keeps out.
    pub(crate) filtered: BTreeSet<u64>,
    pub(crate) failures: BTreeMap<u64, ModelFailure>,
    pub(crate) forwarded: u64,
    pub(crate) filtered_count: u64,
    pub(crate) too_old: u64,
    pub(crate) redriven: u64,
    pub(crate) leases_over: LeaseId,
    pub(crate) detached: bool,
    pub(crate) active: Time,
}

#[derive(Clone, Copy)]
pub(crate) struct ModelFailure {
    pub(crate) attempts: u32,
    pub(crate) not_before: Time,
    pub(crate) reason: FailReason,
    /// Whether it was the last attempt by the settings of then.
    pub(crate) is_last: bool,
}

impl Model {
    pub(crate) fn replay(records: &[Record]) -> Model {
        let mut model = Model::default();
        for record in records {
            model.apply(record);
        }
        model
    }

    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Started { epoch } => {
                assert_eq!(*epoch, self.epoch + 1);
                self.epoch = *epoch;
            }
            Record::TopicCreated { id, config } => {
                let kept_from = config.retention.map(|_| 0);
                let bookmarks = BTreeMap::new();
                let (name, aimed) = (config.name.clone(), BTreeMap::new());
                let topic = ModelTopic { name, deleted: false, last: 0, kept_from, bookmarks, aimed };
                assert!(self.topics.insert(*id, topic).is_none(), "a topic id is never used twice");
            }
            Record::TopicUpdated { id, config } => {
                let topic = self.topics.get_mut(id).unwrap();
                topic.kept_from = config.retention.map(|_| topic.kept_from.unwrap_or(topic.last));
                self.let_go();
            }
            Record::TopicDeleted { id } => {
                let topic = self.topics.get_mut(id).unwrap();
                topic.deleted = true;
                topic.kept_from = None;
                self.let_go();
            }
            Record::SubscriptionCreated { id, topic, config, start, time } => {
                let before: BTreeSet<u64> = (1..=start.0).collect();
                let kept_from = self.topics[topic].kept_from.filter(|_| config.filter.is_none());
                let aimed = self.topics[topic].aimed.keys().copied();
                let subscription = ModelSubscription {
                    config: config.clone(),
                    topic: *topic,
                    gone: (1..=kept_from.unwrap_or(start.0)).chain(aimed).collect(),
                    filtered: if config.filter.is_some() { before.clone() } else { BTreeSet::new() },
                    settled: before,
                    failures: BTreeMap::new(),
                    forwarded: 0,
                    filtered_count: 0,
                    too_old: 0,
                    redriven: 0,
                    leases_over: LeaseId::default(),
                    detached: false,
                    active: *time,
                };
                assert_eq!(start.0, self.topics[topic].last, "a subscription sees what comes after it");
                assert!(self.subscriptions.insert(*id, subscription).is_none(), "an id is never used twice");
            }
            Record::SubscriptionDeleted { id } => {
                self.subscriptions.remove(id).unwrap();
            }
            Record::SubscriptionUpdated { id, config } => {
                let state = self.subscriptions.get_mut(id).unwrap();
                let same = state.config.topic == config.topic && state.config.filter == config.filter;
                assert!(same && state.config.ordering == config.ordering, "this never changes");
                state.config = config.clone();
                self.let_go();
            }
            Record::SubscriptionDetached { id } => {
                let state = self.subscriptions.get_mut(id).unwrap();
                assert!(!std::mem::replace(&mut state.detached, true), "detached twice");
                state.settled = (1..=self.topics[&state.topic].last).collect();
                state.failures.clear();
            }
            Record::Active { id, time } => {
                let state = self.subscriptions.get_mut(id).unwrap();
                assert!(time.0 >= state.active.0 + ACTIVE_RECORD_MS, "written down more than once an hour");
                state.active = *time;
            }
            Record::Published { topic, first, count, time: _, bytes: _, filtered } => {
                assert!(!self.topics[topic].deleted);
                self.publish(*topic, *first, *count, filtered);
            }
            Record::Sought { id, to, leases } => {
                let state = self.subscriptions.get_mut(id).unwrap();
                match to {
                    SeekTo::After(seq) => {
                        let to = seq.0.min(self.topics[&state.topic].last);
                        state.settled = state.gone.iter().copied().chain(1..=to).collect();
                    }
                    SeekTo::Snapshot(name) => {
                        let bookmark = &self.topics[&state.topic].bookmarks[name];
                        state.settled = bookmark.settled.union(&state.filtered).copied().collect();
                        let aimed = self.topics[&state.topic].aimed.iter();
                        state.settled.extend(aimed.filter(|(_, target)| *target != id).map(|(seq, _)| *seq));
                        state.gone.retain(|seq| state.settled.contains(seq));
                    }
                }
                state.failures.clear();
                state.leases_over = *leases;
                self.let_go();
            }
            Record::SubscriptionCut { id, before } => {
                let state = self.subscriptions.get_mut(id).unwrap();
                let kept_from = self.topics[&state.topic].kept_from.unwrap_or(u64::MAX);
                for seq in 1..before.0 {
                    state.too_old += u64::from(state.settled.insert(seq));
                    if seq <= kept_from {
                        state.gone.insert(seq);
                    }
                    state.failures.remove(&seq);
                }
            }
            Record::TopicCut { id, before } => {
                let topic = self.topics.get_mut(id).unwrap();
                assert!(topic.kept_from.unwrap() < before.0 - 1 && before.0 <= topic.last + 1);
                topic.kept_from = Some(before.0 - 1);
                self.let_go();
            }
            Record::SnapshotCreated { name, subscription, labels: _, expires } => {
                let state = &self.subscriptions[subscription];
                let bookmark = ModelBookmark { expires: *expires, settled: state.settled.clone() };
                let topic = self.topics.get_mut(&state.topic).unwrap();
                assert!(topic.bookmarks.insert(name.clone(), bookmark).is_none());
            }
            Record::SnapshotUpdated { name, labels: _, expires } => {
                let mut bookmarks = self.topics.values_mut().filter_map(|topic| topic.bookmarks.get_mut(name));
                bookmarks.next().unwrap().expires = *expires;
            }
            Record::SnapshotDeleted { name } => {
                let mut topics = self.topics.values_mut();
                assert!(topics.any(|topic| topic.bookmarks.remove(name).is_some()));
            }
            // The tests of policies look at them; nothing else depends on one.
            Record::PolicySet { .. } => {}
            Record::Acked { subscription, ranges, bytes: _ } => {
                for range in ranges {
                    for seq in range.first.0..=range.last.0 {
                        self.settle(*subscription, seq);
                    }
                }
            }
            Record::Failed { subscription, seq, attempts, not_before, reason } => {
                let state = self.subscriptions.get_mut(subscription).unwrap();
                assert!(!state.settled.contains(&seq.0), "what is settled cannot fail");
                let (attempts, not_before, reason) = (*attempts, *not_before, *reason);
                let is_last = state.config.dead_letter.as_ref().is_some_and(|policy| attempts >= policy.attempts_max());
                let failure = ModelFailure { attempts, not_before, reason, is_last };
                let before = state.failures.insert(seq.0, failure).map_or(0, |before| before.attempts);
                assert_eq!(attempts, before + 1, "attempts grow one by one");
            }
            Record::Forwarded { subscription, seq, to, as_seq, filtered, .. } => {
                assert!(!self.topics[to].deleted);
                self.settle(*subscription, seq.0);
                self.subscriptions.get_mut(subscription).unwrap().forwarded += 1;
                self.publish(*to, *as_seq, 1, filtered);
            }
            Record::Redriven { subscription, seq, target, to, as_seq, .. } => {
                self.settle(*subscription, seq.0);
                self.subscriptions.get_mut(subscription).unwrap().redriven += 1;
                assert_eq!(self.subscriptions[target].topic, *to);
                assert!(!self.subscriptions[target].detached);
                self.publish(*to, *as_seq, 1, &[]);
                self.topics.get_mut(to).unwrap().aimed.insert(as_seq.0, *target);
                let is_other = |id: &SubscriptionId, state: &ModelSubscription| id != target && state.topic == *to;
                let others = self.subscriptions.iter_mut().filter(|(id, state)| is_other(id, state) && !state.detached);
                for (_, state) in others {
                    state.settled.insert(as_seq.0);
                    state.gone.insert(as_seq.0);
                }
            }
        }
    }

    fn publish(&mut self, id: TopicId, first: Seq, count: u32, filtered: &[Filtered]) {
        let topic = self.topics.get_mut(&id).unwrap();
        assert_eq!(first.0, topic.last + 1, "numbers have no gaps");
        topic.last += u64::from(count);
        for Filtered { subscription, ranges, .. } in filtered {
            let state = self.subscriptions.get_mut(subscription).unwrap();
            for seq in ranges.iter().flat_map(|range| range.first.0..=range.last.0) {
                assert!(state.settled.insert(seq));
                state.gone.insert(seq);
                state.filtered.insert(seq);
                state.filtered_count += 1;
            }
        }
    }

    /// What is acked is gone, unless the subscription or its topic keeps it.
    fn let_go(&mut self) {
        for state in self.subscriptions.values_mut().filter(|state| !state.config.retain_acked) {
            let kept_from = self.topics[&state.topic].kept_from.unwrap_or(u64::MAX);
            state.gone.extend(state.settled.range(..=kept_from));
        }
    }

    fn settle(&mut self, subscription: SubscriptionId, seq: u64) {
        let last = self.topics[&self.subscriptions[&subscription].topic].last;
        let subscription = self.subscriptions.get_mut(&subscription).unwrap();
        assert!(seq <= last, "only what the subscription sees can be settled");
        assert!(subscription.settled.insert(seq), "message {seq} is settled twice");
        subscription.failures.remove(&seq);
        let kept_from = self.topics[&subscription.topic].kept_from.unwrap_or(u64::MAX);
        if !subscription.config.retain_acked && seq <= kept_from {
            subscription.gone.insert(seq);
        }
    }

    /// Whether somebody may want a message some day.
    pub(crate) fn is_needed(&self, id: TopicId, seq: Seq) -> bool {
        let topic = &self.topics[&id];
        let of_topic = |state: &&ModelSubscription| state.topic == id && !state.detached;
        topic.kept_from.is_some_and(|kept_from| seq.0 > kept_from)
            || self.subscriptions.values().filter(of_topic).any(|state| !state.gone.contains(&seq.0))
            || topic.bookmarks.values().any(|bookmark| !bookmark.settled.contains(&seq.0))
    }

    /// The unacked messages of a subscription.
    pub(crate) fn unacked(&self, id: SubscriptionId) -> impl Iterator<Item = u64> {
        let state = &self.subscriptions[&id];
        let last = if state.detached { 0 } else { self.topics[&state.topic].last };
        (1..=last).filter(|seq| !state.settled.contains(seq))
    }

    pub(crate) fn topic_id(&self, name: &TopicName) -> Option<TopicId> {
        self.topics.iter().find(|(_, topic)| !topic.deleted && topic.name == *name).map(|(id, _)| *id)
    }

    pub(crate) fn subscription_id(&self, name: &SubscriptionName) -> Option<SubscriptionId> {
        self.subscriptions.iter().find(|(_, state)| state.config.name == *name).map(|(id, _)| *id)
    }

    pub(crate) fn attempts(&self, id: SubscriptionId, seq: Seq) -> u32 {
        self.subscriptions[&id].failures.get(&seq.0).map_or(0, |failure| failure.attempts)
    }

    pub(crate) fn is_settled(&self, id: SubscriptionId, seq: Seq) -> bool {
        self.subscriptions[&id].settled.contains(&seq.0)
    }

    pub(crate) fn backlog(&self, id: SubscriptionId) -> u64 {
        self.unacked(id).count() as u64
    }
}
