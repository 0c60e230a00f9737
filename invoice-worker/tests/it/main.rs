//! Workers as they run, against a small broker in memory.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

/// The broker of the kit's own tests.
#[allow(dead_code)]
#[path = "../../../service-kit/tests/it/fake.rs"]
mod fake;

mod workers;
