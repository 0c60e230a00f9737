//! The journal: bytes, segments, checksums, fsync, recovery. Knows no message.
