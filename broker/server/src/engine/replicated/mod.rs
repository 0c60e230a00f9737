//! The embedded engine on a journal that a NATS cluster replicates.
//!
//! Any number of brokers, called fronts, share one journal: a JetStream stream that holds each change of the journal's
//! files. One front owns the journal at a time and runs the embedded engine on it; a batch counts as durable when the
//! cluster has it. The others keep a copy at hand, forward what they are asked to the owner, and take over when it dies.
//!
//! **Invariant:** only the owner's changes enter the stream. Each of them names the one that it expects to follow, so
//! the first change of a new owner ends what an old one can write, whatever the old one believes.
//!
//! **Invariant:** the directory is a copy. What it holds beyond the stream was never confirmed, so a start empties it.

mod candidate;
mod change;
mod claim;
mod cluster;
mod copy;
mod failure;
mod options;
mod publisher;
mod state;
mod transfer;

pub(crate) use candidate::{Candidate, Seat, join};
pub(crate) use claim::Claim;
pub(crate) use failure::Failure;
pub use options::{AdvertiseAddress, EngineAddress, EngineName, Replicas};
pub(crate) use options::{NAME_DEFAULT, Options, Target};
pub use state::{JournalState, StreamState};
pub(crate) use transfer::{Transferred, copy_in, copy_out};
