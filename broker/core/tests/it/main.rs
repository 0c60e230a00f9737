//! The state machine, driven through its public face.

#![allow(clippy::unwrap_used, reason = "also in the helpers of tests, where the lint does not see that they are such")]

mod admin;
mod dead_letters;
mod flow;
mod harness;
mod keeping;
mod leases;
mod ordering;
mod parsing;
mod policies;
mod properties;
mod recovery;
mod redriving;
mod sizes;
mod suspects;
mod updating;
