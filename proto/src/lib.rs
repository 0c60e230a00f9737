//! The wire of Orderflow: types, servers and clients generated from the .proto files of this crate.
//!
//! Modules follow the packages: the message `google.pubsub.v1.Topic` is [`google::pubsub::v1::Topic`]. Each service
//! brings a client and a server module of its name, for example
//! [`publisher_server`](google::pubsub::v1::publisher_server). Fields are documented where they are declared, in the
//! .proto files. [`DESCRIPTORS`] is what server reflection serves.

/// The encoded `FileDescriptorSet` of every package in this crate and of all that they import, comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Packages below `google`, which others declared: only the comments are ours.
#[allow(missing_docs, clippy::all, clippy::cast_possible_truncation, reason = "generated")]
pub mod google {
    /// Access policies.
    pub mod iam {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("google.iam.v1");
        }
    }
    /// Google Cloud Pub/Sub.
    pub mod pubsub {
        /// Version 1: topics, subscriptions, snapshots and messages.
        pub mod v1 {
            tonic::include_proto!("google.pubsub.v1");
        }
    }
    /// Types that several packages use.
    pub mod r#type {
        tonic::include_proto!("google.r#type");
    }
}

/// Packages below `orderflow`.
#[allow(missing_docs, clippy::all, clippy::cast_possible_truncation, reason = "generated")]
pub mod orderflow {
    /// Looking inside the broker.
    pub mod broker {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.broker.v1");
        }
    }
    /// What travels through the topics.
    pub mod events {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.events.v1");
        }
    }
    /// What customers are told.
    pub mod notification {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.notification.v1");
        }
    }
    /// Orders.
    pub mod order {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.order.v1");
        }
    }
    /// Payments.
    pub mod payment {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.payment.v1");
        }
    }
    /// Types that more than one package uses.
    pub mod r#type {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("orderflow.r#type.v1");
        }
    }
}
