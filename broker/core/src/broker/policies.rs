//! Access policies are set and asked for.

use super::Broker;
use crate::error::Error;
use crate::limits::POLICY_BYTES_MAX;
use crate::output::Output;
use crate::policy::{Policy, Resource, ResourceName};
use crate::record::Record;

impl Broker {
    /// The policy of a resource.
    pub fn policy(&self, name: &ResourceName) -> Result<Policy, Error> {
        Ok(self.durable.policies.get(&self.resource(name)?).cloned().unwrap_or_default())
    }

    /// Gives a resource another policy.
    pub fn handle_set_policy(&mut self, name: &ResourceName, body: Vec<u8>, out: &mut Output) -> Result<Policy, Error> {
        let resource = self.resource(name)?;
        if body.len() > POLICY_BYTES_MAX {
            let why = format!("{} bytes are more than {POLICY_BYTES_MAX}", body.len());
            return Err(Error::InvalidArgument { field: "policy", why });
        }
        let others = self.durable.policies.iter().filter(|(other, _)| **other != resource);
        let bytes = body.len() + others.map(|(_, policy)| policy.body.len()).sum::<usize>();
        let max = self.limits.policies_bytes_max;
        if bytes > max {
            return Err(Error::ResourceExhausted { what: "bytes of access policies", max });
        }
        let policy = Policy { revision: self.durable.policy_revision_last + 1, body };
        self.record(Record::PolicySet { resource, policy: policy.clone() }, out);
        Ok(policy)
    }

    fn resource(&self, name: &ResourceName) -> Result<Resource, Error> {
        match name {
            ResourceName::Topic(name) => self.topic_id(name).map(Resource::Topic),
            ResourceName::Subscription(name) => self.subscription_id(name).map(Resource::Subscription),
            ResourceName::Snapshot(name) => self.snapshot_view(name).map(|view| Resource::Snapshot(view.name)),
        }
    }
}
