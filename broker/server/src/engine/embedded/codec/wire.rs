//! Journal entries as Protocol Buffers. What they mean is said by `record`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::settings::{SubscriptionConfig, TopicConfig};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(oneof = "Fact", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 24")]
    pub(super) fact: Option<Fact>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Fact {
    #[prost(uint32, tag = "1")]
    Started(u32),
    #[prost(message, tag = "2")]
    TopicCreated(TopicCreated),
    #[prost(uint32, tag = "3")]
    TopicDeleted(u32),
    #[prost(message, tag = "4")]
    SubscriptionCreated(SubscriptionCreated),
    #[prost(uint32, tag = "5")]
    SubscriptionDeleted(u32),
    #[prost(message, tag = "6")]
    Published(Published),
    #[prost(message, tag = "7")]
    Acked(Acked),
    #[prost(message, tag = "8")]
    Failed(Failed),
    #[prost(message, tag = "9")]
    Forwarded(Forwarded),
    /// Messages that were written before and are written again, so that their old segment can go. Not a record.
    #[prost(message, tag = "10")]
    Carried(Published),
    #[prost(message, tag = "11")]
    TopicUpdated(TopicCreated),
    #[prost(message, tag = "12")]
    SubscriptionUpdated(SubscriptionUpdated),
    #[prost(uint32, tag = "13")]
    SubscriptionDetached(u32),
    #[prost(message, tag = "14")]
    Active(Active),
    #[prost(message, tag = "15")]
    Sought(Sought),
    #[prost(message, tag = "16")]
    SubscriptionCut(Cut),
    #[prost(message, tag = "17")]
    TopicCut(Cut),
    #[prost(message, tag = "18")]
    SnapshotCreated(SnapshotCreated),
    #[prost(message, tag = "19")]
    SnapshotUpdated(SnapshotCreated),
    #[prost(string, tag = "20")]
    SnapshotDeleted(String),
    #[prost(message, tag = "21")]
    Redriven(Redriven),
    #[prost(message, tag = "24")]
    PolicySet(Policy),
}

/// An access policy, and whose it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Policy {
    #[prost(oneof = "Resource", tags = "1, 2, 3")]
    pub(super) resource: Option<Resource>,
    #[prost(uint64, tag = "4")]
    pub(super) revision: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Resource {
    #[prost(uint32, tag = "1")]
    Topic(u32),
    #[prost(uint32, tag = "2")]
    Subscription(u32),
    #[prost(string, tag = "3")]
    Snapshot(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TopicCreated {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) config: Option<TopicConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionCreated {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint32, tag = "2")]
    pub(super) topic: u32,
    #[prost(message, optional, tag = "3")]
    pub(super) config: Option<SubscriptionConfig>,
    #[prost(uint64, tag = "4")]
    pub(super) start: u64,
    #[prost(uint64, tag = "5")]
    pub(super) time_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionUpdated {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) config: Option<SubscriptionConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Active {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint64, tag = "2")]
    pub(super) time_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sought {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    /// Unless there is a snapshot.
    #[prost(uint64, tag = "2")]
    pub(super) after: u64,
    #[prost(string, optional, tag = "3")]
    pub(super) snapshot: Option<String>,
    #[prost(uint32, tag = "4")]
    pub(super) epoch: u32,
    #[prost(uint64, tag = "5")]
    pub(super) lease: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Cut {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint64, tag = "2")]
    pub(super) before: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotCreated {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// Of an update: 0.
    #[prost(uint32, tag = "2")]
    pub(super) subscription: u32,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "4")]
    pub(super) expires_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Published {
    #[prost(uint32, tag = "1")]
    pub(super) topic: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) messages: Option<Messages>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Messages {
    #[prost(uint64, tag = "1")]
    pub(super) first: u64,
    #[prost(uint64, tag = "2")]
    pub(super) time_ms: u64,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) bodies: Vec<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) filtered: Vec<Acked>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Acked {
    #[prost(uint32, tag = "1")]
    pub(super) subscription: u32,
    /// Pairs: how many numbers after the end of the range before (or 0) a range starts, and how many more it holds.
    #[prost(uint64, repeated, tag = "2")]
    pub(super) steps: Vec<u64>,
    /// The size of the messages, if it is known of each.
    #[prost(uint64, optional, tag = "3")]
    pub(super) bytes: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Failed {
    #[prost(uint32, tag = "1")]
    pub(super) subscription: u32,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(uint32, tag = "3")]
    pub(super) attempts: u32,
    #[prost(uint64, tag = "4")]
    pub(super) not_before_ms: u64,
    #[prost(uint32, tag = "5")]
    pub(super) reason: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Forwarded {
    #[prost(uint32, tag = "1")]
    pub(super) subscription: u32,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(uint32, tag = "3")]
    pub(super) to: u32,
    /// One message, with the number that it got there.
    #[prost(message, optional, tag = "4")]
    pub(super) messages: Option<Messages>,
    /// Its size where it came from, if that is known.
    #[prost(uint64, optional, tag = "5")]
    pub(super) source_bytes: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Redriven {
    #[prost(uint32, tag = "1")]
    pub(super) subscription: u32,
    #[prost(uint64, tag = "2")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "3")]
    pub(super) source_bytes: u64,
    /// The subscription that it goes to, and the topic which that one reads.
    #[prost(uint32, tag = "4")]
    pub(super) target: u32,
    #[prost(uint32, tag = "5")]
    pub(super) to: u32,
    /// One message, with the number that it got there.
    #[prost(message, optional, tag = "6")]
    pub(super) messages: Option<Messages>,
}
