//! Where the engine task and the writer meet: what gathers while the writer syncs lies here, and the writer takes it without
//! a word to the engine. So a sync follows the one before it at once, and nobody is woken for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::writer::Batch;

/// A batch takes no more when it holds this many bytes.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// A batch takes no more when it holds this many replies and effects.
const BATCH_RELEASES_MAX: usize = 16_384;

/// The side of the engine task. The writer ends, after all that was put down, when this is dropped.
pub(super) struct Giver(Arc<Desk>);

/// The side of the writer.
pub(super) struct Taker(Arc<Desk>);

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    batch: Batch,
    writer_waits: bool,
    giver_waits: bool,
    /// Nothing more comes.
    closed: bool,
}

/// Both sides of an empty desk.
pub(super) fn handover() -> (Giver, Taker) {
    let desk = Arc::new(Desk::default());
    (Giver(Arc::clone(&desk)), Taker(desk))
}

impl Giver {
    /// Whether there is room. If there is none, [`emptied`](Self::emptied) tells of some.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.0.lock();
        let batch = &state.batch;
        // A checkpoint is the state after its batch, so nothing may be added to that one.
        let has_room =
            batch.checkpoint.is_none() && batch.bytes() < BATCH_BYTES_MAX && batch.releases() < BATCH_RELEASES_MAX;
        state.giver_waits = !has_room;
        has_room
    }

    /// Puts a batch behind what lies there.
    pub(super) fn put(&self, batch: Batch) {
        let mut state = self.0.lock();
        state.batch.append(batch);
        if state.writer_waits {
            self.0.filled.notify_one();
        }
    }

    /// Waits until the writer has taken what lay there, after it was found to be too much.
    pub(super) async fn emptied(&self) {
        self.0.emptied.notified().await;
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl Taker {
    /// What has gathered, as soon as there is something. Nothing when nothing more comes.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.0.lock();
        while state.batch.is_empty() {
            if state.closed {
                return None;
            }
            state.writer_waits = true;
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer_waits = false;
        if std::mem::take(&mut state.giver_waits) {
            self.0.emptied.notify_one();
        }
        Some(std::mem::take(&mut state.batch))
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::engine::embedded::writer::Checkpoint;

    /// Nothing that a test waits for takes longer, unless it does not happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn batch(releases: usize) -> Batch {
        let mut batch = Batch::default();
        (0..releases).for_each(|_| batch.release(Box::new(|| {})));
        batch
    }

    #[test]
    fn what_gathers_is_taken_at_once_and_the_last_of_it_after_the_end() {
        let (giver, taker) = handover();
        giver.put(batch(1));
        giver.put(batch(2));
        assert_eq!(taker.take().unwrap().releases(), 3);
        giver.put(batch(4));
        drop(giver);
        assert_eq!(taker.take().unwrap().releases(), 4);
        assert!(taker.take().is_none());
    }

    #[test]
    fn a_checkpoint_lets_nothing_be_added_to_its_batch() {
        let (giver, taker) = handover();
        let checkpoint = Checkpoint { state: Vec::new(), floors: [].into(), evacuated: [].into() };
        let mut last = batch(0);
        last.checkpoint = Some(checkpoint);
        giver.put(last);
        assert!(!giver.has_room());
        assert!(taker.take().unwrap().checkpoint.is_some());
        assert!(giver.has_room());
    }

    #[tokio::test]
    async fn a_full_desk_tells_when_it_was_emptied() {
        let (giver, taker) = handover();
        giver.put(batch(BATCH_RELEASES_MAX - 1));
        assert!(giver.has_room());
        giver.put(batch(1));
        assert!(!giver.has_room());
        let writer = std::thread::spawn(move || taker.take().unwrap().releases());
        tokio::time::timeout(PATIENCE, giver.emptied()).await.unwrap();
        assert_eq!(writer.join().unwrap(), BATCH_RELEASES_MAX);
        assert!(giver.has_room());
    }

    #[test]
    fn a_writer_that_waits_is_woken() {
        let (giver, taker) = handover();
        let (took, taken) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            std::iter::from_fn(|| taker.take()).for_each(|batch| took.send(batch.releases()).unwrap());
        });
        let begun = Instant::now();
        while !giver.0.lock().writer_waits {
            assert!(begun.elapsed() < PATIENCE, "the writer does not wait");
            std::thread::yield_now();
        }
        giver.put(batch(1));
        // Before the giver ends, which wakes it as well.
        assert_eq!(taken.recv_timeout(PATIENCE), Ok(1));
        drop(giver);
        writer.join().unwrap();
    }
}
