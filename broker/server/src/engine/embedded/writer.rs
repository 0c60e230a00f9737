//! The one thread that writes: append, one sync for all that gathered, then the effects, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use broker_log::{Disk, Entry, FRAME_HEADER_BYTES, Journal, Key, SegmentInfo};
use fail_points::Point;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::codec::Payload;
use super::failure::Failure;
use super::handover::Taker;
use super::inspect::Figures;
use super::store::Store;

/// What happens once everything before it is durable. It must not block.
pub(super) type Release = Box<dyn FnOnce() + Send>;

/// What one sync covers.
#[derive(Default)]
pub(super) struct Batch {
    entries: Vec<(Option<Key>, Payload)>,
    bytes: u64,
    releases: Vec<Release>,
    /// Room in the queue that is given back once the batch is written.
    permits: Vec<OwnedSemaphorePermit>,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// A checkpoint of the state after a batch.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) state: Vec<u8>,
    /// For each topic the last message of those that nobody needs. A topic that isn't named is not needed at all.
    pub(super) floors: BTreeMap<u32, u64>,
    /// Segments whose live messages were written again.
    pub(super) evacuated: BTreeSet<u64>,
}

/// What the engine hears of batches: after a checkpoint the segments that are left, and why there is no writer any more.
pub(super) type Done = Result<Option<Vec<SegmentInfo>>, Failure>;

/// The writer thread's side.
pub(super) struct Writer<D: Disk = Store> {
    pub(super) journal: Journal<D>,
    pub(super) figures: Arc<Figures>,
}

impl Batch {
    pub(super) fn put(&mut self, key: Option<Key>, payload: Payload) {
        self.bytes += FRAME_HEADER_BYTES + payload.len() as u64;
        self.entries.push((key, payload));
    }

    pub(super) fn release(&mut self, release: Release) {
        self.releases.push(release);
    }

    pub(super) fn keep(&mut self, permit: OwnedSemaphorePermit) {
        self.permits.push(permit);
    }

    /// Adds what comes after it.
    pub(super) fn append(&mut self, mut next: Self) {
        if self.is_empty() {
            *self = next;
            return;
        }
        self.entries.append(&mut next.entries);
        self.bytes += next.bytes;
        self.releases.append(&mut next.releases);
        self.permits.append(&mut next.permits);
        self.checkpoint = next.checkpoint;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.releases.is_empty() && self.checkpoint.is_none()
    }

    /// What the batch adds to the journal.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn releases(&self) -> usize {
        self.releases.len()
    }
}

impl<D: Disk> Writer<D> {
    /// Writes batch after batch until there are no more, or one fails.
    pub(super) fn run(mut self, batches: &Taker, done: &UnboundedSender<Done>) {
        while let Some(batch) = batches.take() {
            let outcome = self.write(batch);
            let failed = outcome.is_err();
            let is_news = !matches!(outcome, Ok(None));
            if (is_news && done.send(outcome).is_err()) || failed {
                return;
            }
        }
    }

    pub(super) fn write(&mut self, batch: Batch) -> Done {
        let Batch { entries, releases, permits, checkpoint, bytes: _ } = batch;
        if !entries.is_empty() {
            let pieces: Vec<[&[u8]; 3]> = entries.iter().map(|(_, payload)| payload.pieces()).collect();
            let entries: Vec<Entry<'_>> =
                entries.iter().zip(&pieces).map(|((key, _), payload)| Entry { key: *key, payload }).collect();
            self.journal.append(&entries)?;
            fail_points::pass(Point::BrokerAppended);
            let begun = Instant::now();
            self.journal.sync()?;
            self.figures.journal_syncs.fetch_add(1, Ordering::Relaxed);
            self.figures.sync_seconds.observe(begun.elapsed().as_secs_f64());
            fail_points::pass(Point::BrokerSynced);
        }
        drop(permits);
        for release in releases {
            release();
        }
        let segments = checkpoint.map(|checkpoint| self.checkpoint(&checkpoint)).transpose()?;
        self.figures.note(&self.journal);
        Ok(segments)
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Vec<SegmentInfo>, Failure> {
        let mut dead = self.journal.segments();
        dead.retain(|segment| segment.sealed && checkpoint.frees(segment));
        let ids: Vec<u64> = dead.iter().map(|segment| segment.id).collect();
        match self.journal.checkpoint(self.journal.durable(), &checkpoint.state, &ids) {
            Ok(()) => {}
            // Nothing is lost without it: the journal grows, and a restart takes longer.
            Err(error @ broker_log::Error::CheckpointTooLarge { .. }) => {
                tracing::error!(%error, "No checkpoint was written, so no space is given back.");
                return Ok(self.journal.segments());
            }
            Err(error) => return Err(error.into()),
        }
        for segment in dead {
            match self.journal.remove_segment(segment.id) {
                Ok(()) => tracing::debug!(segment = segment.id, bytes = segment.bytes, "Removed a dead segment."),
                // An older checkpoint, kept in case that the newest is damaged, still needs it.
                Err(broker_log::Error::SegmentInUse { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.journal.segments())
    }
}

impl Checkpoint {
    /// Whether nobody needs anything of the segment.
    fn frees(&self, segment: &SegmentInfo) -> bool {
        let is_dead = |stream, last| self.floors.get(&stream).is_none_or(|floor| last <= *floor);
        self.evacuated.contains(&segment.id) || segment.streams.iter().all(|span| is_dead(span.stream, span.last))
    }
}
