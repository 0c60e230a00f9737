//! Dead letters go back to where they came from.

use super::Broker;
use crate::error::Error;
use crate::ids::Time;
use crate::output::{DeadLetter, Output, RedriveOutcome};
use crate::record::Record;
use crate::view::MessageState;

impl Broker {
    /// Takes a dead letter back to where it came from, whatever the filter there says, and to no other subscription: its
    /// attempts start anew. One record holds both ends, so that a crash neither loses nor doubles it. What is outstanding
    /// stays, since its consumer may settle it itself.
    pub fn handle_redrive(
        &mut self,
        letter: &DeadLetter,
        now: Time,
        out: &mut Output,
    ) -> Result<RedriveOutcome, Error> {
        let DeadLetter { subscription, seq, bytes: source_bytes, target, meta } = letter;
        let (seq, meta) = (*seq, *meta);
        let id = self.attached_id(subscription)?;
        if !self.is_unacked(id, seq) {
            return Ok(RedriveOutcome::NotUnacked);
        }
        if let MessageState::Outstanding(_) | MessageState::Forwarding = self.peeked(id, seq, now).state {
            return Ok(RedriveOutcome::Outstanding);
        }
        let target = match self.attached_id(target) {
            Ok(target) => target,
            Err(Error::Detached(_)) => return Ok(RedriveOutcome::TargetDetached),
            Err(_) => return Ok(RedriveOutcome::TargetNotFound),
        };
        let to = self.durable.subscriptions[&target].topic;
        let as_seq = self.durable.topics[&to].last.next();
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.settle(seq, &mut self.timers);
        }
        let (source_bytes, bytes) = (u64::from(*source_bytes), u64::from(meta.bytes));
        let record = Record::Redriven { subscription: id, seq, source_bytes, target, to, as_seq, time: now, bytes };
        self.record(record, out);
        self.touch(id, now, out);
        self.fan_out(to, as_seq, &[meta], now, out);
        self.dispatch(id, now, out);
        Ok(RedriveOutcome::Redriven(to, as_seq))
    }
}
