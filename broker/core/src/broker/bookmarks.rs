//! Snapshots of the public API: where a subscription stood, kept under a name. Inside they are called bookmarks, since
//! [`crate::Snapshot`] is all durable state.

use super::Broker;
use super::admin::exhausted;
use crate::config::Labels;
use crate::error::Error;
use crate::ids::Time;
use crate::names::{SnapshotName, SubscriptionName};
use crate::output::Output;
use crate::record::Record;
use crate::view::SnapshotView;

impl Broker {
    /// Takes a snapshot: until it expires, what the subscription has not acked now, and all that is published to its
    /// topic later, is kept for a seek. When it expires is for the caller to decide, who knows how old the messages are.
    pub fn handle_create_snapshot(
        &mut self,
        name: SnapshotName,
        subscription: &SubscriptionName,
        labels: Labels,
        expires: Time,
        now: Time,
        out: &mut Output,
    ) -> Result<SnapshotView, Error> {
        let id = self.attached_id(subscription)?;
        if self.durable.bookmark_names.contains_key(&name) {
            return Err(Error::SnapshotExists(name));
        }
        check_expires(expires, now)?;
        exhausted("snapshots", self.durable.bookmark_names.len(), self.limits.snapshots_max)?;
        self.record(Record::SnapshotCreated { name: name.clone(), subscription: id, labels, expires }, out);
        self.touch(id, now, out);
        self.snapshot_view(&name)
    }

    /// Changes what is noted on a snapshot, and when it expires.
    pub fn handle_update_snapshot(
        &mut self,
        name: &SnapshotName,
        labels: Labels,
        expires: Time,
        now: Time,
        out: &mut Output,
    ) -> Result<SnapshotView, Error> {
        self.snapshot_view(name)?;
        check_expires(expires, now)?;
        self.record(Record::SnapshotUpdated { name: name.clone(), labels, expires }, out);
        self.snapshot_view(name)
    }

    /// Deletes a snapshot. What only it has kept is gone.
    pub fn handle_delete_snapshot(&mut self, name: &SnapshotName, out: &mut Output) -> Result<(), Error> {
        self.snapshot_view(name)?;
        self.record(Record::SnapshotDeleted { name: name.clone() }, out);
        Ok(())
    }
}

fn check_expires(expires: Time, now: Time) -> Result<(), Error> {
    if expires <= now {
        return Err(Error::InvalidArgument { field: "expire_time", why: "it has passed".to_owned() });
    }
    Ok(())
}
