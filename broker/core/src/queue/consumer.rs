//! One attached consumer: its credit, and what waits for it alone.

use std::collections::BTreeSet;

use crate::config::AckDeadline;
use crate::ids::Seq;
use crate::limits::Limits;
use crate::output::{Attach, ConsumerKind};

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) kind: ConsumerKind,
    pub(crate) ack_deadline: AckDeadline,
    messages_max: u32,
    bytes_max: u64,
    messages: u32,
    bytes: u64,
    /// Whether it stands in the subscription's `turn`.
    pub(crate) in_turn: bool,
    /// The heads of ordering keys that only this consumer may take, since it has earlier messages of them.
    pub(crate) reserved: BTreeSet<Seq>,
    /// The dispatch that last delivered to it, and where in the output that delivery stands.
    pub(crate) delivery: Option<(u64, usize)>,
}

impl Consumer {
    pub(crate) fn new(attach: Attach, limits: &Limits) -> Self {
        Consumer {
            kind: attach.kind,
            ack_deadline: attach.ack_deadline,
            messages_max: capped(attach.messages_max, limits.consumer_messages_max),
            bytes_max: capped(attach.bytes_max, limits.consumer_bytes_max),
            messages: 0,
            bytes: 0,
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
        self.messages == 0 || (self.messages < self.messages_max && self.bytes < self.bytes_max)
    }

    /// Whether a message of this size can be. One that is larger than the whole credit goes out alone.
    pub(crate) fn fits(&self, bytes: u32) -> bool {
        self.messages == 0 || (self.messages < self.messages_max && self.bytes + u64::from(bytes) <= self.bytes_max)
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
