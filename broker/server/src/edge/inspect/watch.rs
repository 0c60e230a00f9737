//! Figures as a stream. They are taken once a second for all who watch, and only while somebody does.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use broker_core::ProjectName;
use orderflow_proto::orderflow::broker::v1 as pb;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::status::stopping;
use super::render;
use crate::engine::{Engine, Error, Stats};

/// How often figures are taken.
const TICK: Duration = Duration::from_secs(1);
/// Responses that wait for a watcher to read them. It skips what is taken meanwhile.
const RESPONSES_MAX: usize = 1;

/// The figures that were taken last, and how many times they were.
type Taken = (u64, Option<Result<Arc<Stats>, Error>>);

/// Takes figures while somebody watches.
#[derive(Debug)]
pub(super) struct Watch<E> {
    engine: E,
    stop: CancellationToken,
    /// Held by the watchers and by nobody else, so that it ends with the last of them.
    taken: Mutex<Weak<watch::Receiver<Taken>>>,
}

impl<E: Engine> Watch<E> {
    pub(super) fn new(engine: E, stop: CancellationToken) -> Self {
        Self { engine, stop, taken: Mutex::default() }
    }

    /// A stream of every `seconds`th figures, from the next ones on.
    pub(super) fn open(
        &self,
        project: Option<ProjectName>,
        seconds: u64,
    ) -> ReceiverStream<Result<pb::WatchStatsResponse, Status>> {
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        let watcher = Watcher { taken: self.taken(), stop: self.stop.clone(), project, seconds };
        tokio::spawn(watcher.run(responses));
        ReceiverStream::new(stream)
    }

    /// The figures as they come; has them taken if nobody watches yet.
    fn taken(&self) -> Arc<watch::Receiver<Taken>> {
        let mut shared = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = shared.upgrade() {
            return taken;
        }
        let (sender, receiver) = watch::channel((0, None));
        tokio::spawn(take(self.engine.clone(), sender));
        let taken = Arc::new(receiver);
        *shared = Arc::downgrade(&taken);
        taken
    }
}

/// Takes figures until nobody watches any more.
async fn take<E: Engine>(engine: E, sender: watch::Sender<Taken>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
        let stats = engine.stats().await.map(Arc::new);
        let failed = stats.is_err();
        sender.send_modify(|(count, last)| {
            *count += 1;
            *last = Some(stats);
        });
        if failed {
            return;
        }
    }
}

struct Watcher {
    taken: Arc<watch::Receiver<Taken>>,
    stop: CancellationToken,
    project: Option<ProjectName>,
    seconds: u64,
}

impl Watcher {
    async fn run(self, responses: mpsc::Sender<Result<pb::WatchStatsResponse, Status>>) {
        let mut taken = (*self.taken).clone();
        let mut due = 0;
        loop {
            // What is taken while the watcher has not read the last response is skipped.
            let permit = tokio::select! {
                permit = responses.reserve() => permit,
                () = self.stop.cancelled() => break,
            };
            let Ok(permit) = permit else { return };
            let next = tokio::select! {
                next = taken.wait_for(|(count, last)| *count >= due && last.is_some()) => next,
                () = self.stop.cancelled() => break,
                // Frees the place that is reserved; the stream's end is noticed here as well.
                () = responses.closed() => return,
            };
            let Ok(next) = next else { break };
            let (count, stats) = (next.0, next.1.clone());
            drop(next);
            match stats {
                Some(Ok(stats)) => {
                    due = count + self.seconds;
                    let stats = Some(render::stats(&stats, self.project.as_ref()));
                    permit.send(Ok(pb::WatchStatsResponse { stats }));
                }
                Some(Err(error)) => return permit.send(Err(error.into())),
                None => {}
            }
        }
        // A watcher that does not read must not hold up the stop; to it, the stream just ends.
        responses.try_send(Err(stopping())).ok();
    }
}
