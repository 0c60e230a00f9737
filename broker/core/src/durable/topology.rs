//! Topics, subscriptions and bookmarks come, change and go.

use std::collections::BTreeMap;

use super::redrive::pass_over;
use super::{Durable, Subscription, Topic};
use crate::acked::AckedSet;
use crate::config::{Labels, SubscriptionConfig, TopicConfig};
use crate::error::ReplayError;
use crate::ids::{LeaseId, Seq, SubscriptionId, Time, TopicId};
use crate::names::SnapshotName;
use crate::policy::{Policy, Resource};
use crate::snapshot::Bookmark;
use crate::view::Totals;

impl Durable {
    pub(super) fn create_topic(&mut self, id: TopicId, config: &TopicConfig) -> Result<(), ReplayError> {
        if id.0 <= self.topic_id_last || self.topic_names.contains_key(&config.name) {
            return Err(ReplayError::TopicTwice(id));
        }
        self.topic_id_last = id.0;
        self.topic_names.insert(config.name.clone(), id);
        let topic = Topic {
            config: config.clone(),
            deleted: false,
            last: Seq::ZERO,
            bytes: 0,
            aimed: BTreeMap::new(),
            kept_from: config.retention.map(|_| Seq::ZERO),
            bookmarks: BTreeMap::new(),
            subscriptions: Vec::new(),
        };
        self.topics.insert(id, topic);
        Ok(())
    }

    pub(super) fn update_topic(&mut self, id: TopicId, config: &TopicConfig) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted || topic.config.name != config.name {
            return Err(ReplayError::Misfit(config.name.to_string()));
        }
        topic.config = config.clone();
        self.keep_in_topic(id, config.retention.is_some());
        Ok(())
    }

    pub(super) fn delete_topic(&mut self, id: TopicId) -> Result<(), ReplayError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted {
            return Err(ReplayError::TopicUnknown(id));
        }
        topic.deleted = true;
        let name = topic.config.name.clone();
        self.topic_names.remove(&name);
        self.policies.remove(&Resource::Topic(id));
        self.keep_in_topic(id, false);
        self.drop_topic_without_use(id);
        Ok(())
    }

    /// A deleted topic is kept for as long as a subscription or a bookmark may hold messages of it.
    fn drop_topic_without_use(&mut self, id: TopicId) {
        let unused = |topic: &Topic| topic.deleted && topic.subscriptions.is_empty() && topic.bookmarks.is_empty();
        if self.topics.get(&id).is_some_and(unused) {
            self.topics.remove(&id);
        }
    }

    pub(super) fn create_subscription(
        &mut self,
        id: SubscriptionId,
        topic: TopicId,
        config: &SubscriptionConfig,
        start: Seq,
        time: Time,
    ) -> Result<(), ReplayError> {
        if id.0 <= self.subscription_id_last || self.subscription_names.contains_key(&config.name) {
            return Err(ReplayError::SubscriptionTwice(id));
        }
        let topic_state = self.topic_mut(topic)?;
        if start > topic_state.last {
            return Err(ReplayError::Gap { topic, last: topic_state.last, found: start });
        }
        let mut gone = match topic_state.kept_from {
            // It can go back to before its creation, unless its filter would not have been looked at.
            Some(kept_from) if config.filter.is_none() => Some(AckedSet::new(kept_from.min(start))),
            kept_from => (kept_from.is_some() || config.retain_acked).then(|| AckedSet::new(start)),
        };
        if let Some(gone) = &mut gone {
            pass_over(gone, id, &topic_state.aimed, start);
        }
        topic_state.subscriptions.push(id);
        let settled_bytes = topic_state.bytes;
        self.subscription_id_last = id.0;
        self.subscription_names.insert(config.name.clone(), id);
        let state = Subscription {
            topic,
            config: config.clone(),
            acked: AckedSet::new(start),
            gone,
            filtered: config.filter.as_ref().map(|_| AckedSet::new(start)),
            failures: BTreeMap::new(),
            totals: Totals::default(),
            settled_bytes,
            bytes_exact: true,
            detached: false,
            active: time,
            leases_over: LeaseId::default(),
        };
        self.subscriptions.insert(id, state);
        Ok(())
    }

    pub(super) fn update_subscription(
        &mut self,
        id: SubscriptionId,
        config: &SubscriptionConfig,
    ) -> Result<(), ReplayError> {
        let state = self.subscription_mut(id)?;
        let before = std::mem::replace(&mut state.config, config.clone());
        let same = before.name == config.name
            && before.topic == config.topic
            && before.filter == config.filter
            && before.ordering == config.ordering;
        if !same {
            return Err(ReplayError::Misfit(config.name.to_string()));
        }
        if before.retain_acked != config.retain_acked && !state.detached {
            self.keep_in_subscription(id)?;
        }
        Ok(())
    }

    pub(super) fn detach_subscription(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let (state, topic) = self.attached(id)?;
        state.detached = true;
        state.acked = AckedSet::new(topic.last);
        state.gone = None;
        state.filtered = None;
        state.failures.clear();
        Ok(())
    }

    pub(super) fn delete_subscription(&mut self, id: SubscriptionId) -> Result<(), ReplayError> {
        let state = self.subscriptions.remove(&id).ok_or(ReplayError::SubscriptionUnknown(id))?;
        self.subscription_names.remove(&state.config.name);
        self.policies.remove(&Resource::Subscription(id));
        self.topic_mut(state.topic)?.subscriptions.retain(|other| *other != id);
        self.drop_topic_without_use(state.topic);
        Ok(())
    }

    pub(super) fn create_bookmark(
        &mut self,
        name: &SnapshotName,
        subscription: SubscriptionId,
        labels: &Labels,
        expires: Time,
    ) -> Result<(), ReplayError> {
        let (state, _) = self.attached(subscription)?;
        let (topic, acked) = (state.topic, state.acked.clone());
        self.insert_bookmark(Bookmark { name: name.clone(), topic, labels: labels.clone(), expires, acked })
    }

    pub(super) fn insert_bookmark(&mut self, bookmark: Bookmark) -> Result<(), ReplayError> {
        let name = bookmark.name.clone();
        if self.bookmark_names.contains_key(&name) {
            return Err(ReplayError::SnapshotTwice(name));
        }
        self.bookmark_names.insert(name.clone(), bookmark.topic);
        self.bookmark_expiries.insert((bookmark.expires, name.clone()));
        self.topic_mut(bookmark.topic)?.bookmarks.insert(name, bookmark);
        Ok(())
    }

    pub(super) fn update_bookmark(
        &mut self,
        name: &SnapshotName,
        labels: &Labels,
        expires: Time,
    ) -> Result<(), ReplayError> {
        let topic = self.bookmark_names.get(name).and_then(|topic| self.topics.get_mut(topic));
        let bookmark = topic.and_then(|topic| topic.bookmarks.get_mut(name));
        let bookmark = bookmark.ok_or_else(|| ReplayError::SnapshotUnknown(name.clone()))?;
        self.bookmark_expiries.remove(&(bookmark.expires, name.clone()));
        self.bookmark_expiries.insert((expires, name.clone()));
        bookmark.labels = labels.clone();
        bookmark.expires = expires;
        Ok(())
    }

    pub(super) fn delete_bookmark(&mut self, name: &SnapshotName) -> Result<(), ReplayError> {
        let unknown = || ReplayError::SnapshotUnknown(name.clone());
        let id = self.bookmark_names.remove(name).ok_or_else(unknown)?;
        let bookmark = self.topic_mut(id)?.bookmarks.remove(name).ok_or_else(unknown)?;
        self.bookmark_expiries.remove(&(bookmark.expires, name.clone()));
        self.policies.remove(&Resource::Snapshot(name.clone()));
        self.drop_topic_without_use(id);
        Ok(())
    }

    pub(super) fn set_policy(&mut self, resource: &Resource, policy: &Policy) -> Result<(), ReplayError> {
        let is_there = match resource {
            Resource::Topic(id) => self.topics.get(id).is_some_and(|topic| !topic.deleted),
            Resource::Subscription(id) => self.subscriptions.contains_key(id),
            Resource::Snapshot(name) => self.bookmark_names.contains_key(name),
        };
        if !is_there || policy.revision <= self.policy_revision_last {
            return Err(ReplayError::Misfit(format!("policy of {resource:?}")));
        }
        self.policy_revision_last = policy.revision;
        self.policies.insert(resource.clone(), policy.clone());
        Ok(())
    }
}
