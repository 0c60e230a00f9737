//! The journal against a disk that loses, tears, flips, refuses and fills up; and against a real one.

#![allow(clippy::unwrap_used, reason = "the helpers of the tests are tests as well")]

mod ahead;
mod corruption;
mod faults;
mod files;
mod properties;
mod reading;
mod recovery;
mod sim;
mod support;
