//! What keeps a front from starting, or ends it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::options::EngineName;
use crate::engine::embedded;

/// What keeps a front from starting, or ends it. The journal is safe in the cluster; another front goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No server of the cluster can be reached.
    #[error("no NATS server (--engine, BROKER_ENGINE) can be reached: {0}")]
    Connect(async_nats::ConnectError),
    /// The server is too old.
    #[error("NATS server `{server}` has version {version}; {needed} or newer is needed")]
    Version { server: String, version: String, needed: &'static str },
    /// The server has JetStream turned off.
    #[error("NATS server `{0}` has JetStream turned off; start it with `jetstream {{}}` in its configuration")]
    NoJetStream(String),
    /// The server takes no messages that are large enough.
    #[error(
        "NATS server `{server}` takes messages of {found} bytes (max_payload); changes of a journal have up to {needed}"
    )]
    Payload { server: String, found: usize, needed: usize },
    /// There are not enough servers for the replicas.
    #[error("the cluster can't keep {replicas} replicas (--engine-replicas, BROKER_ENGINE_REPLICAS): {why}")]
    // While a cluster starts its servers have yet to find one another.
    Replicas { replicas: usize, why: String, is_final: bool },
    /// Something in the cluster is not set as it has to be.
    #[error("`{what}` in the cluster has {setting} {found} instead of {wanted}, so the journal would not be safe")]
    Setting { what: String, setting: &'static str, found: String, wanted: String },
    /// A request to the cluster failed.
    #[error("the cluster did not {what}: {why}")]
    Request { what: &'static str, why: String },
    /// The address for the other fronts is missing.
    #[error("other brokers can't reach `{0}`; name a host and port that they can (--advertise, BROKER_ADVERTISE)")]
    Advertise(String),
    /// The directory can't be used.
    #[error("directory `{}` can't hold the copy of the journal: {source}", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    /// A change in the stream makes no sense.
    #[error("change {sequence} in the stream can't be understood: {why}")]
    Change { sequence: u64, why: &'static str },
    /// The claim could not be renewed in time, or another front has it.
    #[error("the ownership of the journal was lost: {0}")]
    Lost(String),
    /// A transfer into the cluster was begun and not ended.
    #[error("a `broker copy` into the journal `{0}` was interrupted, so it is not whole; repeat the copy")]
    Partial(EngineName),
    /// A transfer has its place taken.
    #[error("the journal `{0}` in the cluster is not empty, and nothing is copied over another journal")]
    NotEmpty(EngineName),
    /// A transfer finds nothing.
    #[error("the journal `{0}` in the cluster is empty, so there is nothing to copy")]
    Nothing(EngineName),
    /// A broker serves what is to be copied or copied to.
    #[error("the journal `{name}` in the cluster is owned by a broker at `{address}`; stop all brokers on it first")]
    Served { name: EngineName, address: String },
    /// The directory that a transfer would make is there.
    #[error("directory `{}` is there and not empty; a journal is copied to a new one", .0.display())]
    Taken(PathBuf),
    /// A file can't be copied.
    #[error("`{}` can't be copied: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The cluster confirmed nothing for too long.
    #[error("the cluster confirmed no change for {} s: {why}", waited.as_secs())]
    Unconfirmed { waited: Duration, why: String },
    /// The cluster has refused a change, and would refuse it again.
    #[error("the cluster takes no more changes: {0}")]
    Refused(String),
    /// The engine can't start.
    #[error(transparent)]
    Engine(#[from] embedded::Failure),
}

impl Failure {
    /// Whether only the ownership is lost: this broker can follow again, with an empty copy.
    pub(crate) fn is_of_ownership(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Unconfirmed { .. })
    }
}
