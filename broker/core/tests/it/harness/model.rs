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
}

pub(crate) struct ModelSubscription {
    pub(crate) config: SubscriptionConfig,
    pub(crate) topic: TopicId,
    pub(crate) start: u64,
    pub(crate) settled: BTreeSet<u64>,
    pub(crate) failures: BTreeMap<u64, (u32, Time)>,
    pub(crate) forwarded: u64,
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
                let topic = ModelTopic { name: config.name.clone(), deleted: false, last: 0 };
                assert!(self.topics.insert(*id, topic).is_none(), "a topic id is never used twice");
            }
            Record::TopicDeleted { id } => self.topics.get_mut(id).unwrap().deleted = true,
            Record::SubscriptionCreated { id, topic, config, start } => {
                let subscription = ModelSubscription {
                    config: config.clone(),
                    topic: *topic,
                    start: start.0,
                    settled: BTreeSet::new(),
                    failures: BTreeMap::new(),
                    forwarded: 0,
                };
                assert_eq!(start.0, self.topics[topic].last, "a subscription sees what comes after it");
                assert!(self.subscriptions.insert(*id, subscription).is_none(), "an id is never used twice");
            }
            Record::SubscriptionDeleted { id } => {
                self.subscriptions.remove(id).unwrap();
            }
            Record::Published { topic, first, count, time: _ } => {
                let topic = self.topics.get_mut(topic).unwrap();
                assert!(!topic.deleted);
                assert_eq!(first.0, topic.last + 1, "numbers have no gaps");
                topic.last += u64::from(*count);
            }
            Record::Acked { subscription, ranges } => {
                for range in ranges {
                    for seq in range.first.0..=range.last.0 {
                        self.settle(*subscription, seq);
                    }
                }
            }
            Record::Failed { subscription, seq, attempts, not_before, reason: _ } => {
                let subscription = self.subscriptions.get_mut(subscription).unwrap();
                assert!(!subscription.settled.contains(&seq.0), "what is settled cannot fail");
                let before = subscription.failures.insert(seq.0, (*attempts, *not_before)).map_or(0, |(n, _)| n);
                assert_eq!(*attempts, before + 1, "attempts grow one by one");
            }
            Record::Forwarded { subscription, seq, to, as_seq, time: _ } => {
                self.settle(*subscription, seq.0);
                self.subscriptions.get_mut(subscription).unwrap().forwarded += 1;
                let topic = self.topics.get_mut(to).unwrap();
                assert!(!topic.deleted);
                assert_eq!(as_seq.0, topic.last + 1, "numbers have no gaps");
                topic.last += 1;
            }
        }
    }

    fn settle(&mut self, subscription: SubscriptionId, seq: u64) {
        let last = self.topics[&self.subscriptions[&subscription].topic].last;
        let subscription = self.subscriptions.get_mut(&subscription).unwrap();
        assert!(seq > subscription.start && seq <= last, "only what the subscription sees can be settled");
        assert!(subscription.settled.insert(seq), "message {seq} is settled twice");
        subscription.failures.remove(&seq);
    }

    pub(crate) fn topic_id(&self, name: &TopicName) -> Option<TopicId> {
        self.topics.iter().find(|(_, topic)| !topic.deleted && topic.name == *name).map(|(id, _)| *id)
    }

    pub(crate) fn subscription_id(&self, name: &SubscriptionName) -> Option<SubscriptionId> {
        self.subscriptions.iter().find(|(_, state)| state.config.name == *name).map(|(id, _)| *id)
    }

    pub(crate) fn attempts(&self, id: SubscriptionId, seq: Seq) -> u32 {
        self.subscriptions[&id].failures.get(&seq.0).map_or(0, |(attempts, _)| *attempts)
    }

    pub(crate) fn is_settled(&self, id: SubscriptionId, seq: Seq) -> bool {
        let subscription = &self.subscriptions[&id];
        seq.0 <= subscription.start || subscription.settled.contains(&seq.0)
    }

    pub(crate) fn backlog(&self, id: SubscriptionId) -> u64 {
        let subscription = &self.subscriptions[&id];
        self.topics[&subscription.topic].last - subscription.start - subscription.settled.len() as u64
    }
}

/// What stands for the length of one run: who is attached, and who holds what.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) consumers: BTreeMap<ConsumerId, Attached>,
    pub(crate) leases: BTreeMap<(SubscriptionId, Seq), Lease>,
    pub(crate) lease_last: u64,
}

pub(crate) struct Attached {
    pub(crate) subscription: SubscriptionId,
    pub(crate) attach: Attach,
}

pub(crate) struct Lease {
    pub(crate) consumer: ConsumerId,
    pub(crate) id: LeaseId,
    pub(crate) deadline: Time,
    pub(crate) bytes: u32,
}

/// What the call that is being judged was.
pub(crate) enum Cause {
    Ack(SubscriptionId, BTreeSet<Seq>),
    Nack(SubscriptionId, BTreeSet<Seq>),
    Timeout,
    Other,
}

pub(crate) type Metas = BTreeMap<(TopicId, Seq), Meta>;

/// Judges what one call put out.
pub(crate) struct Judge<'a> {
    pub(crate) model: &'a mut Model,
    pub(crate) run: &'a mut Run,
    pub(crate) metas: &'a Metas,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Time,
}

impl Judge<'_> {
    pub(crate) fn record(&mut self, record: &Record, cause: &Cause) {
        match (record, cause) {
            (Record::Acked { subscription, ranges }, Cause::Ack(asked, seqs)) => {
                assert_eq!(subscription, asked);
                for range in ranges {
                    for seq in (range.first.0..=range.last.0).map(Seq) {
                        assert!(seqs.contains(&seq), "nobody acked {seq}");
                        self.run.leases.remove(&(*subscription, seq));
                    }
                }
            }
            (Record::Acked { .. }, _) => panic!("nobody acked"),
            (Record::Failed { subscription, seq, reason, attempts, not_before }, _) => {
                let lease = self.run.leases.remove(&(*subscription, *seq)).expect("only what is out can fail");
                match (reason, cause) {
                    (FailReason::Expired, Cause::Timeout) => assert!(lease.deadline <= self.now, "not expired yet"),
                    (FailReason::Nacked, Cause::Nack(asked, seqs)) => {
                        assert!(subscription == asked && seqs.contains(seq), "nobody nacked {seq}");
                    }
                    _ => panic!("no reason for a failed attempt: {reason:?}"),
                }
                self.check_backoff(*subscription, *attempts, *not_before);
                self.revoke_later(*subscription, *seq);
            }
            (Record::SubscriptionDeleted { id }, _) => {
                self.run.leases.retain(|(subscription, _), _| subscription != id);
            }
            _ => {}
        }
        self.model.apply(record);
    }

    pub(crate) fn effects(&mut self, effects: &[Effect]) {
        // Deliveries are grouped by consumer; the numbers of the leases tell in which order they were decided.
        let mut deliveries = Vec::new();
        let mut pulls = Vec::new();
        for effect in effects {
            if let Effect::Deliver { consumer, subscription, topic, messages } = effect {
                assert!(!messages.is_empty());
                assert_eq!(*topic, self.model.subscriptions[subscription].topic);
                deliveries.extend(messages.iter().map(|message| (message.lease, *consumer, *subscription, *message)));
                if self.run.consumers[consumer].attach.kind == ConsumerKind::Pull {
                    assert!(!pulls.contains(consumer), "a pull is delivered to once");
                    pulls.push(*consumer);
                }
            }
        }
        deliveries.sort_by_key(|(lease, ..)| *lease);
        for (_, consumer, subscription, message) in deliveries {
            self.delivery(consumer, subscription, &message);
        }
        for pull in pulls {
            self.run.consumers.remove(&pull);
        }
        for effect in effects {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Deliver { .. } => {}
            Effect::Load { subscription, topic, from, messages_max } => {
                assert_eq!(*topic, self.model.subscriptions[subscription].topic);
                assert!(from.0 <= self.model.topics[topic].last, "there is something to load");
                assert!(*messages_max > 0 && *messages_max <= self.limits.window_messages_max);
            }
            Effect::Forward { subscription, seq, to, attempts, .. } => {
                let state = &self.model.subscriptions[subscription];
                let policy = state.config.dead_letter.as_ref().unwrap();
                assert_eq!(self.model.topic_id(policy.topic()), Some(*to));
                assert_eq!(*attempts, self.model.attempts(*subscription, *seq));
                assert!(*attempts >= policy.attempts_max());
            }
            Effect::ConsumerClosed { consumer, reason: CloseReason::SubscriptionDeleted } => {
                let attached = self.run.consumers.remove(consumer).expect("it was attached");
                assert!(!self.model.subscriptions.contains_key(&attached.subscription));
            }
        }
    }

    fn delivery(&mut self, consumer: ConsumerId, id: SubscriptionId, message: &Delivery) {
        let Delivery { seq, lease, attempt, bytes } = *message;
        let state = &self.model.subscriptions[&id];
        let attached = self.run.consumers.get(&consumer).expect("only an attached consumer is delivered to");
        assert_eq!(attached.subscription, id);
        assert!(seq.0 <= self.model.topics[&state.topic].last, "only what was published is delivered");
        assert!(!self.model.is_settled(id, seq), "{seq} is delivered again after it was settled");
        assert_eq!(attempt, self.model.attempts(id, seq) + 1);
        assert_eq!(bytes, self.metas[&(state.topic, seq)].bytes);
        assert_eq!(lease, LeaseId { epoch: self.model.epoch, number: self.run.lease_last + 1 }, "leases are counted");
        self.run.lease_last += 1;
        if let Some((attempts, not_before)) = state.failures.get(&seq.0) {
            assert!(*not_before <= self.now, "{seq} is delivered before its backoff is over");
            let attempts_max = state.config.dead_letter.as_ref().map_or(u32::MAX, |policy| policy.attempts_max());
            assert!(*attempts < attempts_max, "{seq} should have gone to the dead-letter topic");
        }
        self.check_order(consumer, id, seq);
        let deadline = self.now.plus_ms(u64::from(self.run.consumers[&consumer].attach.ack_deadline.ms()));
        let before = self.run.leases.insert((id, seq), Lease { consumer, id: lease, deadline, bytes });
        assert!(before.is_none(), "{seq} is out on two leases");
        self.check_credit(consumer);
    }

    /// All earlier messages of the same key must be out, to the same consumer.
    fn check_order(&self, consumer: ConsumerId, id: SubscriptionId, seq: Seq) {
        let state = &self.model.subscriptions[&id];
        let Some(key) = self.key(id, seq) else { return };
        for earlier in (state.start + 1..seq.0).map(Seq) {
            if self.key(id, earlier) == Some(key) && !self.model.is_settled(id, earlier) {
                let lease = self.run.leases.get(&(id, earlier));
                let lease = lease.unwrap_or_else(|| panic!("{seq} goes out while {earlier} of its key waits"));
                assert_eq!(lease.consumer, consumer, "{seq} goes elsewhere than {earlier} of its key");
            }
        }
    }

    fn check_credit(&self, consumer: ConsumerId) {
        let capped = |asked: u64, max: u64| if asked == 0 { max } else { asked.min(max) };
        let attach = &self.run.consumers[&consumer].attach;
        let messages_max = capped(attach.messages_max.into(), self.limits.consumer_messages_max.into());
        let bytes_max = capped(attach.bytes_max, self.limits.consumer_bytes_max);
        let leases = self.run.leases.values().filter(|lease| lease.consumer == consumer);
        let (messages, bytes) = leases.fold((0, 0), |(n, sum), lease| (n + 1, sum + u64::from(lease.bytes)));
        assert!(messages <= messages_max, "{messages} messages out of {messages_max}");
        assert!(bytes <= bytes_max || messages == 1, "{bytes} bytes out of {bytes_max}");
    }

    fn check_backoff(&self, id: SubscriptionId, attempts: u32, not_before: Time) {
        let delay_ms = not_before.0 - self.now.0;
        match self.model.subscriptions[&id].config.retry {
            None => assert_eq!(delay_ms, 0),
            Some(policy) => {
                let max = u64::from(policy.backoff_ms_max());
                let base = u64::from(policy.backoff_ms_min()).saturating_mul(1 << (attempts - 1).min(40)).min(max);
                assert!((base..=max.min(base + base / 4)).contains(&delay_ms), "{delay_ms} ms after {attempts}");
            }
        }
    }

    /// A message that comes back takes the later ones of its key with it, without a failed attempt.
    pub(crate) fn revoke_later(&mut self, id: SubscriptionId, seq: Seq) {
        let Some(key) = self.key(id, seq) else { return };
        let later: Vec<Seq> = self
            .run
            .leases
            .keys()
            .filter(|(other, later)| *other == id && *later > seq)
            .map(|(_, later)| *later)
            .collect();
        for later in later {
            if self.key(id, later) == Some(key) {
                self.run.leases.remove(&(id, later));
            }
        }
    }

    fn key(&self, id: SubscriptionId, seq: Seq) -> Option<KeyHash> {
        let state = &self.model.subscriptions[&id];
        self.metas[&(state.topic, seq)].key.filter(|_| state.config.ordering)
    }
}
