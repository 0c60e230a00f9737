//! One attached consumer: its credit, and what waits for it alone.

use std::collections::BTreeSet;

use crate::config::AckDeadline;
use crate::ids::{Seq, Time};
use crate::limits::{Limits, TRIAL_AFTER_MS};
use crate::output::{Attach, ConsumerKind};

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) kind: ConsumerKind,
    pub(crate) ack_deadline: AckDeadline,
    messages_max: u32,
    bytes_max: u64,
    messages: u32,
    bytes: u64,
    attached_at: Time,
    /// The number of the last lease that it got.
    pub(crate) lease_last: u64,
    /// Whether it has acked anything.
    pub(crate) has_acked: bool,
    /// The suspect that it has, and nothing beside it.
    pub(crate) trial: Option<Seq>,
    /// Whether it gets nothing new, so that it can be given a suspect.
    pub(crate) draining: bool,
    /// Whether it stands in the subscription's `turn`.
    pub(crate) in_turn: bool,
    /// The heads of ordering keys that only this consumer may take, since it has earlier messages of them.
    pub(crate) reserved: BTreeSet<Seq>,
    /// The dispatch that last delivered to it, and where in the output that delivery stands.
    pub(crate) delivery: Option<(u64, usize)>,
}

impl Consumer {
    pub(crate) fn new(attach: Attach, limits: &Limits, now: Time) -> Self {
        Consumer {
            kind: attach.kind,
            ack_deadline: attach.ack_deadline,
            messages_max: capped(attach.messages_max, limits.consumer_messages_max),
            bytes_max: capped(attach.bytes_max, limits.consumer_bytes_max),
            messages: 0,
            bytes: 0,
            attached_at: now,
            lease_last: 0,
            has_acked: false,
            trial: None,
            draining: false,
            in_turn: false,
            reserved: BTreeSet::new(),
            delivery: None,
        }
    }

    /// How many messages it has out.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether some message could be delivered to it.
    pub(crate) fn has_credit(&self) -> bool {
        self.is_open() && (self.messages == 0 || (self.messages < self.messages_max && self.bytes < self.bytes_max))
    }

    /// Whether a message of this size can be. One that is larger than the whole credit goes out alone.
    pub(crate) fn fits(&self, bytes: u32) -> bool {
        let has_room = self.messages < self.messages_max && self.bytes + u64::from(bytes) <= self.bytes_max;
        self.is_open() && (self.messages == 0 || has_room)
    }

    fn is_open(&self) -> bool {
        self.trial.is_none() && !self.draining
    }

    /// When it has shown that it lives, so that its end can be held against a suspect.
    pub(crate) fn sound_at(&self) -> Time {
        if self.has_acked { self.attached_at } else { self.attached_at.plus_ms(TRIAL_AFTER_MS) }
    }

    /// Forgets what it has, as nothing is out any more.
    pub(crate) fn reset(&mut self) {
        self.messages = 0;
        self.bytes = 0;
        self.trial = None;
        self.draining = false;
        self.in_turn = true;
        self.reserved.clear();
        self.delivery = None;
    }

    pub(crate) fn take(&mut self, bytes: u32) {
        self.messages += 1;
        self.bytes += u64::from(bytes);
    }

    pub(crate) fn give_back(&mut self, bytes: u32) {
        self.messages -= 1;
        self.bytes -= u64::from(bytes);
    }
}

/// What was asked for, where 0 asks for the most.
fn capped<N: Ord + From<u8>>(asked: N, max: N) -> N {
    if asked == N::from(0) { max } else { asked.min(max) }
}
