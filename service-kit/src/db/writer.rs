//! The one task that writes: jobs that gathered while the last commit ran share the next one.

use std::time::Instant;

use sqlx::{AnyConnection, Connection as _};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, Span, error, warn};

use super::{Connection, Error, JobFuture, error};
use crate::telemetry::metrics;

/// Takes the turn to write at once. A transaction that began by reading could find that another process has written
/// meanwhile, and could not go on.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How many writes may wait for their turn. Further ones wait outside the queue, in their callers.
pub const QUEUE_JOBS_MAX: usize = 1_024;

/// How many writes share one commit at most.
pub const BATCH_JOBS_MAX: usize = 256;

type Job = Box<dyn for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Done> + Send>;

/// A job that was run and waits for the commit.
struct Done {
    keep: bool,
    reply: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// Takes writes. Clones share the task behind it.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    commits: watch::Receiver<u64>,
}

impl Writer {
    pub(super) fn start(connection: AnyConnection) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let (committed, commits) = watch::channel(0);
        tokio::spawn(work(connection, queue, committed));
        Self { jobs, commits }
    }

    pub(super) async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel::<Result<T, E>>();
        // What the job leaves in the outbox belongs to the trace of who asked for it.
        let span = Span::current();
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                let result = job(connection).instrument(span).await;
                let keep = result.is_ok();
                let reply = move |committed: Result<(), Error>| {
                    let result = result.and_then(|value| committed.map(|()| value).map_err(E::from));
                    // The caller may be gone; its write is done all the same.
                    drop(answer.send(result));
                };
                Done { keep, reply: Box::new(reply) }
            })
        });
        if self.jobs.send(job).await.is_err() {
            return Err(Error::Poisoned.into());
        }
        answered.await.unwrap_or_else(|_| Err(Error::Poisoned.into()))
    }

    pub(super) async fn poisoned(&self) -> Error {
        self.jobs.closed().await;
        Error::Poisoned
    }

    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }
}

async fn work(mut connection: AnyConnection, mut queue: mpsc::Receiver<Job>, committed: watch::Sender<u64>) {
    let mut batch = Vec::with_capacity(BATCH_JOBS_MAX);
    while queue.recv_many(&mut batch, BATCH_JOBS_MAX).await > 0 {
        let mut done = Vec::with_capacity(batch.len());
        let started = Instant::now();
        match commit(&mut connection, &mut batch, &mut done).await {
            Ok(()) => {
                committed.send_modify(|count| *count += 1);
                metrics::committed(done.len(), started.elapsed());
                done.into_iter().for_each(|done: Done| (done.reply)(Ok(())));
            }
            Err(error) => {
                // Whether anything reached the disk is unknown. Nobody is told that it did, and nothing is written
                // on top of it: the process ends, and the next start recovers what the journal holds.
                let cause = error.to_string();
                error!(cause, "a transaction was not committed; the database takes no more writes");
                queue.close();
                done.into_iter().for_each(|done| (done.reply)(Err(Error::Commit { cause: cause.clone() })));
                return;
            }
        }
    }
    drop(connection.close().await);
}

async fn commit(connection: &mut AnyConnection, batch: &mut Vec<Job>, done: &mut Vec<Done>) -> Result<(), sqlx::Error> {
    let mut transaction = loop {
        match connection.begin_with(BEGIN).await {
            // Nothing was written yet: it is another process's turn, however long that takes.
            Err(error) if error::is_busy(&error) => warn!("another process writes into the database; waiting for it"),
            begun => break begun?,
        }
    };
    for job in batch.drain(..) {
        let mut savepoint = transaction.begin().await?;
        let result = job(&mut savepoint).await;
        let keep = result.keep;
        done.push(result);
        if keep { savepoint.commit().await? } else { savepoint.rollback().await? }
    }
    transaction.commit().await
}
