//! The runner and its stack from outside: real processes, real sockets, real kills.

// A failed expectation of the harness is a failed test.
#![allow(clippy::unwrap_used)]

mod acquirer;
mod acquirer_changes;
mod broken_off;
mod chaos;
mod compare;
mod dashboard;
mod dashboard_guard;
mod doctor;
mod fail_points;
mod failures;
mod flow;
mod harness;
mod load;
mod payment;
mod runner;
