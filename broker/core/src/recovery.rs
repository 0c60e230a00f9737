//! From the journal to a running broker.

use crate::broker::Broker;
use crate::durable::Durable;
use crate::error::ReplayError;
use crate::ids::{Seq, Time, TopicId};
use crate::limits::Limits;
use crate::output::Output;
use crate::record::Record;
use crate::snapshot::Snapshot;

/// A broker that is being restored: it takes records and no calls. Its default has no state, for an empty journal.
#[derive(Debug, Default)]
pub struct Recovery {
    durable: Durable,
}

impl Recovery {
    /// Starts from nothing.
    pub fn new() -> Self {
        Recovery::default()
    }

    /// Starts from a snapshot.
    pub fn restore(snapshot: Snapshot) -> Result<Self, ReplayError> {
        Ok(Recovery { durable: Durable::from_snapshot(snapshot)? })
    }

    /// Replays one record: each one that came after the snapshot, once, in order. After an error the state is of no
    /// further use.
    pub fn apply(&mut self, record: &Record) -> Result<(), ReplayError> {
        self.durable.apply(record)
    }

    /// What has been restored so far.
    pub fn snapshot(&self) -> Snapshot {
        self.durable.snapshot()
    }

    /// The number of the last message of each topic that has one.
    pub fn last_messages(&self) -> impl Iterator<Item = (TopicId, Seq)> + '_ {
        let lasts = self.durable.topics.iter().map(|(id, topic)| (*id, topic.last));
        lasts.filter(|(_, last)| *last > Seq::ZERO)
    }

    /// Ends the replay and begins a new epoch: no lease of an earlier run is valid any more. `out` gets the record that
    /// says so. The seed serves the jitter of the backoff.
    pub fn begin(self, limits: Limits, seed: u64, now: Time, out: &mut Output) -> Broker {
        Broker::begin(self.durable, limits, seed, now, out)
    }
}
