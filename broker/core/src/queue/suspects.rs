//! Messages that may be what kills their consumers.
//!
//! A connection that is lost says little about the messages that were out on it: it may be an outage. But a message that
//! connections are lost with again and again is a *suspect*. It is tried alone, on a stream that has shown that it lives,
//! so that the end of that stream can be held against nothing else.

use std::collections::BTreeSet;

use super::{Env, Queue};
use crate::ids::{ConsumerId, Seq, Time};
use crate::limits::{LOSSES_MAX, SUSPECT_BACKOFF_MS_MAX, SUSPECT_BACKOFF_MS_MIN, TRIAL_DRAIN_MS};
use crate::output::ConsumerKind;
use crate::record::FailReason;
use crate::snapshot::Failure;
use crate::timers::Timers;

/// The suspects of a subscription, and what is done to try them.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// Those that any stream may take, the ones with the fewest losses first, so that a killer does not keep good
    /// messages waiting.
    waiting: BTreeSet<(u32, Seq)>,
    /// The stream that is kept from new messages, and until when.
    draining: Option<(ConsumerId, Time)>,
    /// No stream is kept from new messages before.
    drain_after: Time,
    /// When to look again.
    wake: Option<Time>,
}

/// Whether a message with which so many connections in a row were lost is tried alone.
pub(super) fn is_suspect(losses: u32) -> bool {
    losses >= LOSSES_MAX
}

/// How long a suspect waits after its latest loss.
pub(crate) fn suspect_backoff_ms(losses: u32) -> u64 {
    let doublings = losses.saturating_sub(LOSSES_MAX).min(u32::BITS);
    (SUSPECT_BACKOFF_MS_MIN << doublings).min(SUSPECT_BACKOFF_MS_MAX)
}

/// The losses that are known of a message from an earlier run.
pub(super) fn losses_before(failure: Option<&Failure>) -> u32 {
    let lost = failure.filter(|failure| failure.reason == FailReason::Lost);
    lost.map_or(0, |failure| failure.attempts.saturating_add(LOSSES_MAX))
}

impl Queue {
    /// How many connections in a row were lost with a message.
    pub(crate) fn losses(&self, seq: Seq) -> u32 {
        self.held.get(&seq).map_or(0, |message| message.losses)
    }

    /// How many suspects wait to be tried, or are.
    pub(super) fn suspects(&self) -> usize {
        self.trials.waiting.len() + self.consumers.values().filter(|consumer| consumer.trial.is_some()).count()
    }

    /// Offers a waiting message to any consumer that may have it.
    pub(super) fn put_up(&mut self, seq: Seq, losses: u32) {
        if is_suspect(losses) {
            self.trials.waiting.insert((losses, seq));
        } else {
            self.ready.insert(seq);
        }
    }

    /// Undoes [`Queue::put_up`].
    pub(super) fn take_down(&mut self, seq: Seq, losses: u32) {
        if is_suspect(losses) {
            self.trials.waiting.remove(&(losses, seq));
        } else {
            self.ready.remove(&seq);
        }
    }

    /// Counts that a connection was lost with a message; gives until when the message waits, if it is a suspect now.
    pub(super) fn lose(&mut self, seq: Seq, env: &Env<'_>) -> Option<Time> {
        let message = self.held.get_mut(&seq)?;
        message.losses = message.losses.saturating_add(1);
        let retry_ms = env.facts.config.retry.map_or(0, |policy| u64::from(policy.backoff_ms_min()));
        let wait_ms = suspect_backoff_ms(message.losses).max(retry_ms);
        is_suspect(message.losses).then(|| env.now.plus_ms(wait_ms))
    }

    /// Gives suspects to streams that have nothing else and have shown that they live, and sees to it that there is one.
    /// At most half of the consumers are busy with suspects at a time.
    pub(super) fn serve_trials(&mut self, env: &mut Env<'_>) {
        if self.trials.waiting.is_empty() {
            if self.trials.draining.is_some() || self.trials.wake.is_some() {
                self.end_drain();
                self.sleep(None, env.timers);
            }
            return;
        }
        let Candidates { mut empty, busy, mut room, mut wake } = self.candidates(env.now);
        while room > 0
            && self.counts.out < env.limits.outstanding_messages_max
            && let Some((_, seq)) = self.trials.waiting.first().copied()
            && let Some(id) = empty.pop()
        {
            self.try_alone(id, seq, env);
            room -= 1;
        }
        if self.trials.draining.is_some_and(|(id, until)| until <= env.now || !self.consumers.contains_key(&id)) {
            self.end_drain();
            self.trials.drain_after = env.now.plus_ms(TRIAL_DRAIN_MS);
        }
        let wanted = room > 0 && !self.trials.waiting.is_empty();
        if !wanted {
            self.end_drain();
        } else if let Some((_, until)) = self.trials.draining {
            wake = Some(wake.map_or(until, |wake| wake.min(until)));
        } else if let Some(id) = busy {
            let at = if env.now >= self.trials.drain_after {
                self.start_drain(id, env.now)
            } else {
                self.trials.drain_after
            };
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        self.sleep(wake, env.timers);
    }

    /// Gives a suspect to each pull that got nothing else. How a pull ends is never held against its message, so it need
    /// not show first that it lives.
    pub(super) fn serve_pull_trials(&mut self, env: &mut Env<'_>) {
        if self.trials.waiting.is_empty() {
            return;
        }
        let is_open = |(id, consumer): &(&ConsumerId, &super::Consumer)| {
            consumer.kind == ConsumerKind::Pull && !self.pulls_served.contains(id)
        };
        let pulls: Vec<ConsumerId> = self.consumers.iter().filter(is_open).map(|(id, _)| *id).collect();
        for id in pulls {
            let Some((_, seq)) = self.trials.waiting.first().copied() else { return };
            if self.counts.out < env.limits.outstanding_messages_max {
                self.try_alone(id, seq, env);
            }
        }
    }

    fn try_alone(&mut self, id: ConsumerId, seq: Seq, env: &mut Env<'_>) {
        self.redeliver(id, seq, env);
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.trial = Some(seq);
        }
        if self.trials.draining.is_some_and(|(draining, _)| draining == id) {
            self.end_drain();
        }
    }

    fn candidates(&self, now: Time) -> Candidates {
        let mut found =
            Candidates { empty: Vec::new(), busy: None, room: self.consumers.len().div_ceil(2), wake: None };
        let mut least = u32::MAX;
        for (id, consumer) in &self.consumers {
            if consumer.trial.is_some() {
                found.room = found.room.saturating_sub(1);
            } else if consumer.kind == ConsumerKind::Pull {
            } else if consumer.sound_at() > now {
                let at = consumer.sound_at();
                found.wake = Some(found.wake.map_or(at, |wake| wake.min(at)));
            } else if consumer.messages() == 0 {
                found.empty.push(*id);
            } else if consumer.messages() < least {
                least = consumer.messages();
                found.busy = Some(*id);
            }
        }
        found
    }

    fn start_drain(&mut self, id: ConsumerId, now: Time) -> Time {
        let until = now.plus_ms(TRIAL_DRAIN_MS);
        self.trials.draining = Some((id, until));
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.draining = true;
        }
        until
    }

    /// Lets the stream that was kept from new messages have some again.
    fn end_drain(&mut self) {
        let Some((id, _)) = self.trials.draining.take() else { return };
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        consumer.draining = false;
        if !consumer.in_turn {
            consumer.in_turn = true;
            self.turn.push_back(id);
        }
        if !consumer.reserved.is_empty() {
            self.due.insert(id);
        }
    }

    /// Has the subscription looked at again at `wake`, and at no other time that was set here before.
    pub(super) fn sleep(&mut self, wake: Option<Time>, timers: &mut Timers) {
        if self.trials.wake == wake {
            return;
        }
        if let Some(before) = std::mem::replace(&mut self.trials.wake, wake) {
            timers.remove(before, self.id, Seq::ZERO);
        }
        if let Some(wake) = wake {
            timers.insert(wake, self.id, Seq::ZERO);
        }
    }
}

/// Which consumers can try suspects.
struct Candidates {
    /// Streams that can be given one now.
    empty: Vec<ConsumerId>,
    /// The stream that would be the first to run empty.
    busy: Option<ConsumerId>,
    /// How many more may be tried at the same time.
    room: usize,
    /// When the next stream will have shown that it lives.
    wake: Option<Time>,
}
