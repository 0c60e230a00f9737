//! The runner and its stack past one machine: three NATS servers, PostgreSQL, two brokers, two of each service.
//!
//! Needs `nats-server` in the `PATH` and PostgreSQL, so that `cargo test --workspace` leaves it out.

// A failed expectation of the harness is a failed test.
#![allow(clippy::unwrap_used)]

mod chaos;
#[path = "../it/harness.rs"]
#[allow(dead_code, reason = "the harness serves other tests as well")]
mod harness;
mod runner;
