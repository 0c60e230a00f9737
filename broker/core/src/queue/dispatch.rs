//! Who gets what next.
//!
//! Redeliveries go before first deliveries, each in the order of publication. Consumers with credit take turns; each
//! turn takes an equal share of what is at hand, in one piece, so that its bodies are read in one piece too.

use super::suspects::losses_before;
use super::{Env, Message, Queue, State};
use crate::ids::{ConsumerId, Meta, Seq};
use crate::output::{ConsumerKind, Delivery, Effect};

/// What came of offering the next message to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Delivered,
    /// There is one, but the consumer has no room for it.
    NoRoom,
    /// There is none that any consumer could take.
    Nothing,
}

impl Queue {
    /// Delivers all that can be delivered, and asks for more to deliver when that runs low.
    pub(crate) fn dispatch(&mut self, env: &mut Env<'_>) {
        self.dispatches += 1;
        self.serve_trials(env);
        self.serve_due(env);
        self.serve_turns(env);
        // The window may have held suspects of an earlier run.
        self.serve_trials(env);
        self.serve_pull_trials(env);
        while let Some(pull) = self.pulls_served.pop() {
            self.detach(pull, false, env);
            env.consumers.remove(&pull);
        }
        self.refill(env);
    }

    /// Lets consumers take what only they may take.
    fn serve_due(&mut self, env: &mut Env<'_>) {
        while self.counts.out < env.limits.outstanding_messages_max {
            let Some(id) = self.due.first().copied() else { return };
            let head = self.consumers.get(&id).and_then(|consumer| {
                let head = consumer.reserved.first().copied()?;
                consumer.fits(self.held[&head].meta.bytes).then_some(head)
            });
            match head {
                Some(head) => self.redeliver(id, head, env),
                None => {
                    self.due.remove(&id);
                }
            }
        }
    }

    /// Lets consumers take turns until nothing is left, or nobody has room for what is next.
    fn serve_turns(&mut self, env: &mut Env<'_>) {
        let mut passed = 0;
        let mut round = 0;
        let mut share = 0;
        while passed < self.turn.len() {
            if round == 0 {
                round = self.turn.len();
                share = (self.ready.len() + self.window.len()).div_ceil(round).max(1);
            }
            round -= 1;
            let Some(id) = self.turn.front().copied() else { return };
            let Some(consumer) = self.consumers.get_mut(&id) else { return };
            if !consumer.has_credit() {
                consumer.in_turn = false;
                self.turn.pop_front();
                continue;
            }
            let mut given = Given::Nothing;
            let mut count = 0;
            while count < share {
                given = self.give_next(id, env);
                if given != Given::Delivered {
                    break;
                }
                count += 1;
            }
            if count > 0 || given == Given::NoRoom {
                self.turn.rotate_left(1);
            }
            if given == Given::Nothing {
                return;
            }
            passed = if count > 0 { 0 } else { passed + 1 };
        }
    }

    /// Offers a consumer the next message that any consumer may take.
    fn give_next(&mut self, id: ConsumerId, env: &mut Env<'_>) -> Given {
        loop {
            if self.counts.out >= env.limits.outstanding_messages_max {
                return Given::Nothing;
            }
            if let Some(seq) = self.ready.first().copied() {
                if !self.consumers[&id].fits(self.held[&seq].meta.bytes) {
                    return Given::NoRoom;
                }
                self.redeliver(id, seq, env);
                self.serve_due(env);
                return Given::Delivered;
            }
            let Some((seq, meta)) = self.window.front() else { return Given::Nothing };
            if env.facts.acked.contains(seq) {
                self.window.pop_front();
                continue;
            }
            if self.is_stalled(env) {
                return Given::Nothing;
            }
            let failed = !env.facts.failures.is_empty() && env.facts.failures.contains_key(&seq);
            let blocked = meta.key.and_then(|key| self.keys.get(&key)).is_some_and(|key| !key.admits(id));
            if failed || blocked {
                self.hold(seq, meta, env);
                self.serve_due(env);
                continue;
            }
            if !self.consumers[&id].fits(meta.bytes) {
                return Given::NoRoom;
            }
            self.window.pop_front();
            let message = Message { meta, state: self.send(id, seq, meta, env), losses: 0 };
            self.held.insert(seq, message);
            self.mark(seq, message, env.timers);
            if let Some(key) = meta.key {
                self.key_sent(key, seq, id);
            }
            return Given::Delivered;
        }
    }

    /// Whether first deliveries must wait, so that what is held stays within its limits.
    fn is_stalled(&self, env: &Env<'_>) -> bool {
        self.counts.delayed + self.counts.forwarding >= env.limits.delayed_messages_max
            || self.counts.waiting >= env.limits.parked_messages_max
    }

    /// Takes the first message out of the window without delivering it: it failed in an earlier run, or it stands
    /// behind earlier ones of its key.
    fn hold(&mut self, seq: Seq, meta: Meta, env: &mut Env<'_>) {
        self.window.pop_front();
        let message = Message { meta, state: State::Waiting, losses: losses_before(env.facts.failures.get(&seq)) };
        self.held.insert(seq, message);
        self.mark(seq, message, env.timers);
        if let Some(key) = meta.key {
            self.key_mut(key).waiting.push_back(seq);
        }
        self.rest(seq, false, env);
    }

    /// Delivers a held message that waits for its turn.
    pub(super) fn redeliver(&mut self, id: ConsumerId, seq: Seq, env: &mut Env<'_>) {
        let meta = self.held[&seq].meta;
        let state = self.send(id, seq, meta, env);
        self.shift(seq, state, env.timers);
        if let Some(key) = meta.key {
            self.key_sent(key, seq, id);
        }
    }

    /// Puts out a delivery and gives the state that follows from it.
    fn send(&mut self, id: ConsumerId, seq: Seq, meta: Meta, env: &mut Env<'_>) -> State {
        let lease = env.lease();
        let attempt = env.facts.failures.get(&seq).map_or(0, |failure| failure.attempts).saturating_add(1);
        let delivery = Delivery { seq, lease, attempt, bytes: meta.bytes };
        self.run.delivered += 1;
        self.meters.delivered.add(env.now, 1);
        let consumer = self.consumers.get_mut(&id).expect("only an attached consumer is delivered to");
        consumer.lease_last = lease.number;
        let started = consumer.delivery.filter(|(dispatch, _)| *dispatch == self.dispatches);
        let effect = started.and_then(|(_, index)| env.out.effects.get_mut(index));
        if let Some(Effect::Deliver { messages, .. }) = effect {
            messages.push(delivery);
        } else {
            consumer.delivery = Some((self.dispatches, env.out.effects.len()));
            env.out.effects.push(Effect::Deliver {
                consumer: id,
                subscription: self.id,
                topic: env.facts.topic,
                messages: vec![delivery],
            });
            if consumer.kind == ConsumerKind::Pull {
                self.pulls_served.push(id);
            }
        }
        let deadline = env.now.plus_ms(u64::from(consumer.ack_deadline.ms()));
        State::Out { lease: lease.number, consumer: id, deadline }
    }

    /// Asks for the next messages when less than half of the window is left.
    fn refill(&mut self, env: &mut Env<'_>) {
        let len_max = env.limits.window_messages_max;
        if self.consumers.is_empty() || self.window.is_loading() || self.window.len() > len_max / 2 {
            return;
        }
        let last = env.durable.topics[&env.facts.topic].last;
        if self.window.next() > last {
            return;
        }
        let from = env.facts.acked.next_unsettled(self.window.next());
        if from > last {
            self.window.skip_to(from);
            return;
        }
        self.window.start_load(from);
        env.out.effects.push(Effect::Load {
            subscription: self.id,
            topic: env.facts.topic,
            from,
            messages_max: len_max - self.window.len(),
        });
    }
}
