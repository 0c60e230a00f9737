//! Leases end: by an ack, by a nack, by the passing of their deadline.

use super::Broker;
use crate::config::{ACK_DEADLINE_MS_MAX, RetryPolicy};
use crate::error::Error;
use crate::ids::{Seq, SubscriptionId, Time};
use crate::names::SubscriptionName;
use crate::output::{AckOutcome, AckRef, ModifyOutcome, Output};
use crate::queue::{Ended, Knowledge, suspect_backoff_ms};
use crate::record::{FailReason, Record, SeqRange};

impl Broker {
    /// Acks messages; the outcomes stand in the order of the refs.
    ///
    /// Without ordering, a lease that has ended still acks a message that nobody has acked, even while it is out on
    /// another lease: the work is done, and delivering it once more helps nobody. With ordering it does not, since
    /// the message may have gone back to wait behind an earlier one; with exactly-once delivery it does not, since
    /// another consumer may be at work on it; and after a seek it does not, since the message is wanted again.
    pub fn handle_ack(
        &mut self,
        subscription: &SubscriptionName,
        acks: &[AckRef],
        now: Time,
        out: &mut Output,
    ) -> Result<Vec<AckOutcome>, Error> {
        let id = self.attached_id(subscription)?;
        let exactly_once = self.durable.subscriptions[&id].config.exactly_once;
        let remembered_max = if exactly_once { self.limits.acks_remembered_max } else { 0 };
        let mut settled = std::mem::take(&mut self.scratch);
        let mut bytes = Some(0);
        let mut outcomes = Vec::with_capacity(acks.len());
        for ack in acks {
            let outcome = self.judge(id, ack, &settled);
            if outcome == AckOutcome::Acked {
                settled.push(ack.seq);
                if let Some(queue) = self.queues.get_mut(&id) {
                    let acked = queue.ack(ack.seq, ack.lease.number, remembered_max, now, &mut self.timers);
                    bytes = bytes.zip(acked).map(|(bytes, acked)| bytes + u64::from(acked));
                }
            }
            outcomes.push(outcome);
        }
        if !settled.is_empty() {
            settled.sort_unstable();
            self.record(Record::Acked { subscription: id, ranges: SeqRange::all(&settled), bytes }, out);
            self.dispatch(id, now, out);
        }
        self.touch(id, now, out);
        settled.clear();
        self.scratch = settled;
        Ok(outcomes)
    }

    /// Moves the deadline of leases to `deadline_ms` from now, at most [`crate::ACK_DEADLINE_MS_MAX`]; 0 gives the
    /// messages back as failed. The outcomes stand in the order of the refs. Of several messages of one ordering key
    /// that are given back together, only the first counts as failed.
    pub fn handle_modify(
        &mut self,
        subscription: &SubscriptionName,
        refs: &[AckRef],
        deadline_ms: u32,
        now: Time,
        out: &mut Output,
    ) -> Result<Vec<ModifyOutcome>, Error> {
        let id = self.attached_id(subscription)?;
        if deadline_ms > ACK_DEADLINE_MS_MAX {
            let why = format!("{deadline_ms} ms is not within 0 to {ACK_DEADLINE_MS_MAX} ms");
            return Err(Error::InvalidArgument { field: "ack_deadline_seconds", why });
        }
        self.touch(id, now, out);
        let mut outcomes = vec![ModifyOutcome::Stale; refs.len()];
        if deadline_ms > 0 {
            let deadline = now.plus_ms(u64::from(deadline_ms));
            for (outcome, lease) in outcomes.iter_mut().zip(refs) {
                if !self.is_leased(id, lease) {
                    continue;
                }
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.extend(lease.seq, deadline, &mut self.timers);
                    *outcome = ModifyOutcome::Extended;
                }
            }
            return Ok(outcomes);
        }
        let mut order: Vec<usize> = (0..refs.len()).collect();
        order.sort_by_key(|index| refs[*index].seq);
        for index in order {
            if self.is_leased(id, &refs[index]) {
                self.fail(id, refs[index].seq, FailReason::Nacked, now, out);
                outcomes[index] = ModifyOutcome::Nacked;
            }
        }
        self.dispatch(id, now, out);
        Ok(outcomes)
    }

    /// Takes back messages that were delivered here and never reached their consumer: no attempt is counted. Leases that
    /// have ended are passed over.
    pub fn handle_give_back(&mut self, refs: &[AckRef], now: Time, out: &mut Output) {
        let mut order: Vec<&AckRef> = refs.iter().collect();
        // From the newest to the oldest, so that none takes another one of the list back along with it.
        order.sort_by_key(|lease| std::cmp::Reverse((lease.subscription, lease.seq)));
        for run in order.chunk_by(|one, other| one.subscription == other.subscription) {
            let id = run[0].subscription;
            if !self.queues.contains_key(&id) {
                continue;
            }
            for lease in run {
                if self.is_leased(id, lease)
                    && let Some(queue) = self.queues.get_mut(&id)
                {
                    queue.give_back(lease.seq, &mut self.timers);
                }
            }
            self.dispatch(id, now, out);
        }
    }

    /// Ends the leases and delays that are due, at most [`crate::Limits::timeouts_max`] of them, and deletes the
    /// subscriptions and snapshots that expire.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Output) {
        self.expire(now, out);
        let mut touched: Vec<SubscriptionId> = Vec::new();
        for _ in 0..self.limits.timeouts_max {
            let Some((id, seq)) = self.timers.pop_due(now) else { break };
            if touched.last() != Some(&id) {
                touched.push(id);
            }
            match self.queues.get(&id).and_then(|queue| queue.ended(seq)) {
                Some(Ended::Lease) => self.fail(id, seq, FailReason::Expired, now, out),
                Some(Ended::Delay) => {
                    if let Some((queue, mut env)) = self.queue(id, now, out) {
                        queue.rest(seq, true, &mut env);
                    }
                }
                None => {}
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.dispatch(id, now, out);
        }
    }

    /// What an ack comes to after those that the same call has settled already.
    fn judge(&self, id: SubscriptionId, ack: &AckRef, settled: &[Seq]) -> AckOutcome {
        let state = &self.durable.subscriptions[&id];
        let ours = ack.subscription == id
            && (1..=self.durable.topics[&state.topic].last.0).contains(&ack.seq.0)
            && ack.lease.number > 0
            && (1..=self.durable.epoch).contains(&ack.lease.epoch);
        let this_run = ack.lease.epoch == self.durable.epoch;
        if !ours || (this_run && ack.lease.number > self.lease_last) {
            return AckOutcome::Unknown;
        }
        let queue = &self.queues[&id];
        let lease = this_run.then_some(ack.lease.number);
        // A second ack on the lease that acked is none the worse for it; one on another lease has not been the ack.
        let by_another = state.config.exactly_once && this_run && !queue.was_acked_by(ack.seq, ack.lease.number);
        let already = if by_another { AckOutcome::Stale } else { AckOutcome::AlreadyAcked };
        if state.acked.contains(ack.seq) {
            return already;
        }
        let is_over = ack.lease <= state.leases_over;
        let strict = state.config.ordering || state.config.exactly_once || is_over;
        match queue.knowledge(ack.seq, lease) {
            Knowledge::Leased => AckOutcome::Acked,
            Knowledge::Gone => already,
            Knowledge::Unseen if this_run && !is_over => AckOutcome::Unknown,
            // Only leases of an earlier run come here, so the search is rare.
            Knowledge::Unseen if settled.contains(&ack.seq) => AckOutcome::AlreadyAcked,
            Knowledge::Held | Knowledge::Unseen if strict => AckOutcome::Stale,
            Knowledge::Held | Knowledge::Unseen => AckOutcome::Acked,
        }
    }

    fn is_leased(&self, id: SubscriptionId, lease: &AckRef) -> bool {
        let this_run = lease.lease.epoch == self.durable.epoch;
        let number = this_run.then_some(lease.lease.number);
        lease.subscription == id && self.queues[&id].knowledge(lease.seq, number) == Knowledge::Leased
    }

    /// Counts a failed attempt of a message that is out, and takes the message back.
    pub(super) fn fail(&mut self, id: SubscriptionId, seq: Seq, reason: FailReason, now: Time, out: &mut Output) {
        let state = &self.durable.subscriptions[&id];
        let attempts = state.failures.get(&seq).map_or(0, |failure| failure.attempts).saturating_add(1);
        let mut delay_ms = state.config.retry.map_or(0, |policy| backoff_ms(policy, attempts, &mut self.rng));
        if reason == FailReason::Lost {
            delay_ms = delay_ms.max(suspect_backoff_ms(self.queues[&id].losses(seq)));
        }
        let not_before = now.plus_ms(delay_ms);
        self.record(Record::Failed { subscription: id, seq, attempts, not_before, reason }, out);
        if let Some((queue, mut env)) = self.queue(id, now, out) {
            queue.fail(seq, reason, &mut env);
        }
    }
}

/// The delay after the `attempts`th failed attempt, with up to a quarter of jitter, so that what failed together does
/// not come back together.
fn backoff_ms(policy: RetryPolicy, attempts: u32, rng: &mut fastrand::Rng) -> u64 {
    let max = u64::from(policy.backoff_ms_max());
    let doublings = attempts.saturating_sub(1).min(u32::BITS);
    let base = (u64::from(policy.backoff_ms_min()) << doublings).min(max);
    (base + rng.u64(0..=base / 4)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_with_jitter_up_to_its_cap() {
        let policy = RetryPolicy::new(100, 1_000).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            for (attempts, least, most) in
                [(1, 100, 125), (2, 200, 250), (4, 800, 1_000), (5, 1_000, 1_000), (u32::MAX, 1_000, 1_000)]
            {
                let delay_ms = backoff_ms(policy, attempts, &mut rng);
                assert!((least..=most).contains(&delay_ms), "{delay_ms} ms after {attempts} attempts");
            }
        }
        let mut seen: Vec<u64> = (0..200).map(|_| backoff_ms(policy, 1, &mut rng)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 10, "the jitter spreads: {seen:?}");
    }
}
