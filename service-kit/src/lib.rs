//! What every service shares. A leaf crate: it knows no order, no payment and none of our wire types.
//!
//! - [`run()`] wires telemetry (logs, traces, figures), signals, the grace period and the exit code around a service.
//! - [`service`] is what a service does while it runs; [`clock`] tells the time of day.
//! - [`config`] checks a configuration whole, before a port is bound.
//! - [`grpc`] serves with health and reflection, and drains; [`health_check`] asks such a server.
//! - [`db`] is the database: every write goes through one task and one commit serves all that gathered.
//! - [`outbox`] makes a state change and its events one transaction, and relays the events to the broker.
//! - [`publish`] publishes an event at once, for whoever has no database.
//! - [`inbox`] makes a message's effect and the mark that it was handled one transaction.
//! - [`consumer`] takes messages from a subscription and never turns an outage into failed attempts.
//! - [`breaker`] waits for something that is down without hammering it.
//! - [`paging`] and [`status`] are small helpers for the gRPC edge.

pub mod breaker;
pub mod broker;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod db;
pub mod event;
pub mod grpc;
pub mod inbox;
pub mod outbox;
pub mod paging;
mod process;
pub mod publish;
pub mod service;
pub mod status;
mod telemetry;

/// Figures of the process, for Prometheus.
pub mod metrics {
    pub use crate::telemetry::metrics::{register, seconds};
    pub use prometheus_client;
}

/// Traces that go on across processes.
pub mod trace {
    pub use crate::telemetry::trace::{carry, headers};
}

pub use grpc::health_check;
pub use process::{ProcessConfig, run};
pub use telemetry::LogFormat;
pub use tokio_util::sync::CancellationToken;
