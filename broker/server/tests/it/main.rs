//! The broker as its clients see it: over gRPC, in this process or in one that is killed.

// Helpers of tests unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_changes;
mod bad_input;
mod cli;
mod engine;
mod exactly_once;
mod filters;
mod harness;
mod inspecting;
mod metrics;
mod official_client;
mod policies;
mod process;
mod publishing;
mod pulling;
mod push;
mod refused_settings;
mod rest;
mod scale;
mod seeking;
mod serving;
mod started;
mod storm;
mod streaming;
mod topology;
mod updating;
