use std::io;

use crate::{PAYLOAD_BYTES_MAX, Position, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// Why the journal refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the directory.
    #[error("the journal is locked by another process")]
    Locked,
    /// Stored bytes are not what was written. Nothing was changed.
    #[error("`{file}` is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// The file's name inside the journal's directory.
        file: String,
        /// Where the damaged structure starts, in bytes from the start of the file.
        offset: u64,
        /// What does not hold.
        reason: &'static str,
    },
    /// A file was written by a version that this one does not know.
    #[error("`{file}` has format version {version}, which is not known here")]
    Version {
        /// The file's name inside the journal's directory.
        file: String,
        /// The version that it states.
        version: u32,
    },
    /// A segment that recovery needs is not there.
    #[error("segment {id} is missing")]
    MissingSegment {
        /// The segment's number.
        id: u64,
    },
    /// The configured segment size is out of range.
    #[error("segment size {segment_bytes_max} is not within {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes")]
    SegmentBytes {
        /// What was asked for.
        segment_bytes_max: u64,
    },
    /// A payload is larger than a frame may carry. Nothing was written.
    #[error("a payload of {payload_bytes} bytes exceeds {PAYLOAD_BYTES_MAX} bytes")]
    PayloadTooLarge {
        /// The payload's size.
        payload_bytes: u64,
    },
    /// A key covers no number, or numbers beyond 64 bits. Nothing was written.
    #[error("a key from {first} with count {count} is not a range of numbers")]
    BadKey {
        /// The first number of the key.
        first: u64,
        /// How many numbers it covers.
        count: u32,
    },
    /// A checkpoint's state is larger than a checkpoint may be. Nothing was written.
    #[error("a checkpoint of {state_bytes} bytes exceeds {bytes_max} bytes")]
    CheckpointTooLarge {
        /// The state's size.
        state_bytes: u64,
        /// What it may be at most.
        bytes_max: u64,
    },
    /// The position is not a boundary between entries, or not durable yet, or gone.
    #[error("position {position} is not a durable boundary between entries")]
    BadPosition {
        /// The position that was given.
        position: Position,
    },
    /// The segment does not exist, is still written to, or may be needed by a recovery.
    #[error("segment {id} cannot be removed: {reason}")]
    SegmentInUse {
        /// The segment's number.
        id: u64,
        /// What still needs it.
        reason: &'static str,
    },
    /// An earlier write or sync failed, so nothing more is known about the disk. Only a new open repairs that.
    #[error("the journal is poisoned by an earlier failure")]
    Poisoned,
    /// The disk refused.
    #[error("cannot {action} `{file}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file's name inside the journal's directory.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Makes the closure that `map_err` wants.
    pub(crate) fn io(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, file: file.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, reason: &'static str) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
