//! What the broker says about itself, held against the model.

use broker_core::*;

use super::World;

impl World {
    /// Asserts that a replay comes to the same state as the calls did, and that it is the right one.
    pub(crate) fn check_replay(&self) {
        let snapshot = self.broker.snapshot();
        assert_eq!(self.recover().snapshot(), snapshot);
        assert_eq!(snapshot.subscriptions.len(), self.model.subscriptions.len());
        for state in &snapshot.subscriptions {
            self.check_peek(state.id);
            let expected = &self.model.subscriptions[&state.id];
            let failures = state.failures.iter().map(|(seq, failure)| (seq.0, (failure.attempts, failure.not_before)));
            assert!(
                failures
                    .eq(expected.failures.iter().map(|(seq, failure)| (*seq, (failure.attempts, failure.not_before))))
            );
            for seq in (1..=self.model.topics[&state.topic].last).map(Seq) {
                assert_eq!(state.acked.contains(seq), self.model.is_settled(state.id, seq), "{seq}");
            }
        }
    }

    /// Asserts that a look at the backlog shows all of it, and each message where it is.
    fn check_peek(&self, id: SubscriptionId) {
        let state = &self.model.subscriptions[&id];
        let shown = self.broker.peek(&state.config.name, Seq::ZERO, usize::MAX, self.now);
        assert_eq!(shown.is_err(), state.detached);
        let shown = shown.unwrap_or_default();
        assert!(shown.iter().map(|peeked| peeked.seq.0).eq(self.model.unacked(id)), "all is shown, in order");
        let mut outstanding = 0;
        for Peeked { seq, state: shown, failure } in shown {
            assert_eq!(failure.map_or(0, |failure| failure.attempts), self.model.attempts(id, seq));
            let lease = self.run.leases.get(&(id, seq));
            match shown {
                MessageState::Outstanding(until) => {
                    outstanding += 1;
                    assert_eq!(lease.map(|lease| lease.deadline), Some(until));
                }
                _ => assert!(lease.is_none(), "{seq} is out"),
            }
        }
        assert_eq!(self.broker.stats(id, self.now).unwrap().outstanding_messages, outstanding);
    }

    /// Asserts that what the broker says about itself is so, and that it keeps within its limits.
    pub(super) fn check_figures(&self) {
        assert!(self.broker.subscription_ids().eq(self.model.subscriptions.keys().copied()));
        for id in self.broker.subscription_ids() {
            let stats = self.broker.stats(id, self.now).unwrap();
            let leases = self.run.leases.iter().filter(|((subscription, _), _)| *subscription == id);
            let consumers = self.run.consumers.values().filter(|attached| attached.subscription == id);
            assert_eq!(stats.outstanding_messages, leases.clone().count());
            assert_eq!(stats.outstanding_bytes, leases.map(|(_, lease)| u64::from(lease.bytes)).sum::<u64>());
            assert_eq!(stats.consumers, consumers.count());
            assert_eq!(stats.backlog_messages, self.model.backlog(id));
            let state = &self.model.subscriptions[&id];
            assert_eq!(stats.totals.dead_lettered, state.forwarded);
            assert_eq!((stats.totals.filtered, stats.totals.too_old), (state.filtered_count, state.too_old));
            assert_eq!(stats.totals.redriven, state.redriven);
            assert!(stats.backlog_bytes_exact || stats.backlog_messages > 0);
            if stats.backlog_bytes_exact {
                let bytes = self.model.unacked(id).map(|seq| u64::from(self.metas[&(state.topic, Seq(seq))].bytes));
                assert_eq!(stats.backlog_bytes, bytes.sum::<u64>());
            }
            assert_eq!(stats.oldest_unacked, self.model.unacked(id).next().map(Seq));
            assert!(stats.outstanding_messages <= self.limits.outstanding_messages_max);
            assert!(stats.window_messages <= self.limits.window_messages_max);
            let held = stats.outstanding_messages
                + stats.delayed_messages
                + stats.forwarding_messages
                + stats.parked_messages
                + stats.window_messages;
            assert!(held <= self.limits.held_messages_max(), "{held} messages are held");
        }
        for (topic, state) in &self.model.topics {
            if let Some(stats) = self.broker.topic_stats(*topic, self.now) {
                assert_eq!(stats.published_messages, state.last);
            }
            let floor = self.broker.topic_floor(*topic).unwrap_or(Seq(state.last));
            for seq in (1..=state.last).map(Seq) {
                let needed = self.model.is_needed(*topic, seq);
                assert_eq!(self.broker.is_live(*topic, seq), needed, "{seq}");
                assert!(seq > floor || !needed, "the floor {floor} is above {seq}");
            }
            let live: Vec<Seq> = (1..=state.last).map(Seq).filter(|seq| self.model.is_needed(*topic, *seq)).collect();
            let found = std::iter::successors(self.broker.next_live(*topic, Seq(1)), |seq| {
                self.broker.next_live(*topic, seq.next())
            });
            assert_eq!(found.collect::<Vec<_>>(), live);
            let is_more = |max| self.broker.has_more_live(*topic, Seq(1), Seq(state.last), max);
            assert!(!is_more(live.len() as u64) && (live.is_empty() || is_more(0)), "{live:?}");
        }
    }
}
