//! Takes orders and knows how far they have come.
//!
//! - [`Cli`] is the command line, [`Config`] what it can be told, [`run`] the service as a process.
//! - [`Service`] is the service as a component: opened, then run until its token is cancelled.
//!
//! Inside, `domain` knows nothing of ours, `app` only the domain; `grpc`, `store`, `peers` and `consumer` sit at the
//! edge.

mod app;
mod cli;
mod config;
mod consumer;
mod domain;
mod grpc;
mod peers;
mod service;
mod store;

pub use cli::Cli;
pub use config::Config;
pub use service::{Error, Service, run};
pub use store::SCHEMA_VERSION;

#[cfg(test)]
mod tests;
