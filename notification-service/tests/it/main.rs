//! notification-service over the network, with its broker down.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod harness;
mod life;
mod rpc;
