//! From a directory to a running engine.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use broker_core::{Limits, Output, Recovery, Time};
use broker_log::{AHEAD_BYTES_DEFAULT, CHECKPOINT_BYTES_MAX, Checked, Disk, OsDisk, SEGMENT_BYTES_DEFAULT, Verify};
use tokio::sync::mpsc::{channel, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::codec;
use super::failure::Failure;
use super::fetch::published_at;
use super::handover::handover;
use super::inspect::Figures;
use super::store::{Journal, Mirror, Store};
use super::task::{State, Task};
use super::writer::{Batch, Writer};
use super::{Embedded, QUEUE_BYTES_MAX, QUEUE_COMMANDS_MAX, scrub, upkeep};
use crate::config::CHECKPOINT_BYTES_DEFAULT;

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    /// A checkpoint is written when the journal has grown by this much.
    pub(crate) checkpoint_bytes: u64,
    /// The size at which a segment of the journal is closed.
    pub(crate) segment_bytes: u64,
    pub(crate) ahead_bytes: u64,
    /// How much of the journal is read before anybody is served.
    pub(crate) verify: Verify,
    /// The largest checkpoint that is written.
    pub(crate) checkpoint_bytes_max: u64,
    /// Who keeps a copy of the directory, and says what is durable.
    pub(crate) mirror: Option<Arc<dyn Mirror>>,
}

impl Options {
    /// An engine on a directory, with everything else at its default.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            ahead_bytes: AHEAD_BYTES_DEFAULT,
            verify: Verify::SinceCheckpoint,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            mirror: None,
        }
    }
}

/// An engine at work.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) engine: Embedded,
    /// Ends the engine after what is queued, with a last checkpoint.
    pub(crate) stop: CancellationToken,
    /// The engine task.
    pub(crate) task: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Ends the engine, and waits until its directory is free again.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.stop.cancel();
        self.task.await.map_err(|_| Failure::Ended("the engine task"))?
    }
}

/// Recovers what the directory holds and starts to work on it.
pub(crate) async fn open(options: Options) -> Result<Running, Failure> {
    open_at(options, Clock::start()).await
}

/// Reads all of a directory that no engine works on, and changes nothing.
pub(crate) fn check(dir: &Path) -> Result<Checked, Failure> {
    if !dir.is_dir() {
        return Err(Failure::Directory { dir: dir.to_owned(), source: io::ErrorKind::NotFound.into() });
    }
    let disk = OsDisk::new(dir).map_err(|source| Failure::Directory { dir: dir.to_owned(), source })?;
    broker_log::check(&disk).map_err(|error| journal_failure(error, dir))
}

fn journal_failure(error: broker_log::Error, dir: &Path) -> Failure {
    match error {
        broker_log::Error::Locked => Failure::Locked { dir: dir.to_owned() },
        other => Failure::Journal(other),
    }
}

pub(super) async fn open_at(options: Options, clock: Clock) -> Result<Running, Failure> {
    let checkpoint_bytes = options.checkpoint_bytes;
    let recover = move || recover(options);
    let recovered = tokio::task::spawn_blocking(recover).await.map_err(|_| Failure::Ended("the recovery"))??;
    start(recovered, checkpoint_bytes, clock)
}

/// What was found in the directory.
struct Recovered {
    journal: Journal,
    recovery: Recovery,
    /// Segments that are still to be read.
    unread: Vec<u64>,
    /// When the youngest message was published.
    published_last: Time,
}

fn recover(options: Options) -> Result<Recovered, Failure> {
    let Options { dir, segment_bytes: segment_bytes_max, verify, checkpoint_bytes_max, mirror, .. } = options;
    let begun = Instant::now();
    let disk = OsDisk::new(&dir).map_err(|source| Failure::Directory { dir: dir.clone(), source })?;
    // A mirror would carry the zeros, and has no size to note.
    let ahead_bytes = if mirror.is_some() { 0 } else { options.ahead_bytes };
    let config = broker_log::Config { segment_bytes_max, verify, checkpoint_bytes_max, ahead_bytes };
    let (journal, recovered) =
        Journal::open(Store::new(disk, mirror), config).map_err(|error| journal_failure(error, &dir))?;
    if let Some(cut) = &recovered.cut {
        let broker_log::Cut { file, offset, bytes } = cut;
        tracing::warn!(file, offset, bytes, "Cut a torn tail: bytes that were written and never confirmed.");
    }
    for file in &recovered.checkpoints_damaged {
        tracing::warn!(file, "Passed over a damaged checkpoint.");
    }
    let (recovery, records) = restore(&journal, &recovered)?;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let reader = journal.reader();
    let mut published_last = Time::default();
    for (topic, last) in recovery.last_messages() {
        published_last = published_last.max(published_at(&reader, topic, last)?.unwrap_or_default());
    }
    let unread = recovered.unread;
    let (journal_bytes, unread_segments) = (journal.bytes_on_disk(), unread.len());
    tracing::info!(journal_bytes, unread_segments, records, took_ms, "Recovered the journal.");
    Ok(Recovered { journal, recovery, unread, published_last })
}

/// The state that a journal holds, and how many records came after its checkpoint.
pub(super) fn restore<D: Disk>(
    journal: &broker_log::Journal<D>,
    recovered: &broker_log::Recovered,
) -> Result<(Recovery, u64), Failure> {
    let mut recovery = match &recovered.checkpoint {
        Some(checkpoint) => {
            let snapshot = codec::decode_checkpoint(&checkpoint.state).map_err(Failure::Checkpoint)?;
            Recovery::restore(snapshot).map_err(Failure::Restore)?
        }
        None => Recovery::new(),
    };
    let mut records = 0_u64;
    journal.replay(recovered.replay_from(), |position, _, payload| {
        let record = codec::decode_record(payload).map_err(|source| Failure::Entry { position, source })?;
        if let Some(record) = record {
            recovery.apply(&record).map_err(|source| Failure::Replay { position, source })?;
            records += 1;
        }
        Ok::<_, Failure>(())
    })?;
    Ok((recovery, records))
}

fn start(recovered: Recovered, checkpoint_bytes: u64, clock: Clock) -> Result<Running, Failure> {
    let Recovered { journal, recovery, unread, published_last } = recovered;
    let ahead_ms = published_last.0.saturating_sub(clock.now().0);
    if ahead_ms > 0 {
        tracing::warn!(ahead_ms, "The youngest message is from the future, so the clock starts there.");
    }
    let clock = clock.not_before(published_last);
    let mut out = Output::new();
    let now = clock.now();
    let core = recovery.begin(Limits::default(), now.0, now, &mut out);

    let reader = journal.reader();
    let figures = Arc::new(Figures::new(now));
    figures.note(&journal);
    let (batches, next_batch) = handover();
    let (written, done) = unbounded_channel();
    let writer = Writer { journal, figures: figures.clone() };
    thread::Builder::new()
        .name("journal-writer".to_owned())
        .spawn(move || {
            writer.run(&next_batch, &written);
            // Says that the journal is closed.
            drop(written);
        })
        .map_err(Failure::Thread)?;

    let (commands, queue) = channel(QUEUE_COMMANDS_MAX);
    let (signal, signals) = unbounded_channel();
    let stop = CancellationToken::new();
    let (changes, _) = watch::channel(0);
    let mut task = Task {
        state: State { core, out, now, consumers: HashMap::new() },
        clock,
        commands: queue,
        signals,
        signal: signal.clone(),
        reader: reader.clone(),
        batches,
        done,
        stop: stop.clone(),
        changes: changes.clone(),
        checkpoint_bytes,
        batch: Batch::default(),
        bytes_since_checkpoint: 0,
        carry: None,
        evacuated: BTreeSet::new(),
    };
    task.begin();
    let engine = Embedded {
        commands,
        signal,
        queue_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
        consumer_last: Arc::new(AtomicU64::new(1)),
        figures,
        changes,
        reader,
    };
    tokio::spawn(upkeep::run(engine.clone(), stop.clone()));
    tokio::spawn(scrub::run(engine.clone(), unread, stop.clone()));
    Ok(Running { engine, stop, task: tokio::spawn(task.run()) })
}
