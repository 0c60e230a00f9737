//! A subscription goes to another place in its topic.

use super::Broker;
use crate::error::Error;
use crate::ids::{LeaseId, Time};
use crate::names::SubscriptionName;
use crate::output::Output;
use crate::record::{Record, SeekTo};

impl Broker {
    /// Takes a subscription forward or back. All leases are over, failed attempts are forgotten, and what was delivered
    /// may come again. A seek to behind the last message drops all that was published until now.
    pub fn handle_seek(
        &mut self,
        subscription: &SubscriptionName,
        to: SeekTo,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Error> {
        let id = self.attached_id(subscription)?;
        let topic = self.durable.subscriptions[&id].topic;
        if let SeekTo::Snapshot(name) = &to {
            match self.durable.bookmark_names.get(name) {
                None => return Err(Error::SnapshotNotFound(name.clone())),
                Some(other) if *other != topic => {
                    let why = format!("`{name}` is a snapshot of another topic");
                    return Err(Error::InvalidArgument { field: "snapshot", why });
                }
                Some(_) => {}
            }
        }
        let leases = LeaseId { epoch: self.durable.epoch, number: self.lease_last };
        self.record(Record::Sought { id, to, leases }, out);
        self.touch(id, now, out);
        if let Some((queue, mut env)) = self.queue(id, now, out) {
            queue.restart(&mut env);
            queue.dispatch(&mut env);
        }
        Ok(())
    }
}
