//! The state machine, driven through its public face.

mod harness;
mod properties;
