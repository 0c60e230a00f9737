//! The journal: bytes, segments, checksums, fsync, recovery. Knows no message.
//!
//! One [`Journal`] appends and syncs; any number of [`Reader`]s look entries up by stream and number. Files and their
//! layout are described in `docs/log-format.md`.
//!
//! **Invariant:** what [`Journal::sync`] reported as durable is there after a crash, byte for byte, or the journal
//! refuses to open and says which file is damaged, and where.
//!
//! **Invariant:** what survives of the rest is a prefix, in the order of the appends.
//!
//! **Invariant:** memory grows with segments and streams, never with entries (the one active segment excepted).

mod check;
mod checkpoint;
mod config;
mod disk;
mod error;
mod frame;
mod index;
mod journal;
mod reader;
mod recovery;
mod scan;
mod segment;
mod state;

pub use check::{Checked, check};
pub use checkpoint::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_KEPT};
pub use config::{
    AHEAD_BYTES_DEFAULT, AHEAD_WRITE_BYTES_MAX, Config, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    Verify,
};
pub use disk::{Disk, DiskFile, OsDisk, OsFile};
pub use error::Error;
pub use frame::{FRAME_HEADER_BYTES, Key, PAYLOAD_BYTES_MAX};
pub use journal::{Entry, Journal, SegmentInfo, StreamSpan};
pub use reader::{Found, Reader};
pub use recovery::{Checkpoint, Cut, Recovered};
pub use segment::{Position, SEGMENT_HEADER_BYTES};

/// Whether a file with this name belongs to a journal: a segment, its index, a checkpoint. What else lies in the directory
/// is none of its affair, or speaks of this directory alone.
#[must_use]
pub fn is_file_of_journal(name: &str) -> bool {
    segment::parse_name(name).or_else(|| index::parse_name(name)).or_else(|| checkpoint::parse_name(name)).is_some()
}
