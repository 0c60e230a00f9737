//! Access policies, as records and checkpoints hold them.

use broker_core as core;
use broker_core::{SubscriptionId, TopicId};

use super::CodecError;
use super::wire::{Policy, Resource};

pub(super) fn policy_to(resource: &core::Resource, policy: &core::Policy) -> Policy {
    let resource = match resource {
        core::Resource::Topic(id) => Resource::Topic(id.0),
        core::Resource::Subscription(id) => Resource::Subscription(id.0),
        core::Resource::Snapshot(name) => Resource::Snapshot(name.to_string()),
    };
    Policy { resource: Some(resource), revision: policy.revision, body: policy.body.clone() }
}

pub(super) fn policy_of(policy: Policy) -> Result<(core::Resource, core::Policy), CodecError> {
    let Policy { resource, revision, body } = policy;
    let resource = match resource.ok_or(CodecError::Field("policy.resource"))? {
        Resource::Topic(id) => core::Resource::Topic(TopicId(id)),
        Resource::Subscription(id) => core::Resource::Subscription(SubscriptionId(id)),
        Resource::Snapshot(name) => {
            core::Resource::Snapshot(name.parse().map_err(|_| CodecError::Field("policy.resource"))?)
        }
    };
    Ok((resource, core::Policy { revision, body }))
}
