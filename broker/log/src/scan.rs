//! Reads frames one after another, and looks for what survived behind a torn one.

use std::io;

use crate::DiskFile;
use crate::frame::{HEADER_LEN, Header, Key, Kind, Seed};
use crate::{FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX};

/// How much is read at a time, in bytes. A larger frame is read whole.
const WINDOW_BYTES: u64 = 1 << 20;

/// One step of a [`Scanner`].
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole and sound entry.
    Entry { offset: u64, key: Option<Key>, payload: &'a [u8], durable: u64 },
    /// A mark; nothing that follows belongs to the segment.
    Mark { offset: u64 },
    /// Bytes that are no frame.
    Bad { offset: u64, reason: &'static str },
    /// The end, exactly after the last frame.
    End { offset: u64 },
}

/// Reads the frames between two offsets of a segment, with a window of bounded size.
pub(crate) struct Scanner<'f, F> {
    window: Window<'f, F>,
    seed: Seed,
    offset: u64,
}

impl<'f, F: DiskFile> Scanner<'f, F> {
    /// `end` must not lie beyond the end of the file.
    pub(crate) fn new(file: &'f F, seed: Seed, start: u64, end: u64) -> Self {
        Self { window: Window { file, start: 0, bytes: Vec::new(), end }, seed, offset: start }
    }

    /// After anything but an entry the scan is over.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        let left = self.window.end.saturating_sub(offset);
        if left == 0 {
            return Ok(Step::End { offset });
        }
        if left < FRAME_HEADER_BYTES {
            return Ok(Step::Bad { offset, reason: "the frame's header is cut off" });
        }
        let Some(header) = Header::decode(self.window.get(offset, FRAME_HEADER_BYTES)?, self.seed, offset) else {
            return Ok(Step::Bad { offset, reason: "the frame's header does not match its checksum" });
        };
        if header.kind == Kind::Mark {
            return Ok(Step::Mark { offset });
        }
        if left < header.frame_bytes() {
            return Ok(Step::Bad { offset, reason: "the frame's payload is cut off" });
        }
        let payload = &self.window.get(offset, header.frame_bytes())?[HEADER_LEN..];
        if !header.accepts(payload) {
            return Ok(Step::Bad { offset, reason: "the frame's payload does not match its checksum" });
        }
        self.offset += header.frame_bytes();
        Ok(Step::Entry { offset, key: header.kind.key(), payload, durable: u64::from(header.durable) })
    }
}

/// Whether any frame header after `offset` testifies that `offset` had been synced.
///
/// Frames may start anywhere behind a torn one, so every byte is tried. A header is proof enough: it was written after
/// the sync, whatever became of its payload.
pub(crate) fn was_synced<F: DiskFile>(file: &F, seed: Seed, offset: u64, end: u64) -> io::Result<bool> {
    let mut window = Window { file, start: 0, bytes: Vec::new(), end };
    let mut at = offset + 1;
    while at + FRAME_HEADER_BYTES <= end {
        let bytes = window.get(at, (end - at).min(WINDOW_BYTES))?;
        for (candidate, bytes) in (at..).zip(bytes.windows(HEADER_LEN)) {
            let claim = Header::durable_claim(bytes);
            if claim > offset && claim <= candidate && Header::decode(bytes, seed, candidate).is_some() {
                return Ok(true);
            }
        }
        at += (bytes.len() - (HEADER_LEN - 1)) as u64;
    }
    Ok(false)
}

/// Where the zeros begin that the file ends with, `from` at the earliest.
pub(crate) fn zeros_start<F: DiskFile>(file: &F, from: u64, end: u64) -> io::Result<u64> {
    let mut window = Window { file, start: 0, bytes: Vec::new(), end };
    let (mut at, mut start) = (from, from);
    while at < end {
        let bytes = window.get(at, (end - at).min(WINDOW_BYTES))?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            start = at + last as u64 + 1;
        }
        at += bytes.len() as u64;
    }
    Ok(start)
}

/// A piece of a file in memory.
struct Window<'f, F> {
    file: &'f F,
    start: u64,
    bytes: Vec<u8>,
    end: u64,
}

impl<F: DiskFile> Window<'_, F> {
    /// The bytes `offset..offset + size`, which must lie before the end.
    fn get(&mut self, offset: u64, size: u64) -> io::Result<&[u8]> {
        let have = self.start..self.start + self.bytes.len() as u64;
        if offset < have.start || offset + size > have.end {
            let read = size.max(WINDOW_BYTES).min(self.end - offset);
            self.bytes.resize(length(read), 0);
            self.start = offset;
            self.file.read_at(&mut self.bytes, offset)?;
        }
        let from = length(offset - self.start);
        Ok(&self.bytes[from..from + length(size)])
    }
}

/// A size that is known to be small as a length in memory.
pub(crate) fn length(bytes: u64) -> usize {
    debug_assert!(bytes <= WINDOW_BYTES.max(FRAME_HEADER_BYTES + u64::from(PAYLOAD_BYTES_MAX)));
    usize::try_from(bytes).expect("sizes in memory are bounded by the largest frame")
}
