//! What each call may put out.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::*;

use super::model::Model;

/// What stands for the length of one run: who is attached, and who holds what.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) consumers: BTreeMap<ConsumerId, Attached>,
    pub(crate) leases: BTreeMap<(SubscriptionId, Seq), Lease>,
    pub(crate) lease_last: u64,
    /// How many connections in a row were lost with a message, and until when it waits therefore.
    losses: BTreeMap<(SubscriptionId, Seq), (u32, Time)>,
    /// Of exactly-once subscriptions: which lease acked.
    pub(crate) acked_by: BTreeMap<(SubscriptionId, Seq), LeaseId>,
}

impl Run {
    /// Counts that a connection was lost with all that the consumer has. Gives the message that this is held against.
    pub(crate) fn lose(&mut self, consumer: ConsumerId, model: &Model, now: Time) -> Option<(SubscriptionId, Seq)> {
        let held = self.leases.iter().filter(|(_, lease)| lease.consumer == consumer).map(|(held, _)| *held);
        let held: Vec<(SubscriptionId, Seq)> = held.collect();
        let alone = held.first().copied().filter(|(id, seq)| self.is_suspect(*id, *seq, model));
        for (id, seq) in held {
            let losses = self.losses(id, seq, model) + 1;
            let wait_ms = SUSPECT_BACKOFF_MS_MIN << losses.saturating_sub(LOSSES_MAX).min(20);
            let until = now.plus_ms(wait_ms.min(SUSPECT_BACKOFF_MS_MAX));
            self.losses.insert((id, seq), (losses, if losses >= LOSSES_MAX { until } else { now }));
        }
        alone
    }

    pub(crate) fn remember(
        &mut self,
        id: SubscriptionId,
        acks: &[AckRef],
        outcomes: &[AckOutcome],
        exactly_once: bool,
    ) {
        if !exactly_once {
            self.acked_by.retain(|(other, _), _| *other != id);
            return;
        }
        for (ack, _) in acks.iter().zip(outcomes).filter(|(_, outcome)| **outcome == AckOutcome::Acked) {
            self.acked_by.insert((id, ack.seq), ack.lease);
        }
    }

    fn losses(&self, id: SubscriptionId, seq: Seq, model: &Model) -> u32 {
        let before = || {
            let failure = model.subscriptions[&id].failures.get(&seq.0);
            let lost = failure.filter(|failure| failure.reason == FailReason::Lost);
            lost.map_or(0, |failure| LOSSES_MAX + failure.attempts)
        };
        self.losses.get(&(id, seq)).map_or_else(before, |(losses, _)| *losses)
    }

    fn is_suspect(&self, id: SubscriptionId, seq: Seq, model: &Model) -> bool {
        self.losses(id, seq, model) >= LOSSES_MAX
    }
}

pub(crate) struct Attached {
    pub(crate) subscription: SubscriptionId,
    pub(crate) attach: Attach,
    pub(crate) at: Time,
    pub(crate) has_acked: bool,
}

pub(crate) struct Lease {
    pub(crate) consumer: ConsumerId,
    pub(crate) id: LeaseId,
    pub(crate) deadline: Time,
    pub(crate) bytes: u32,
}

/// What the call that is being judged was.
pub(crate) enum Cause {
    Ack(SubscriptionId, Vec<(Seq, LeaseId)>),
    Nack(SubscriptionId, BTreeSet<Seq>),
    Timeout,
    /// The connection of a consumer was lost that had just this suspect.
    Lost(SubscriptionId, Seq),
    Cut,
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
            (Record::Acked { subscription, ranges, .. }, Cause::Ack(asked, acks)) => {
                assert_eq!(subscription, asked);
                for range in ranges {
                    for seq in (range.first.0..=range.last.0).map(Seq) {
                        assert!(acks.iter().any(|(acked, _)| *acked == seq), "nobody acked {seq}");
                        if let Some(lease) = self.run.leases.remove(&(*subscription, seq))
                            && acks.contains(&(seq, lease.id))
                            && let Some(attached) = self.run.consumers.get_mut(&lease.consumer)
                        {
                            attached.has_acked = true;
                        }
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
                    (FailReason::Lost, Cause::Lost(id, lost)) => assert_eq!((subscription, seq), (id, lost)),
                    _ => panic!("no reason for a failed attempt: {reason:?}"),
                }
                self.check_backoff(*subscription, *seq, *attempts, *not_before, *reason);
                if *reason != FailReason::Lost {
                    self.run.losses.insert((*subscription, *seq), (0, self.now));
                }
                self.revoke_later(*subscription, *seq);
            }
            (Record::SubscriptionCut { id, before }, cause) => {
                assert!(matches!(cause, Cause::Cut));
                self.run.leases.retain(|(subscription, seq), _| subscription != id || seq >= before);
            }
            (Record::Sought { id, leases, .. }, _) => {
                assert_eq!(*leases, LeaseId { epoch: self.model.epoch, number: self.run.lease_last });
                self.run.leases.retain(|(subscription, _), _| subscription != id);
                self.run.losses.retain(|(subscription, _), _| subscription != id);
                self.run.acked_by.retain(|(subscription, _), _| subscription != id);
            }
            (Record::SnapshotDeleted { name }, Cause::Timeout) => {
                let mut bookmarks = self.model.topics.values().filter_map(|topic| topic.bookmarks.get(name));
                assert!(bookmarks.next().unwrap().expires <= self.now, "not expired yet");
            }
            (Record::Published { topic, first, count, filtered, .. }, _) => {
                self.check_filtered(*topic, *first, u64::from(*count), filtered);
            }
            (Record::Forwarded { to, as_seq, filtered, .. }, _) => self.check_filtered(*to, *as_seq, 1, filtered),
            (Record::Redriven { subscription, seq, .. }, _) => {
                assert!(!self.run.leases.contains_key(&(*subscription, *seq)), "{seq} goes back while it is out");
            }
            (Record::SubscriptionDetached { id }, _) => {
                self.run.leases.retain(|(subscription, _), _| subscription != id);
            }
            (Record::SubscriptionDeleted { id }, cause) => {
                if matches!(cause, Cause::Timeout) {
                    let state = &self.model.subscriptions[id];
                    let expiration = state.config.expiration.unwrap();
                    assert!(state.active.plus_ms(expiration.ms()) <= self.now, "not expired yet");
                    let is_used = self.run.consumers.values().any(|attached| attached.subscription == *id);
                    assert!(!is_used || state.config.push.is_some(), "it is in use");
                }
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
            Effect::ConsumerClosed { consumer, reason } => {
                let attached = self.run.consumers.remove(consumer).expect("it was attached");
                match (reason, self.model.subscriptions.get(&attached.subscription)) {
                    (CloseReason::SubscriptionDeleted, None) => {}
                    (CloseReason::SubscriptionDetached, Some(state)) => assert!(state.detached),
                    other => panic!("closed for no reason: {:?}", other.0),
                }
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
        if let Some(failure) = state.failures.get(&seq.0) {
            assert!(failure.not_before <= self.now, "{seq} is delivered before its backoff is over");
            let last = failure.is_last
                && state.config.dead_letter.as_ref().is_some_and(|policy| failure.attempts >= policy.attempts_max());
            assert!(!last, "{seq} should have gone to the dead-letter topic");
        }
        self.check_suspects(consumer, id, seq);
        self.check_order(consumer, id, seq);
        let deadline = self.now.plus_ms(u64::from(self.run.consumers[&consumer].attach.ack_deadline.ms()));
        let before = self.run.leases.insert((id, seq), Lease { consumer, id: lease, deadline, bytes });
        assert!(before.is_none(), "{seq} is out on two leases");
        self.check_credit(consumer);
    }

    /// All earlier messages of the same key must be out, to the same consumer.
    fn check_order(&self, consumer: ConsumerId, id: SubscriptionId, seq: Seq) {
        let Some(key) = self.key(id, seq) else { return };
        for earlier in (1..seq.0).map(Seq) {
            if !self.model.is_settled(id, earlier) && self.key(id, earlier) == Some(key) {
                let lease = self.run.leases.get(&(id, earlier));
                let lease = lease.unwrap_or_else(|| panic!("{seq} goes out while {earlier} of its key waits"));
                assert_eq!(lease.consumer, consumer, "{seq} goes elsewhere than {earlier} of its key");
            }
        }
    }

    /// A suspect goes out alone, to a stream that has shown that it lives, or to a pull.
    fn check_suspects(&self, consumer: ConsumerId, id: SubscriptionId, seq: Seq) {
        let mut others = self.run.leases.iter().filter(|(_, lease)| lease.consumer == consumer).map(|(held, _)| held.1);
        if !self.run.is_suspect(id, seq, self.model) {
            let suspect = others.find(|other| self.run.is_suspect(id, *other, self.model));
            assert_eq!(suspect, None, "{seq} goes out beside a suspect");
            return;
        }
        assert_eq!(others.next(), None, "{seq} is a suspect and does not go out alone");
        let attached = &self.run.consumers[&consumer];
        let is_sound = attached.has_acked || attached.at.plus_ms(TRIAL_AFTER_MS) <= self.now;
        assert!(attached.attach.kind == ConsumerKind::Pull || is_sound, "{seq} goes to a stream that may die anyway");
        let until = self.run.losses.get(&(id, seq)).map_or(Time(0), |(_, until)| *until);
        assert!(until <= self.now, "{seq} is a suspect and is delivered before its time");
    }

    /// Each filter of the topic keeps out what it does not match, and nothing else.
    fn check_filtered(&self, topic: TopicId, first: Seq, count: u64, filtered: &[Filtered]) {
        for (id, state) in self.model.subscriptions.iter().filter(|(_, state)| state.topic == topic) {
            let Some(filter) = state.config.filter.as_ref().filter(|_| !state.detached) else {
                assert!(filtered.iter().all(|filtered| filtered.subscription != *id));
                continue;
            };
            let expected = (first.0..first.0 + count).filter(|seq| {
                let meta = &self.metas[&(topic, Seq(*seq))];
                !filter.matches(|key| super::attribute(meta, key))
            });
            let found = filtered.iter().filter(|filtered| filtered.subscription == *id);
            let ranges = found.flat_map(|filtered| &filtered.ranges);
            assert!(expected.eq(ranges.flat_map(|range| range.first.0..=range.last.0)), "the filter is not obeyed");
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

    fn check_backoff(&self, id: SubscriptionId, seq: Seq, attempts: u32, not_before: Time, reason: FailReason) {
        let delay_ms = not_before.0 - self.now.0;
        if reason == FailReason::Lost {
            let least = self.run.losses[&(id, seq)].1.0 - self.now.0;
            assert!(delay_ms >= least, "{delay_ms} ms after a suspect was lost");
            if delay_ms == least {
                return;
            }
        }
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
