//! order-service over the network, with its broker down: orders are accepted all the same.

mod bad_input;
mod harness;
mod life;
mod list;
mod place;
