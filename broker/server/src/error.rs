//! Why a broker does not start, or ends.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::CommandError;
use crate::engine::{embedded, replicated};

/// Why a broker does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine can't start, or has failed for good.
    #[error("{0}")]
    Engine(Box<dyn std::error::Error + Send + Sync>),
    /// The environment asks for a fail point that there is not.
    #[error(transparent)]
    FailPoints(#[from] fail_points::Error),
    /// The port can't be bound.
    #[error("address `{address}` (--listen, BROKER_LISTEN) can't be bound: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port of the metrics can't be bound.
    #[error("address `{address}` (--metrics-listen, BROKER_METRICS_LISTEN) can't be bound: {source}")]
    ListenMetrics {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The topology file can't be read.
    #[error("topology file `{}` (--topology, BROKER_TOPOLOGY) can't be used: {why}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The health check got no good answer.
    #[error("broker at `{address}` isn't healthy: {why}")]
    Unhealthy {
        /// The address that was asked.
        address: String,
        /// What came instead.
        why: String,
    },
    /// A command to a running broker did not do what it was asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The process can't hear the signals that stop it.
    #[error("stop signals can't be heard: {0}")]
    Signal(std::io::Error),
}

impl From<embedded::Failure> for Error {
    fn from(failure: embedded::Failure) -> Self {
        Self::Engine(Box::new(failure))
    }
}

impl From<replicated::Failure> for Error {
    fn from(failure: replicated::Failure) -> Self {
        Self::Engine(Box::new(failure))
    }
}
