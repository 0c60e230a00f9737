//! order-service over the network, with its broker down: orders are accepted all the same.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod bad_input;
mod harness;
mod life;
mod list;
mod place;
