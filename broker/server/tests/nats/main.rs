//! Brokers on a journal in a NATS cluster that is killed, refuses them, or gets a journal from elsewhere. It needs
//! `nats-server`, so `cargo test` leaves it out unless it is named: `cargo test -p broker --test nats`.

// Helpers of tests unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod claims;
mod cluster;
mod copying;
#[expect(dead_code, reason = "the tests that run on either engine use the rest")]
#[path = "../it/engine.rs"]
mod engine;
mod front;
mod fronts;
#[expect(dead_code, reason = "the tests that run on either engine use the rest")]
#[path = "../it/harness.rs"]
mod harness;
mod servers;
#[expect(dead_code, reason = "the tests that run on either engine use the rest")]
#[path = "../it/started.rs"]
mod started;
