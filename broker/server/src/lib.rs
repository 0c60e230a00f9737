//! A durable message broker that speaks the Google Cloud Pub/Sub v1 gRPC API.
//!
//! [`Broker::open`] recovers the data directory and binds the port, [`Broker::run`] serves until it is told to stop.
//! [`Command`] is the command line, for the `broker` binary and for programs that carry the broker inside.

mod cli;
mod config;
mod connection;
mod edge;
mod engine;
mod error;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod house;
mod metrics;
mod push;
mod server;
mod services;
mod serving;
mod topology;

#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching {
    //! What benchmarks call.

    pub use crate::engine::embedded::benching::{Encoded, Messages};
}

pub use cli::{Command, CommandError, LogFormat, Shell};
pub use config::{
    AdvertiseAddress, CHECKPOINT_BYTES_DEFAULT, CHECKPOINT_BYTES_MIN, Config, EngineAddress, EngineName, Replicas,
    Verify,
};
pub use engine::replicated::{JournalState, StreamState};
pub use error::Error;
pub use server::Broker;
