//! The task that writes: work that gathered while the last commit ran shares the next one. And the task that reads for
//! many at once, which does the same without a transaction.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use sqlx::{AnyConnection, SqlSafeStr};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, Span, error, warn};

use super::bulk::pieces;
use super::link::{Failure, Link, Ways};
use super::server::{CONNECT_MS_MAX, TURN_MS_MAX, within};
use super::{Connection, Error, JobFuture, error};
use crate::telemetry::metrics;

// Plain statements rather than the driver's transactions, which wait for one more answer each. Whatever happens to this
// task, the connection ends with it, and what was not committed is undone.
const ROLLBACK: &str = "ROLLBACK";
const MARK: &str = "SAVEPOINT work";
const MARK_AGAIN: &str = "RELEASE work; SAVEPOINT work";
const BACK_TO_MARK: &str = "ROLLBACK TO work";

/// How many writes may wait for their turn. Further ones wait outside the queue, in their callers.
pub const QUEUE_JOBS_MAX: usize = 1_024;

/// How many writes share one commit at most.
pub const BATCH_JOBS_MAX: usize = 256;

/// How long the server may take to give a writer its turn, or to say that it is another's, in milliseconds. Over a connection
/// that is silent for longer nothing comes any more.
const BEGIN_MS_MAX: u64 = TURN_MS_MAX + CONNECT_MS_MAX;

/// What is done as one: all of it is kept, or nothing.
pub(super) trait Work: Send {
    /// Does it, and says whether it is to be kept.
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> JobFuture<'c, bool>;

    /// What is to be done instead after it failed: its parts, each for itself. One part alone is what failed.
    fn parts(self: Box<Self>) -> Vec<Box<dyn Work>>;

    /// Tells who asked for it what came of it, or why the transaction was not committed.
    fn answer(self: Box<Self>, committed: Result<(), &Failure>);
}

/// Work of one kind, of which any number can be done as one.
pub(super) trait Kind: Send + Sync {
    fn together(&self, entries: Vec<Entry>) -> Box<dyn Work>;
}

/// What its kind knows how to do.
pub(super) type Entry = Box<dyn Any + Send>;

/// Work that waits for its turn.
pub(super) enum Job {
    Single(Box<dyn Work>),
    /// Whoever waits for commits need not hear of it.
    Quiet(Box<dyn Work>),
    OfKind(Arc<dyn Kind>, Entry),
}

/// Takes work for a task. Clones share the task.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
}

/// Starts the task that writes, and counts its commits.
pub(super) fn start_writer(link: Link) -> (Queue, watch::Receiver<u64>) {
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
    let (committed, commits) = watch::channel(0);
    tokio::spawn(write(link, queue, committed));
    (Queue { jobs }, commits)
}

/// Starts the task that reads.
pub(super) fn start_reader(link: Link) -> Queue {
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
    tokio::spawn(read(link, queue));
    Queue { jobs }
}

impl Queue {
    /// Does one job. With `quiet`, whoever waits for commits does not hear of it.
    pub(super) async fn run<T, E, F>(&self, job: F, quiet: bool) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // What the job leaves in the outbox belongs to the trace of who asked for it.
        let single = Single { job: Some(job), span: Span::current(), result: None, answer };
        let job = if quiet { Job::Quiet(Box::new(single)) } else { Job::Single(Box::new(single)) };
        self.hand_over(job, answered).await
    }

    /// Puts work into the queue and waits for its answer.
    pub(super) async fn hand_over<T, E: From<Error>>(
        &self,
        job: Job,
        answered: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        if self.jobs.send(job).await.is_err() {
            return Err(Error::Poisoned.into());
        }
        answered.await.unwrap_or_else(|_| Err(Error::Poisoned.into()))
    }

    pub(super) async fn poisoned(&self) -> Error {
        self.jobs.closed().await;
        Error::Poisoned
    }
}

/// Work that is like no other.
struct Single<T, E, F> {
    job: Option<F>,
    span: Span,
    result: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Work for Single<T, E, F>
where
    F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> JobFuture<'c, bool> {
        Box::pin(async move {
            let Some(job) = self.job.take() else { return false };
            let result = job(connection).instrument(self.span.clone()).await;
            self.result.insert(result).is_ok()
        })
    }

    fn parts(self: Box<Self>) -> Vec<Box<dyn Work>> {
        vec![self]
    }

    fn answer(self: Box<Self>, committed: Result<(), &Failure>) {
        let answer = match (self.result, committed) {
            (Some(Ok(_)) | None, Err(failure)) => Err(failure.error().into()),
            (Some(result), _) => result,
            (None, Ok(())) => Err(Error::Poisoned.into()),
        };
        // The caller may be gone; its write is done all the same.
        drop(self.answer.send(answer));
    }
}

/// What shares a transaction. It outlives the transaction, however that ends, so that everybody gets an answer.
struct Batch {
    /// What is still to be done; the last one is the next.
    waiting: Vec<Box<dyn Work>>,
    /// What is being done.
    current: Option<Box<dyn Work>>,
    /// What was done, or has failed for good.
    done: Vec<Box<dyn Work>>,
}

impl Batch {
    fn new(works: Vec<Box<dyn Work>>) -> Self {
        let done = Vec::with_capacity(works.len());
        Self { waiting: works.into_iter().rev().collect(), current: None, done }
    }

    /// Does the next work, and says whether it is to be kept; `None` if there is no more.
    async fn run_next(&mut self, connection: &mut AnyConnection) -> Option<bool> {
        let next = self.waiting.pop()?;
        Some(self.current.insert(next).run(connection).await)
    }

    /// The work that was done last is done for good.
    fn settle(&mut self) {
        self.done.extend(self.current.take());
    }

    /// The work that was done last is done again in parts, if it has some.
    fn settle_failed(&mut self) {
        let mut parts = self.current.take().map(Work::parts).unwrap_or_default();
        if parts.len() == 1 {
            self.done.append(&mut parts);
        } else {
            self.waiting.extend(parts.into_iter().rev());
        }
    }

    fn answer(self, committed: Result<(), &Failure>) {
        let Self { waiting, current, done } = self;
        done.into_iter().chain(current).chain(waiting.into_iter().rev()).for_each(|work| work.answer(committed));
    }
}

async fn write(mut link: Link, mut queue: mpsc::Receiver<Job>, committed: watch::Sender<u64>) {
    let mut jobs = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut jobs, BATCH_JOBS_MAX).await > 0 {
        let (writes, started) = (jobs.len(), Instant::now());
        let quiet = jobs.iter().all(|job| matches!(job, Job::Quiet(_)));
        let mut batch = Batch::new(gather(&mut jobs));
        match commit(&mut link, &mut batch).await {
            Ok(()) => {
                if !quiet {
                    committed.send_modify(|count| *count += 1);
                }
                metrics::committed(writes, started.elapsed());
                batch.answer(Ok(()));
            }
            Err(failure) if !link.ways().to_server => {
                // Whether anything reached the disk is unknown. Nobody is told that it did, and nothing is written
                // on top of it: the process ends, and the next start recovers what the journal holds.
                error!(cause = failure.cause(), "a transaction was not committed; the database takes no more writes");
                queue.close();
                batch.answer(Err(&failure));
                return;
            }
            Err(failure) => {
                // The server knows what is on its disk. Whoever asked hears that the outcome is not known, and asks
                // again; the next batch goes over a new connection.
                if matches!(failure, Failure::Lost(_)) {
                    warn!(cause = failure.cause(), writes, "the outcome of a transaction is not known");
                    // What was committed all the same is looked for.
                    committed.send_modify(|count| *count += 1);
                }
                batch.answer(Err(&failure));
            }
        }
    }
    link.close().await;
}

async fn read(mut link: Link, mut queue: mpsc::Receiver<Job>) {
    let ways = link.ways().clone();
    let mut jobs = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut jobs, BATCH_JOBS_MAX).await > 0 {
        let mut batch = Batch::new(gather(&mut jobs));
        let limit = ways.limit();
        let taken = limit.on(link.take_sound()).await;
        let mut connection = match taken.unwrap_or_else(|late| Err(ways.not_begun(&late))) {
            Ok(connection) => connection,
            Err(failure) => {
                batch.answer(Err(&failure));
                continue;
            }
        };
        let mut all_well = true;
        let looking = async {
            while let Some(well) = batch.run_next(&mut connection).await {
                all_well &= well;
                if well { batch.settle() } else { batch.settle_failed() }
            }
            Ok(())
        };
        match limit.on(looking).await.flatten() {
            Ok(()) if all_well => link.give_back(connection),
            Ok(()) => link.give_back_doubtful(connection).await,
            Err(error) => {
                batch.answer(Err(&ways.not_begun(&error)));
                continue;
            }
        }
        batch.answer(Ok(()));
    }
    link.close().await;
}

/// What of a batch is of one kind becomes one work, or as many as it has [`pieces`], in the place of its first.
fn gather(batch: &mut Vec<Job>) -> Vec<Box<dyn Work>> {
    enum Slot {
        Single(Box<dyn Work>),
        OfKind(Arc<dyn Kind>, Vec<Entry>),
    }
    let mut slots: Vec<Slot> = Vec::with_capacity(batch.len());
    for job in batch.drain(..) {
        let (kind, entry) = match job {
            Job::Single(work) | Job::Quiet(work) => {
                slots.push(Slot::Single(work));
                continue;
            }
            Job::OfKind(kind, entry) => (kind, entry),
        };
        let same = slots.iter_mut().find_map(|slot| match slot {
            Slot::OfKind(other, entries) if std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&kind)) => Some(entries),
            _ => None,
        });
        match same {
            Some(entries) => entries.push(entry),
            None => slots.push(Slot::OfKind(kind, vec![entry])),
        }
    }
    let mut works = Vec::with_capacity(slots.len());
    for slot in slots {
        match slot {
            Slot::Single(work) => works.push(work),
            Slot::OfKind(kind, entries) => works.extend(pieces(entries).map(|entries| kind.together(entries))),
        }
    }
    works
}

/// Does a batch in one transaction. Over a connection that breaks, it is not done again: whoever asked does that.
async fn commit(link: &mut Link, batch: &mut Batch) -> Result<(), Failure> {
    let ways = link.ways().clone();
    // One for everything: whoever waits for the next batch counts on the end of this one.
    let limit = ways.limit();
    let begun = limit.on(begun(link, &ways)).await;
    let mut connection = begun.unwrap_or_else(|late| Err(ways.not_begun(&late)))?;
    match limit.on(fill(&ways, &mut connection, batch)).await.flatten() {
        Ok(()) => {
            link.give_back(connection);
            Ok(())
        }
        Err(error) => Err(ways.broken(&error)),
    }
}

/// A connection on which a transaction has begun.
async fn begun(link: &mut Link, ways: &Ways) -> Result<AnyConnection, Failure> {
    // A connection that was lost while nobody used it says so only now, before anything was written.
    let mut may_be_stale = ways.to_server && link.stands();
    loop {
        let mut connection = link.take().await?;
        match begin(ways, &mut connection).await {
            Ok(()) => return Ok(connection),
            Err(_) if may_be_stale => may_be_stale = false,
            Err(error) => return Err(ways.not_begun(&error)),
        }
    }
}

/// Does all works in the transaction that has begun, and commits it. One that fails undoes only itself, and is done again
/// in parts if it has some.
async fn fill(ways: &Ways, connection: &mut AnyConnection, batch: &mut Batch) -> Result<(), sqlx::Error> {
    if batch.waiting.len() == 1 {
        // Nothing else is in the transaction that a failure must not undo.
        if batch.run_next(connection).await == Some(true) {
            execute(connection, ways.commit).await?;
            batch.settle();
            return Ok(());
        }
        execute(connection, ROLLBACK).await?;
        batch.settle_failed();
        if batch.waiting.is_empty() {
            return Ok(());
        }
        begin(ways, connection).await?;
    }
    execute(connection, MARK).await?;
    while let Some(keep) = batch.run_next(connection).await {
        if keep {
            execute(connection, MARK_AGAIN).await?;
            batch.settle();
        } else {
            execute(connection, BACK_TO_MARK).await?;
            batch.settle_failed();
        }
    }
    execute(connection, ways.commit).await
}

async fn begin(ways: &Ways, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    loop {
        let asked = execute(connection, ways.begin.clone());
        let asked = if ways.to_server { within(BEGIN_MS_MAX, asked).await } else { asked.await };
        match asked {
            // Nothing was written yet: it is another process's turn, however long that takes.
            Err(error) if error::is_busy(&error) => {
                warn!("another process writes into the database; waiting for it");
                if ways.to_server {
                    execute(connection, ROLLBACK).await?;
                }
            }
            begun => return begun,
        }
    }
}

async fn execute(connection: &mut AnyConnection, sql: impl SqlSafeStr) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}
