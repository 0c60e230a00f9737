//! Tells customers what happened to their orders, and keeps it until they are there to hear it.
//!
//! - [`Cli`] is the command line, [`Config`] what it can be told, [`run`] the service as a process.
//! - [`Service`] is the service as a component: opened, then run until its token is cancelled.
//!
//! Inside, `domain` knows nothing of ours, `app` only the domain; `grpc`, `store`, `consumer` and `email` sit at the edge.

mod app;
mod cli;
mod config;
mod consumer;
mod domain;
mod email;
mod grpc;
mod service;
mod store;

pub use cli::Cli;
pub use config::Config;
pub use email::EmailConfig;
pub use service::{Error, Service, run};
pub use store::SCHEMA_VERSION;

#[cfg(test)]
mod tests;
