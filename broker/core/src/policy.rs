//! Access policies: kept with a resource for whoever asks, and looked into by nobody here.

use std::fmt;
use std::str::FromStr;

use crate::ids::{SubscriptionId, TopicId};
use crate::names::{NameError, SnapshotName, SubscriptionName, TopicName};

/// What can have a policy, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceName {
    /// A topic.
    Topic(TopicName),
    /// A subscription.
    Subscription(SubscriptionName),
    /// A snapshot.
    Snapshot(SnapshotName),
}

/// What has a policy, as it is written down: a resource that takes the name of a deleted one is another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(TopicId),
    /// A subscription.
    Subscription(SubscriptionId),
    /// A snapshot.
    Snapshot(SnapshotName),
}

/// A policy as it stands. The default is that of a resource that was given none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Grows with each change of any policy, so that no two policies of one name share it; 0 stands for none.
    pub revision: u64,
    /// What it says; the caller knows the encoding.
    pub body: Vec<u8>,
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name.split('/').nth(2) {
            Some(SubscriptionName::COLLECTION) => name.parse().map(Self::Subscription),
            Some(SnapshotName::COLLECTION) => name.parse().map(Self::Snapshot),
            Some(TopicName::COLLECTION) => name.parse().map(Self::Topic),
            _ => {
                let form = "projects/{project}/{topics, subscriptions or snapshots}/{id}";
                Err(NameError::Form { name: name.to_owned(), form })
            }
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourceName::Topic(name) => name.fmt(f),
            ResourceName::Subscription(name) => name.fmt(f),
            ResourceName::Snapshot(name) => name.fmt(f),
        }
    }
}
