//! A look at a whole journal that changes nothing.

use crate::recovery::{self, Last, Names, Sound};
use crate::segment::{self, Opened};
use crate::{Disk, Error, Position, SEGMENT_HEADER_BYTES};

/// What a whole check has found to be sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many segments there are.
    pub segments: usize,
    /// How many bytes they hold, all of which were read.
    pub bytes: u64,
    /// The number of the newest checkpoint.
    pub checkpoint: Option<u64>,
    /// Checkpoint files that are damaged. An open passes over them.
    pub checkpoints_damaged: Vec<String>,
    /// Bytes at the end that were written and never confirmed. An open cuts them off.
    pub torn_bytes: u64,
}

/// Reads every frame of a journal that nobody has open, and changes nothing.
///
/// # Errors
/// [`Error::Locked`] when a process has the journal open; otherwise what [`crate::Journal::open`] would refuse.
pub fn check<D: Disk>(disk: &D) -> Result<Checked, Error> {
    let _lock = recovery::lock(disk)?;
    let names = Names::read(disk)?;
    let found = recovery::load_checkpoints(disk, &names.checkpoints)?;
    names.check_complete(&found)?;
    let checkpoint = found.newest.as_ref().map(|(_, number)| *number);
    let mut checked = Checked { checkpoint, checkpoints_damaged: found.damaged, ..Default::default() };
    let mut next = None;
    for &id in names.segments.iter().rev() {
        let is_last = names.segments.last() == Some(&id);
        let Opened { file, size, header } = segment::open(disk, id)?;
        checked.segments += 1;
        checked.bytes += size;
        let start = Position { segment: id, offset: SEGMENT_HEADER_BYTES };
        let header = match header {
            // A header is synced before the first frame, so there was none.
            Err(Error::Corrupt { .. }) if is_last && size <= SEGMENT_HEADER_BYTES && found.durable <= start => {
                continue;
            }
            header => header?,
        };
        let one = Sound { file, size, header };
        if is_last {
            checked.torn_bytes = Last::read(disk, one, found.durable)?.torn_bytes;
        } else {
            let told = next.filter(|(follower, end)| *follower == id + 1 && *end != 0).map(|(_, end)| end);
            let end = told.unwrap_or(size);
            if size != end {
                let name = segment::file_name(id);
                return Err(Error::corrupt(&name, size.min(end), "the sealed segment has another size"));
            }
            one.scan_strictly(end, &mut None)?;
        }
        next = Some((id, u64::from(header.previous_end)));
    }
    Ok(checked)
}
