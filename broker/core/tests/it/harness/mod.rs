//! A broker in a small world: a journal that can lose what is not synced, a server that answers loads and forwards,
//! clients that remember what they got, and a clock that is turned by hand. Every call is judged by the [`model`].

mod figures;
pub(crate) mod judge;
pub(crate) mod model;
mod operator;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_core::*;
use judge::{Attached, Cause, Judge, Lease, Metas, Run};
use model::Model;

/// A delivery as its consumer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) consumer: ConsumerId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) seq: u64,
    pub(crate) lease: LeaseId,
    pub(crate) attempt: u32,
}

impl Received {
    pub(crate) fn ack_ref(&self) -> AckRef {
        AckRef { subscription: self.subscription, seq: Seq(self.seq), lease: self.lease }
    }
}

/// When each world begins.
const NOW: Time = Time(1_000_000);

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) limits: Limits,
    pub(crate) now: Time,
    pub(crate) model: Model,
    pub(crate) run: Run,
    /// What the consumers got and did not take yet.
    pub(crate) inbox: BTreeMap<ConsumerId, VecDeque<Received>>,
    /// All that any consumer ever got.
    pub(crate) history: Vec<Received>,
    /// The consumers that were told to end.
    pub(crate) closed: Vec<ConsumerId>,
    /// The loads and forwards that wait for an answer.
    pub(crate) todo: VecDeque<Effect>,
    /// Whether each call is synced and answered at once.
    pub(crate) prompt: bool,
    pub(crate) records: Vec<Record>,
    durable_count: usize,
    /// The last durable message of each topic.
    durable_last: BTreeMap<TopicId, u64>,
    checkpoint: (usize, Snapshot),
    metas: Metas,
    /// Effects, and how many records must be durable before each.
    held_back: VecDeque<(usize, Effect)>,
    consumer_last: u64,
    /// What happened, so that a random test can show that it reaches everything.
    pub(crate) seen: BTreeSet<&'static str>,
}

pub(crate) fn topic_name(id: &str) -> TopicName {
    format!("projects/test/topics/{id}").parse().unwrap()
}

pub(crate) fn subscription_name(id: &str) -> SubscriptionName {
    format!("projects/test/subscriptions/{id}").parse().unwrap()
}

pub(crate) fn snapshot_name(id: &str) -> SnapshotName {
    format!("projects/test/snapshots/{id}").parse().unwrap()
}

/// The attribute of every message: whether its bytes are odd or even.
pub(crate) fn attribute(meta: &Meta, key: &str) -> Option<&'static str> {
    let parity = if meta.bytes.is_multiple_of(2) { "even" } else { "odd" };
    (key == "parity").then_some(parity)
}

/// A message without a key.
pub(crate) fn plain(bytes: u32) -> Meta {
    Meta { bytes, key: None }
}

/// A message of 10 bytes with a key.
pub(crate) fn keyed(key: u64) -> Meta {
    Meta { bytes: 10, key: Some(KeyHash(key)) }
}

pub(crate) fn stream(messages_max: u32) -> Attach {
    Attach { messages_max, bytes_max: 0, ack_deadline: AckDeadline::default(), kind: ConsumerKind::Stream }
}

pub(crate) fn pull(messages_max: u32) -> Attach {
    Attach { kind: ConsumerKind::Pull, ..stream(messages_max) }
}

pub(crate) fn seqs(received: &[Received]) -> Vec<u64> {
    received.iter().map(|received| received.seq).collect()
}

impl World {
    pub(crate) fn new() -> World {
        World::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> World {
        let mut out = Output::new();
        let broker = Recovery::new().begin(limits.clone(), 1, NOW, &mut out);
        let mut world = World {
            broker,
            limits,
            now: NOW,
            model: Model::default(),
            run: Run::default(),
            inbox: BTreeMap::new(),
            history: Vec::new(),
            closed: Vec::new(),
            todo: VecDeque::new(),
            prompt: true,
            records: Vec::new(),
            durable_count: 0,
            durable_last: BTreeMap::new(),
            checkpoint: (0, Snapshot::default()),
            metas: Metas::new(),
            held_back: VecDeque::new(),
            consumer_last: 0,
            seen: BTreeSet::new(),
        };
        world.judge(out, Cause::Other, &[]);
        world
    }

    pub(crate) fn topic(&mut self, id: &str) -> TopicId {
        let config = TopicConfig::new(topic_name(id));
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_create_topic(config, out)).unwrap()
    }

    /// A subscription whose settings `change` sets.
    pub(crate) fn subscription(
        &mut self,
        id: &str,
        topic: &str,
        change: impl FnOnce(&mut SubscriptionConfig),
    ) -> SubscriptionId {
        let mut config = SubscriptionConfig::new(subscription_name(id), topic_name(topic));
        config.expiration = None;
        change(&mut config);
        self.call(Cause::Other, &[], |broker, now, out| broker.handle_create_subscription(config, now, out)).unwrap()
    }

    pub(crate) fn delete_topic(&mut self, id: &str) -> Result<(), Error> {
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_delete_topic(&topic_name(id), out))
    }

    pub(crate) fn delete_subscription(&mut self, id: &str) -> Result<(), Error> {
        let name = subscription_name(id);
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_delete_subscription(&name, out))
    }

    pub(crate) fn publish(&mut self, topic: &str, metas: &[Meta]) -> Result<Published, Error> {
        let name = topic_name(topic);
        self.call(Cause::Other, metas, |broker, now, out| {
            broker.handle_publish(&name, metas, |index, key| attribute(&metas[index], key), now, out)
        })
    }

    pub(crate) fn attach(&mut self, subscription: &str, attach: Attach) -> ConsumerId {
        self.try_attach(subscription, attach).unwrap()
    }

    pub(crate) fn try_attach(&mut self, subscription: &str, attach: Attach) -> Result<ConsumerId, Error> {
        let name = subscription_name(subscription);
        self.consumer_last += 1;
        let id = ConsumerId(self.consumer_last);
        let mut out = Output::new();
        let subscription = self.broker.handle_attach(id, &name, attach, self.now, &mut out)?;
        self.run.consumers.insert(id, Attached { subscription, attach, at: self.now, has_acked: false });
        self.finish(out, Cause::Other, &[]);
        Ok(id)
    }

    pub(crate) fn detach(&mut self, consumer: ConsumerId, detach: Detach) {
        self.detach_unseen(consumer, detach, u64::MAX);
    }

    /// Detaches a consumer that leases with higher numbers than `seen` have not reached.
    pub(crate) fn detach_unseen(&mut self, consumer: ConsumerId, detach: Detach, seen: u64) {
        let is_unseen = |lease: &Lease| lease.consumer == consumer && lease.id.number > seen;
        let unseen = self.run.leases.iter().filter(|(_, lease)| is_unseen(lease));
        let unseen: Vec<_> = unseen.map(|(place, _)| *place).collect();
        self.run.leases.retain(|place, _| !unseen.contains(place));
        let attached = self.run.consumers.remove(&consumer).is_some();
        let mut cause = Cause::Other;
        if attached && detach == Detach::ConnectionLost {
            let blamed = self.run.lose(consumer, &self.model, self.now);
            self.run.leases.retain(|lost, lease| lease.consumer != consumer || Some(*lost) == blamed);
            if let Some((id, seq)) = blamed {
                self.saw("a suspect was lost");
                cause = Cause::Lost(id, seq);
            }
        }
        self.call(cause, &[], |broker, now, out| {
            broker.handle_detach_unseen(consumer, detach, seen, now, out);
        });
        let gone = attached && detach == Detach::ConnectionLost;
        assert!(!gone || self.run.leases.values().all(|lease| lease.consumer != consumer), "what it had comes back");
    }

    pub(crate) fn consumer_deadline(&mut self, consumer: ConsumerId, ack_deadline: AckDeadline) {
        if let Some(attached) = self.run.consumers.get_mut(&consumer) {
            attached.attach.ack_deadline = ack_deadline;
        }
        self.broker.handle_consumer_deadline(consumer, ack_deadline);
    }

    /// Takes what a consumer got since the last time.
    pub(crate) fn received(&mut self, consumer: ConsumerId) -> Vec<Received> {
        self.inbox.remove(&consumer).unwrap_or_default().into()
    }

    pub(crate) fn ack(&mut self, subscription: &str, received: &[Received]) -> Vec<AckOutcome> {
        let refs: Vec<AckRef> = received.iter().map(Received::ack_ref).collect();
        self.ack_refs(subscription, &refs).unwrap()
    }

    pub(crate) fn ack_refs(&mut self, subscription: &str, refs: &[AckRef]) -> Result<Vec<AckOutcome>, Error> {
        let name = subscription_name(subscription);
        let id = self.model.subscription_id(&name).unwrap_or(SubscriptionId(0));
        let expected = self.expected_outcomes(id, refs);
        let cause = Cause::Ack(id, refs.iter().map(|ack| (ack.seq, ack.lease)).collect());
        let outcomes = self.call(cause, &[], |broker, now, out| broker.handle_ack(&name, refs, now, out))?;
        assert_eq!(outcomes, expected);
        self.run.remember(id, refs, &outcomes, self.model.subscriptions[&id].config.exactly_once);
        for (outcome, ack) in outcomes.iter().zip(refs) {
            let this_run = ack.lease.epoch == self.model.epoch;
            match outcome {
                AckOutcome::Acked if !this_run => self.saw("acked by a lease of an earlier run"),
                AckOutcome::Acked => {}
                AckOutcome::AlreadyAcked => self.saw("already acked"),
                AckOutcome::Stale => self.saw("stale"),
                AckOutcome::Unknown => self.saw("unknown"),
            }
            assert!(*outcome != AckOutcome::Acked || self.model.is_settled(id, ack.seq), "the ack left no record");
        }
        Ok(outcomes)
    }

    /// What acks must come to. Refs in the tests are either such that were given, or plain nonsense.
    fn expected_outcomes(&self, id: SubscriptionId, refs: &[AckRef]) -> Vec<AckOutcome> {
        let mut acked = BTreeMap::new();
        let Some(state) = self.model.subscriptions.get(&id) else { return Vec::new() };
        let expected = refs.iter().map(|ack| {
            let given = self.history.iter().any(|received| received.ack_ref() == *ack);
            if ack.subscription != id || !given {
                return AckOutcome::Unknown;
            }
            let leased = self.run.leases.get(&(id, ack.seq)).is_some_and(|lease| lease.id == ack.lease);
            if self.model.is_settled(id, ack.seq) || acked.contains_key(&ack.seq) {
                let by = acked.get(&ack.seq).or_else(|| self.run.acked_by.get(&(id, ack.seq)));
                let by_another = ack.lease.epoch == self.model.epoch && by != Some(&ack.lease);
                let is_stale = state.config.exactly_once && by_another;
                return if is_stale { AckOutcome::Stale } else { AckOutcome::AlreadyAcked };
            }
            let strict = state.config.ordering || state.config.exactly_once || ack.lease <= state.leases_over;
            if leased || !strict {
                acked.insert(ack.seq, ack.lease);
                return AckOutcome::Acked;
            }
            AckOutcome::Stale
        });
        expected.collect()
    }

    pub(crate) fn nack(&mut self, subscription: &str, received: &[Received]) -> Vec<ModifyOutcome> {
        self.modify(subscription, received, 0).unwrap()
    }

    pub(crate) fn modify(
        &mut self,
        subscription: &str,
        received: &[Received],
        deadline_ms: u32,
    ) -> Result<Vec<ModifyOutcome>, Error> {
        let name = subscription_name(subscription);
        let refs: Vec<AckRef> = received.iter().map(Received::ack_ref).collect();
        let mut cause = Cause::Other;
        if let Some(id) = self.model.subscription_id(&name) {
            if deadline_ms == 0 {
                cause = Cause::Nack(id, refs.iter().map(|nack| nack.seq).collect());
            } else if deadline_ms <= ACK_DEADLINE_MS_MAX {
                for extended in refs.iter().filter(|extended| extended.subscription == id) {
                    if let Some(lease) = self.run.leases.get_mut(&(id, extended.seq))
                        && lease.id == extended.lease
                    {
                        lease.deadline = self.now.plus_ms(u64::from(deadline_ms));
                    }
                }
            }
        }
        self.call(cause, &[], |broker, now, out| broker.handle_modify(&name, &refs, deadline_ms, now, out))
    }

    /// Gives back what never reached its consumer.
    pub(crate) fn give_back(&mut self, received: &[Received]) {
        let refs: Vec<AckRef> = received.iter().map(Received::ack_ref).collect();
        let World { model, run, limits, now, .. } = self;
        let mut judge = Judge { model, run, metas: &self.metas, limits, now: *now };
        for lease in &refs {
            let place = (lease.subscription, lease.seq);
            if judge.run.leases.get(&place).is_some_and(|held| held.id == lease.lease) {
                judge.run.leases.remove(&place);
                judge.revoke_later(lease.subscription, lease.seq);
            }
        }
        self.call(Cause::Other, &[], |broker, now, out| broker.handle_give_back(&refs, now, out));
    }

    /// Turns the clock and lets the broker do what is due.
    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        while self.broker.poll_timeout().is_some_and(|at| at <= self.now) {
            self.call(Cause::Timeout, &[], |broker, now, out| broker.handle_timeout(now, out));
        }
        assert!(self.run.leases.values().all(|lease| lease.deadline > self.now), "a lease outlives its deadline");
    }

    /// Turns the clock to what is due next; false when nothing is.
    pub(crate) fn advance_to_next(&mut self) -> bool {
        let Some(at) = self.broker.poll_timeout() else { return false };
        self.advance_ms(at.0.saturating_sub(self.now.0));
        true
    }

    /// Makes all records durable and releases the effects that waited for them.
    pub(crate) fn sync(&mut self) {
        self.durable_count = self.records.len();
        self.durable_last = self.model.topics.iter().map(|(id, topic)| (*id, topic.last)).collect();
        while let Some((count, effect)) = self.held_back.pop_front() {
            assert!(count <= self.durable_count);
            match effect {
                Effect::Deliver { consumer, subscription, messages, .. } => {
                    for Delivery { seq, lease, attempt, .. } in messages {
                        let received = Received { consumer, subscription, seq: seq.0, lease, attempt };
                        self.inbox.entry(consumer).or_default().push_back(received);
                        self.history.push(received);
                    }
                }
                Effect::ConsumerClosed { consumer, .. } => self.closed.push(consumer),
                effect => self.todo.push_back(effect),
            }
        }
    }

    /// Answers the oldest load or forward; false when there is none.
    pub(crate) fn answer(&mut self) -> bool {
        match self.todo.pop_front() {
            None => return false,
            Some(Effect::Load { subscription, topic, from, messages_max }) => {
                let last = self.durable_last.get(&topic).copied().unwrap_or_default();
                let next = Seq((from.0 + messages_max as u64).min(last + 1));
                let floor = self.broker.topic_floor(topic).unwrap_or(Seq(last));
                let found = self.metas.range((topic, from)..(topic, next)).filter(|((_, seq), _)| *seq > floor);
                let found: Vec<(Seq, Meta)> = found.map(|((_, seq), meta)| (*seq, *meta)).collect();
                self.call(Cause::Other, &[], |broker, now, out| {
                    broker.handle_loaded(subscription, from, &found, next, now, out);
                });
            }
            Some(Effect::Forward { subscription, topic, seq, .. }) => {
                let meta = self.metas[&(topic, seq)];
                self.call(Cause::Other, &[meta], |broker, now, out| {
                    broker.handle_forwarded(subscription, seq, meta, |key| attribute(&meta, key), now, out)
                });
            }
            Some(other) => panic!("nothing to answer: {other:?}"),
        }
        true
    }

    /// Takes a snapshot, as the server does when all is durable, and deletes the messages that nobody needs any more.
    pub(crate) fn checkpoint(&mut self) {
        self.sync();
        self.checkpoint = (self.records.len(), self.broker.snapshot());
        self.metas.retain(|(topic, seq), _| self.broker.is_live(*topic, *seq));
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    fn count_what_happened(&mut self, out: &Output) {
        for record in &out.records {
            match record {
                Record::Acked { .. } => self.saw("acked"),
                Record::Failed { reason: FailReason::Nacked, .. } => self.saw("nacked"),
                Record::Failed { reason: FailReason::Expired, .. } => self.saw("expired"),
                Record::Failed { reason: FailReason::Lost, .. } => self.saw("lost alone"),
                Record::Forwarded { filtered, .. } if !filtered.is_empty() => self.saw("forwarded and filtered"),
                Record::Forwarded { .. } => self.saw("forwarded"),
                Record::Published { filtered, .. } if !filtered.is_empty() => self.saw("filtered"),
                Record::TopicUpdated { .. } => self.saw("topic updated"),
                Record::SubscriptionUpdated { .. } => self.saw("subscription updated"),
                Record::SubscriptionDetached { .. } => self.saw("subscription detached"),
                Record::Sought { to: SeekTo::After(_), .. } => self.saw("sought to a number"),
                Record::Sought { to: SeekTo::Snapshot(_), .. } => self.saw("sought to a snapshot"),
                Record::SubscriptionCut { .. } => self.saw("subscription cut"),
                Record::TopicCut { .. } => self.saw("topic cut"),
                Record::SnapshotCreated { .. } => self.saw("snapshot created"),
                Record::SnapshotUpdated { .. } => self.saw("snapshot updated"),
                Record::SnapshotDeleted { .. } => self.saw("snapshot deleted"),
                Record::Active { .. } => self.saw("active"),
                Record::Redriven { .. } => self.saw("redriven"),
                _ => {}
            }
        }
        for effect in &out.effects {
            match effect {
                Effect::Load { .. } => self.saw("load"),
                Effect::ConsumerClosed { .. } => self.saw("consumer closed"),
                _ => {}
            }
        }
        let stats: Vec<SubscriptionStats> =
            self.broker.subscription_ids().filter_map(|id| self.broker.stats(id, self.now)).collect();
        for stats in stats {
            for (what, reached) in [
                ("returned", stats.run.returned > 0),
                ("reckoned", !stats.backlog_bytes_exact),
                ("revoked", stats.run.revoked > 0),
                ("suspected", stats.suspect_messages > 0),
                ("forward retried", stats.run.forward_retries > 0),
                ("outstanding full", stats.outstanding_messages == self.limits.outstanding_messages_max),
                ("delayed full", stats.delayed_messages >= self.limits.delayed_messages_max),
                ("parked full", stats.parked_messages >= self.limits.parked_messages_max),
                ("window full", stats.window_messages == self.limits.window_messages_max),
            ] {
                if reached {
                    self.saw(what);
                }
            }
        }
    }

    /// Loses all that is not durable, and starts again from the checkpoint.
    pub(crate) fn crash(&mut self) {
        if self.durable_count < self.records.len() {
            self.saw("records lost in a crash");
        }
        self.records.truncate(self.durable_count);
        self.held_back.clear();
        self.todo.clear();
        self.inbox.clear();
        self.run = Run::default();
        self.model = Model::replay(&self.records);
        let topics = &self.model.topics;
        self.metas.retain(|(topic, seq), _| topics.get(topic).is_some_and(|topic| seq.0 <= topic.last));
        let recovery = self.recover();
        let mut out = Output::new();
        self.broker = recovery.begin(self.limits.clone(), self.now.0, self.now, &mut out);
        self.judge(out, Cause::Other, &[]);
    }

    pub(super) fn recover(&self) -> Recovery {
        let (covered, snapshot) = &self.checkpoint;
        let mut recovery = Recovery::restore(snapshot.clone()).unwrap();
        for record in &self.records[*covered..] {
            recovery.apply(record).unwrap();
        }
        recovery
    }

    pub(crate) fn stats(&self, subscription: &str) -> SubscriptionStats {
        let id = self.broker.subscription(&subscription_name(subscription)).unwrap().id;
        self.broker.stats(id, self.now).unwrap()
    }

    /// Makes a call and judges it; `metas` are the messages that it may publish.
    pub(super) fn call<T>(
        &mut self,
        cause: Cause,
        metas: &[Meta],
        call: impl FnOnce(&mut Broker, Time, &mut Output) -> T,
    ) -> T {
        let mut out = Output::new();
        let result = call(&mut self.broker, self.now, &mut out);
        self.finish(out, cause, metas);
        result
    }

    fn finish(&mut self, out: Output, cause: Cause, metas: &[Meta]) {
        self.judge(out, cause, metas);
        if self.prompt {
            self.sync();
            self.answer_all();
        }
    }

    pub(crate) fn answer_all(&mut self) {
        while !self.todo.is_empty() {
            self.answer();
            self.sync();
        }
    }

    fn judge(&mut self, out: Output, cause: Cause, metas: &[Meta]) {
        for record in &out.records {
            let placed = match record {
                Record::Published { topic, first, .. } => Some((*topic, *first)),
                Record::Forwarded { to, as_seq, .. } | Record::Redriven { to, as_seq, .. } => Some((*to, *as_seq)),
                _ => None,
            };
            if let Some((topic, first)) = placed {
                self.metas.extend((first.0..).map(|seq| (topic, Seq(seq))).zip(metas.iter().copied()));
            }
        }
        let World { model, run, limits, now, .. } = self;
        let mut judge = Judge { model, run, metas: &self.metas, limits, now: *now };
        for record in &out.records {
            judge.record(record, &cause);
        }
        judge.effects(&out.effects);
        self.count_what_happened(&out);
        self.records.extend(out.records);
        let count = self.records.len();
        self.held_back.extend(out.effects.into_iter().map(|effect| (count, effect)));
        self.check_figures();
    }
}
