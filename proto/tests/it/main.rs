//! The wire, as other people's clients see it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod codec;
mod public_api;
mod public_api_around;
mod reflection;
mod shape;
