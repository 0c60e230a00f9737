//! The task that writes: work that gathered while the last commit ran shares the next one. And the task that reads for
//! many at once, which does the same without a transaction.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use sqlx::{AnyConnection, Connection as _};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, Span, error, warn};

use super::bulk::pieces;
use super::{Connection, Error, JobFuture, error};
use crate::telemetry::metrics;

/// Takes the turn to write at once. A transaction that began by reading could find that another process has written
/// meanwhile, and could not go on.
const BEGIN: &str = "BEGIN IMMEDIATE";

// Plain statements rather than the driver's transactions, which wait for one more answer each. Whatever happens to this
// task, the connection ends with it, and what was not committed is undone.
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
const MARK: &str = "SAVEPOINT work";
const MARK_AGAIN: &str = "RELEASE work; SAVEPOINT work";
const BACK_TO_MARK: &str = "ROLLBACK TO work";

/// How many writes may wait for their turn. Further ones wait outside the queue, in their callers.
pub const QUEUE_JOBS_MAX: usize = 1_024;

/// How many writes share one commit at most.
pub const BATCH_JOBS_MAX: usize = 256;

/// What is done as one: all of it is kept, or nothing.
pub(super) trait Work: Send {
    /// Does it, and says whether it is to be kept.
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> JobFuture<'c, bool>;

    /// What is to be done instead after it failed: its parts, each for itself. One part alone is what failed.
    fn parts(self: Box<Self>) -> Vec<Box<dyn Work>>;

    /// Tells who asked for it, or why the transaction was not committed.
    fn answer(self: Box<Self>, committed: Result<(), &str>);
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
pub(super) fn start_writer(connection: AnyConnection) -> (Queue, watch::Receiver<u64>) {
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
    let (committed, commits) = watch::channel(0);
    tokio::spawn(write(connection, queue, committed));
    (Queue { jobs }, commits)
}

/// Starts the task that reads.
pub(super) fn start_reader(connection: AnyConnection) -> Queue {
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
    tokio::spawn(read(connection, queue));
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

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let result = self.result.unwrap_or_else(|| Err(Error::Poisoned.into()));
        let committed = committed.map_err(|cause| Error::Commit { cause: cause.to_owned() });
        // The caller may be gone; its write is done all the same.
        drop(self.answer.send(result.and_then(|value| committed.map(|()| value).map_err(E::from))));
    }
}

async fn write(mut connection: AnyConnection, mut queue: mpsc::Receiver<Job>, committed: watch::Sender<u64>) {
    let mut batch = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut batch, BATCH_JOBS_MAX).await > 0 {
        let (writes, started) = (batch.len(), Instant::now());
        let quiet = batch.iter().all(|job| matches!(job, Job::Quiet(_)));
        let mut done = Vec::with_capacity(writes);
        match commit(&mut connection, gather(&mut batch), &mut done).await {
            Ok(()) => {
                if !quiet {
                    committed.send_modify(|count| *count += 1);
                }
                metrics::committed(writes, started.elapsed());
                done.into_iter().for_each(|done| done.answer(Ok(())));
            }
            Err(error) => {
                // Whether anything reached the disk is unknown. Nobody is told that it did, and nothing is written
                // on top of it: the process ends, and the next start recovers what the journal holds.
                let cause = error.to_string();
                error!(cause, "a transaction was not committed; the database takes no more writes");
                queue.close();
                done.into_iter().for_each(|done| done.answer(Err(&cause)));
                return;
            }
        }
    }
    drop(connection.close().await);
}

async fn read(mut connection: AnyConnection, mut queue: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut batch, BATCH_JOBS_MAX).await > 0 {
        for mut work in gather(&mut batch) {
            if work.run(&mut connection).await {
                work.answer(Ok(()));
                continue;
            }
            let mut parts = work.parts();
            // One part alone is what has just failed.
            if parts.len() > 1 {
                for part in &mut parts {
                    part.run(&mut connection).await;
                }
            }
            parts.into_iter().for_each(|part| part.answer(Ok(())));
        }
    }
    drop(connection.close().await);
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

/// Does all works in one transaction. One that fails undoes only itself, and is done again in parts if it has some.
/// What was done, or has failed for good, is in `done`.
async fn commit(
    connection: &mut AnyConnection,
    mut works: Vec<Box<dyn Work>>,
    done: &mut Vec<Box<dyn Work>>,
) -> Result<(), sqlx::Error> {
    begin(connection).await?;
    if works.len() == 1
        && let Some(mut alone) = works.pop()
    {
        // Nothing else is in the transaction that a failure must not undo.
        if alone.run(connection).await {
            done.push(alone);
            return execute(connection, COMMIT).await;
        }
        execute(connection, ROLLBACK).await?;
        works = alone.parts();
        if works.len() == 1 {
            done.append(&mut works);
            return Ok(());
        }
        begin(connection).await?;
    }
    execute(connection, MARK).await?;
    let mut works: Vec<_> = works.into_iter().rev().collect();
    while let Some(mut work) = works.pop() {
        if work.run(connection).await {
            done.push(work);
            execute(connection, MARK_AGAIN).await?;
            continue;
        }
        execute(connection, BACK_TO_MARK).await?;
        let mut parts = work.parts();
        if parts.len() == 1 {
            done.append(&mut parts);
        } else {
            works.extend(parts.into_iter().rev());
        }
    }
    execute(connection, COMMIT).await
}

async fn begin(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    loop {
        match execute(connection, BEGIN).await {
            // Nothing was written yet: it is another process's turn, however long that takes.
            Err(error) if error::is_busy(&error) => warn!("another process writes into the database; waiting for it"),
            begun => return begun,
        }
    }
}

async fn execute(connection: &mut AnyConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}
