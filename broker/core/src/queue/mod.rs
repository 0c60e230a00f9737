//! One subscription at work: what it holds in memory, none of which outlives the run.
//!
//! A message is at first in the [`Window`]. When its turn comes it is *held*: out on a lease, waiting for its turn again,
//! delayed, or on its way to the dead-letter topic, until it is settled.

mod consumer;
mod dispatch;
mod held;
mod keys;
mod suspects;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::{AckDeadline, BACKOFF_MS_MAX};
use crate::durable::{Durable, Subscription};
use crate::ids::{ConsumerId, KeyHash, LeaseId, Meta, Seq, SubscriptionId, Time};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::output::{Attach, Effect, Output};
use crate::record::FailReason;
use crate::snapshot::Failure;
use crate::timers::Timers;
use crate::view::{MessageState, Rates, RunTotals, SubscriptionStats};

use consumer::Consumer;
use held::Held;
use keys::Key;
use suspects::Trials;
pub(crate) use suspects::suspect_backoff_ms;
use window::Window;

#[derive(Debug)]
pub(crate) struct Queue {
    id: SubscriptionId,
    /// Ordering keys count only then.
    ordering: bool,
    window: Window,
    held: Held,
    counts: Counts,
    /// What any consumer may take: waiting messages without a key, and the heads of keys of which nothing is out.
    ready: BTreeSet<Seq>,
    trials: Trials,
    keys: BTreeMap<KeyHash, Key>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    /// Consumers with credit, the next one to be served in front.
    turn: VecDeque<ConsumerId>,
    /// Consumers that may be able to take what is reserved for them.
    due: BTreeSet<ConsumerId>,
    /// Pulls that have had their delivery in the dispatch under way.
    pulls_served: Vec<ConsumerId>,
    /// With exactly-once delivery: the leases that acked last, by message and in the order of the acks.
    acked_by: BTreeMap<Seq, u64>,
    acked_last: VecDeque<Seq>,
    dispatches: u64,
    run: RunTotals,
    meters: Meters,
}

/// How much happens now.
#[derive(Clone, Copy, Debug, Default)]
struct Meters {
    published: Meter,
    delivered: Meter,
    acked: Meter,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    meta: Meta,
    state: State,
    /// How many connections in a row were lost with it.
    losses: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For its turn: in `ready`, or in its key's row.
    Waiting,
    /// On a lease.
    Out { lease: u64, consumer: ConsumerId, deadline: Time },
    /// For the end of its backoff, or for another try to forward it.
    Delayed { until: Time },
    /// The caller was asked for its body, to put it into the dead-letter topic.
    Forwarding,
}

/// Held messages by state.
#[derive(Debug, Default)]
struct Counts {
    waiting: usize,
    out: usize,
    out_bytes: u64,
    delayed: usize,
    forwarding: usize,
}

/// What a queue needs from around it.
pub(crate) struct Env<'a> {
    pub(crate) now: Time,
    pub(crate) durable: &'a Durable,
    /// The durable half of the queue's subscription.
    pub(crate) facts: &'a Subscription,
    pub(crate) limits: &'a Limits,
    /// Where each consumer is attached.
    pub(crate) consumers: &'a mut BTreeMap<ConsumerId, SubscriptionId>,
    pub(crate) timers: &'a mut Timers,
    pub(crate) lease_last: &'a mut u64,
    pub(crate) out: &'a mut Output,
}

/// What a queue knows of a message that someone refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Out on just that lease.
    Leased,
    /// Held, but not on that lease.
    Held,
    /// Held before in this run, and settled since, if only a moment ago by the call that asks.
    Gone,
    /// Not yet looked at in this run.
    Unseen,
}

/// What a timer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Lease,
    Delay,
}

impl Queue {
    pub(crate) fn new(id: SubscriptionId, facts: &Subscription) -> Self {
        Queue {
            id,
            ordering: facts.config.ordering,
            window: Window::new(facts.acked.floor().next()),
            held: Held::default(),
            counts: Counts::default(),
            ready: BTreeSet::new(),
            trials: Trials::default(),
            keys: BTreeMap::new(),
            consumers: BTreeMap::new(),
            turn: VecDeque::new(),
            due: BTreeSet::new(),
            pulls_served: Vec::new(),
            acked_by: BTreeMap::new(),
            acked_last: VecDeque::new(),
            dispatches: 0,
            run: RunTotals::default(),
            meters: Meters::default(),
        }
    }

    pub(crate) fn consumers(&self) -> impl ExactSizeIterator<Item = ConsumerId> + '_ {
        self.consumers.keys().copied()
    }

    pub(crate) fn fill_stats(&self, stats: &mut SubscriptionStats, now: Time) {
        let Meters { published, delivered, acked } = &self.meters;
        stats.rates = Rates {
            published: published.per_second(now),
            delivered: delivered.per_second(now),
            acked: acked.per_second(now),
        };
        stats.outstanding_messages = self.counts.out;
        stats.outstanding_bytes = self.counts.out_bytes;
        stats.delayed_messages = self.counts.delayed;
        stats.forwarding_messages = self.counts.forwarding;
        stats.parked_messages = self.counts.waiting;
        stats.suspect_messages = self.suspects();
        stats.window_messages = self.window.len();
        stats.consumers = self.consumers.len();
        stats.run = self.run;
    }

    /// Takes note of published messages, as far as there is room; what there is none for will be loaded.
    pub(crate) fn offer(&mut self, first: Seq, metas: &[Meta], env: &Env<'_>) {
        // What a filter keeps out is settled from the start, and so is what is meant for another one, which comes singly.
        let all_seen = env.facts.filtered.is_none() && metas.len() > 1;
        let is_seen = |seq: &u64| all_seen || !env.facts.acked.contains(Seq(*seq));
        let seen = (first.0..).take(metas.len()).filter(is_seen).count();
        self.meters.published.add(env.now, seen as u64);
        let limits = env.limits;
        let idle = self.consumers.is_empty();
        let len_max = if idle { limits.window_idle_messages_max } else { limits.window_messages_max };
        let ordering = self.ordering;
        self.window.offer(first, metas.iter().map(|meta| known(*meta, ordering)), len_max);
    }

    /// Takes note of loaded messages; false when they were not waited for, or nothing came forward.
    pub(crate) fn loaded(&mut self, from: Seq, metas: &[(Seq, Meta)], next: Seq, env: &Env<'_>) -> bool {
        let last = env.durable.topics[&env.facts.topic].last;
        let ordering = self.ordering;
        let unacked = metas.iter().filter(|(seq, _)| !env.facts.acked.contains(*seq));
        let metas = unacked.map(|(seq, meta)| (*seq, known(*meta, ordering)));
        self.window.loaded(from, metas, next.min(last.next()), env.limits.window_messages_max)
    }

    pub(crate) fn attach(&mut self, id: ConsumerId, attach: Attach, env: &Env<'_>) {
        let mut consumer = Consumer::new(attach, env.limits, env.now);
        consumer.in_turn = true;
        self.consumers.insert(id, consumer);
        self.turn.push_back(id);
    }

    pub(crate) fn set_ack_deadline(&mut self, id: ConsumerId, ack_deadline: AckDeadline) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.ack_deadline = ack_deadline;
        }
    }

    /// Forgets a consumer. If its connection was lost, what it has comes back: at once, or after a while if that keeps
    /// happening. Gives the suspect that it had alone, which is out as before, for the caller to fail.
    pub(crate) fn detach(&mut self, id: ConsumerId, connection_lost: bool, env: &mut Env<'_>) -> Option<Seq> {
        let consumer = self.consumers.remove(&id)?;
        self.turn.retain(|other| *other != id);
        self.due.remove(&id);
        let mut keys: BTreeSet<KeyHash> = consumer.reserved.iter().filter_map(|seq| self.held[seq].meta.key).collect();
        if connection_lost {
            let is_out = |message: &Message| matches!(message.state, State::Out { consumer, .. } if consumer == id);
            let held = self.held.iter().rev().filter(|(_, message)| is_out(message));
            let returned: Vec<(Seq, Option<KeyHash>)> =
                held.take(consumer.messages() as usize).map(|(seq, message)| (seq, message.meta.key)).collect();
            for (seq, key) in returned {
                self.run.returned += 1;
                let until = self.lose(seq, env);
                if consumer.trial == Some(seq) {
                    continue;
                }
                if let Some(key) = key {
                    // From the newest to the oldest, so nothing later of the key is out any more.
                    self.key_recall(key, seq);
                    keys.insert(key);
                }
                let state = until.map_or(State::Waiting, |until| State::Delayed { until });
                self.shift(seq, state, env.timers);
            }
        }
        for key in keys {
            self.offer_key(key);
        }
        consumer.trial.filter(|_| connection_lost)
    }

    /// Takes back a message that is out and was never seen by its consumer, and with it the later ones of its key.
    pub(crate) fn give_back(&mut self, seq: Seq, timers: &mut Timers) {
        let Some(Message { meta: Meta { key, .. }, .. }) = self.held.get(&seq) else { return };
        let key = *key;
        if let Some(key) = key {
            self.recall_later(key, seq, timers);
        }
        self.shift(seq, State::Waiting, timers);
        self.run.returned += 1;
        if let Some(key) = key {
            self.offer_key(key);
        }
    }

    /// What a consumer has on leases after the one with the number `seen`, the newest message first.
    pub(crate) fn leased_after(&self, id: ConsumerId, seen: u64) -> Vec<Seq> {
        let Some(consumer) = self.consumers.get(&id) else { return Vec::new() };
        if consumer.lease_last <= seen {
            return Vec::new();
        }
        let lease_of = |(seq, message): (Seq, &Message)| match message.state {
            State::Out { lease, consumer, .. } if consumer == id => Some((seq, lease)),
            _ => None,
        };
        let has = self.held.iter().rev().filter_map(lease_of).take(consumer.messages() as usize);
        has.filter(|(_, lease)| *lease > seen).map(|(seq, _)| seq).collect()
    }

    fn recall_later(&mut self, key: KeyHash, seq: Seq, timers: &mut Timers) {
        for later in self.key_recall(key, seq) {
            self.shift(later, State::Waiting, timers);
            self.run.revoked += 1;
        }
    }

    /// What is known of a message and a lease of this run (`None`: of an earlier one).
    pub(crate) fn knowledge(&self, seq: Seq, lease: Option<u64>) -> Knowledge {
        match self.held.get(&seq) {
            Some(Message { state: State::Out { lease: current, .. }, .. }) if lease == Some(*current) => {
                Knowledge::Leased
            }
            Some(_) => Knowledge::Held,
            None if seq < self.window.first_unseen() => Knowledge::Gone,
            None => Knowledge::Unseen,
        }
    }

    /// Where an unacked message is.
    pub(crate) fn state(&self, seq: Seq, failure: Option<&Failure>, now: Time) -> MessageState {
        match self.held.get(&seq).map(|message| message.state) {
            Some(State::Out { deadline, .. }) => MessageState::Outstanding(deadline),
            Some(State::Delayed { until }) => MessageState::Delayed(until),
            Some(State::Forwarding) => MessageState::Forwarding,
            Some(State::Waiting) => MessageState::Waiting,
            None => match failure {
                Some(failure) if failure.not_before > now => MessageState::Delayed(failure.not_before),
                _ => MessageState::Waiting,
            },
        }
    }

    pub(crate) fn is_forwarding(&self, seq: Seq) -> bool {
        self.held.get(&seq).is_some_and(|message| message.state == State::Forwarding)
    }

    /// What the timer of a message stands for.
    pub(crate) fn ended(&self, seq: Seq) -> Option<Ended> {
        match self.held.get(&seq)?.state {
            State::Out { .. } => Some(Ended::Lease),
            State::Delayed { .. } => Some(Ended::Delay),
            State::Waiting | State::Forwarding => None,
        }
    }

    /// Moves the deadline of a lease that stands.
    pub(crate) fn extend(&mut self, seq: Seq, deadline: Time, timers: &mut Timers) {
        if let Some(Message { state: State::Out { deadline: current, .. }, .. }) = self.held.get_mut(&seq) {
            timers.remove(*current, self.id, seq);
            timers.insert(deadline, self.id, seq);
            *current = deadline;
        }
    }

    /// Lets go of a message that a lease has acked, and remembers up to `remembered_max` such leases. Gives its size if it
    /// was held.
    pub(crate) fn ack(
        &mut self,
        seq: Seq,
        lease: u64,
        remembered_max: usize,
        now: Time,
        timers: &mut Timers,
    ) -> Option<u32> {
        self.meters.acked.add(now, 1);
        if let Some(Message { state: State::Out { consumer, lease: current, .. }, .. }) = self.held.get(&seq)
            && *current == lease
            && let Some(consumer) = self.consumers.get_mut(consumer)
        {
            consumer.has_acked = true;
        }
        if remembered_max > 0 {
            self.acked_by.insert(seq, lease);
            self.acked_last.push_back(seq);
        }
        while self.acked_last.len() > remembered_max {
            let oldest = self.acked_last.pop_front();
            oldest.and_then(|seq| self.acked_by.remove(&seq));
        }
        self.settle(seq, timers)
    }

    /// Whether it is remembered that just this lease acked the message.
    pub(crate) fn was_acked_by(&self, seq: Seq, lease: u64) -> bool {
        self.acked_by.get(&seq) == Some(&lease)
    }

    /// Lets go of a message that is settled, in whatever state it is. Gives its size if it was held.
    pub(crate) fn settle(&mut self, seq: Seq, timers: &mut Timers) -> Option<u32> {
        let message = self.held.remove(&seq)?;
        self.unmark(seq, message, timers);
        if let Some(key) = message.meta.key {
            self.key_settled(key, seq);
        }
        Some(message.meta.bytes)
    }

    /// Lets go of all messages before one.
    pub(crate) fn cut(&mut self, before: Seq, timers: &mut Timers) {
        let settled: Vec<Seq> = self.held.iter().map(|(seq, _)| seq).take_while(|seq| *seq < before).collect();
        for seq in settled {
            self.settle(seq, timers);
        }
    }

    /// Begins anew where the subscription stands now. The consumers stay, with nothing out.
    pub(crate) fn restart(&mut self, env: &mut Env<'_>) {
        let mut before = std::mem::replace(self, Queue::new(self.id, env.facts));
        self.consumers = std::mem::take(&mut before.consumers);
        self.consumers.values_mut().for_each(Consumer::reset);
        self.turn = self.consumers.keys().copied().collect();
        self.dispatches = before.dispatches;
        self.run = before.run;
        self.meters = before.meters;
        before.close(env.timers);
    }

    /// Takes back a message whose failed attempt was written down, and with it the later ones of its key.
    pub(crate) fn fail(&mut self, seq: Seq, reason: FailReason, env: &mut Env<'_>) {
        let Some(message) = self.held.get_mut(&seq) else { return };
        if reason != FailReason::Lost {
            // Its consumer has lived through it.
            message.losses = 0;
        }
        if let Some(key) = message.meta.key {
            self.recall_later(key, seq, env.timers);
        }
        self.rest(seq, false, env);
    }

    /// Finds the state of a held message that is not out: by its failures alone, so a restart comes to the same.
    pub(crate) fn rest(&mut self, seq: Seq, delay_is_over: bool, env: &mut Env<'_>) {
        let mut state = State::Waiting;
        if let Some(failure) = env.facts.failures.get(&seq) {
            match &env.facts.config.dead_letter {
                Some(policy) if failure.attempts >= policy.attempts_max() => {
                    if let Some(to) = env.durable.topic_names.get(policy.topic()) {
                        env.out.effects.push(Effect::Forward {
                            subscription: self.id,
                            topic: env.facts.topic,
                            seq,
                            to: *to,
                            attempts: failure.attempts,
                            reason: failure.reason,
                        });
                        state = State::Forwarding;
                    } else {
                        self.run.forward_retries += 1;
                        state = State::Delayed { until: env.now.plus_ms(u64::from(env.limits.forward_retry_ms)) };
                    }
                }
                _ if failure.not_before > env.now && !delay_is_over => {
                    // A clock that was set back between two runs must not make it wait longer than a backoff can last.
                    let latest = env.now.plus_ms(u64::from(BACKOFF_MS_MAX));
                    state = State::Delayed { until: failure.not_before.min(latest) };
                }
                _ => {}
            }
        }
        self.shift(seq, state, env.timers);
        if let Some(key) = self.held[&seq].meta.key {
            self.offer_key(key);
        }
    }

    /// Forgets everything, as the subscription is deleted.
    pub(crate) fn close(mut self, timers: &mut Timers) {
        self.sleep(None, timers);
        for (seq, message) in self.held.iter() {
            if let State::Out { deadline: at, .. } | State::Delayed { until: at } = message.state {
                timers.remove(at, self.id, seq);
            }
        }
    }

    fn shift(&mut self, seq: Seq, to: State, timers: &mut Timers) {
        let message = self.held.get_mut(&seq).expect("only a held message changes its state");
        let from = *message;
        message.state = to;
        let to = *message;
        self.unmark(seq, from, timers);
        self.mark(seq, to, timers);
    }

    /// Enters a state everywhere but in the message itself and the rows of its key.
    fn mark(&mut self, seq: Seq, message: Message, timers: &mut Timers) {
        let Message { meta, state, losses } = message;
        match state {
            State::Waiting => {
                self.counts.waiting += 1;
                if meta.key.is_none() {
                    self.put_up(seq, losses);
                }
            }
            State::Out { consumer, deadline, .. } => {
                self.counts.out += 1;
                self.counts.out_bytes += u64::from(meta.bytes);
                timers.insert(deadline, self.id, seq);
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.take(meta.bytes);
                }
            }
            State::Delayed { until } => {
                self.counts.delayed += 1;
                timers.insert(until, self.id, seq);
            }
            State::Forwarding => self.counts.forwarding += 1,
        }
    }

    /// Undoes [`Queue::mark`].
    fn unmark(&mut self, seq: Seq, message: Message, timers: &mut Timers) {
        let Message { meta, state, losses } = message;
        match state {
            State::Waiting => {
                self.counts.waiting -= 1;
                if meta.key.is_none() {
                    self.take_down(seq, losses);
                }
            }
            State::Out { consumer: id, deadline, .. } => {
                self.counts.out -= 1;
                self.counts.out_bytes -= u64::from(meta.bytes);
                timers.remove(deadline, self.id, seq);
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.give_back(meta.bytes);
                    consumer.trial = consumer.trial.filter(|trial| *trial != seq);
                    if !consumer.in_turn {
                        consumer.in_turn = true;
                        self.turn.push_back(id);
                    }
                    if !consumer.reserved.is_empty() {
                        self.due.insert(id);
                    }
                }
            }
            State::Delayed { until } => {
                self.counts.delayed -= 1;
                timers.remove(until, self.id, seq);
            }
            State::Forwarding => self.counts.forwarding -= 1,
        }
    }
}

impl Env<'_> {
    fn lease(&mut self) -> LeaseId {
        *self.lease_last += 1;
        LeaseId { epoch: self.durable.epoch, number: *self.lease_last }
    }
}

/// A message as the subscription looks at it: without ordering, keys do not count.
fn known(meta: Meta, ordering: bool) -> Meta {
    Meta { key: meta.key.filter(|_| ordering), ..meta }
}
