use crate::{CHECKPOINT_BYTES_MAX, Error};

/// The size at which a segment is sealed unless the configuration says otherwise, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// The smallest segment size that a configuration may ask for, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// The largest segment size that a configuration may ask for, in bytes: offsets are stored in four bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How far the active segment is filled with zeros ahead of its end unless the configuration says otherwise, in bytes.
pub const AHEAD_BYTES_DEFAULT: u64 = 1 << 20;

/// A larger write goes behind the end of the file: its own bytes cost more than what zeros ahead would save. In bytes.
pub const AHEAD_WRITE_BYTES_MAX: u64 = 64 << 10;

/// How a journal behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// A segment is sealed before it would grow beyond this size. A single larger entry gets a segment of its own.
    pub segment_bytes_max: u64,
    /// How much is read and checked at open.
    pub verify: Verify,
    /// The largest state that a checkpoint may be given, in bytes, at most [`CHECKPOINT_BYTES_MAX`].
    pub checkpoint_bytes_max: u64,
    /// How far a write of at most [`AHEAD_WRITE_BYTES_MAX`] bytes that reaches the end of the file fills it with zeros
    /// ahead, in bytes, within the segment's size. A sync of what is then written into the zeros has no new blocks and no
    /// new size to note. 0 for never.
    pub ahead_bytes: u64,
}

/// How much of the journal is read and checked at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every frame of every segment.
    All,
    /// Every frame from the newest checkpoint's segment on. Frames before it are checked when they are read, or by
    /// [`Reader::check`](crate::Reader::check). A journal in which a reader found damage is read whole all the same.
    SinceCheckpoint,
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes_max) {
            return Ok(());
        }
        Err(Error::SegmentBytes { segment_bytes_max: self.segment_bytes_max })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes_max: SEGMENT_BYTES_DEFAULT,
            verify: Verify::All,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            ahead_bytes: AHEAD_BYTES_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_size_is_accepted_at_its_limits_and_refused_beyond() {
        for (segment_bytes_max, good) in [
            (SEGMENT_BYTES_MIN - 1, false),
            (SEGMENT_BYTES_MIN, true),
            (SEGMENT_BYTES_MAX, true),
            (SEGMENT_BYTES_MAX + 1, false),
        ] {
            let config = Config { segment_bytes_max, ..Config::default() };
            assert_eq!(config.check().is_ok(), good, "{segment_bytes_max}");
        }
    }
}
