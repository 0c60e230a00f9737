//! A circuit breaker: stops calling what is down, and lets one call find out when it is back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::metrics;

/// The shortest pause between two attempts of one caller, in milliseconds, before it is doubled.
const PAUSE_MS: u64 = 50;

/// When a breaker opens and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many calls in a row have to fail before it opens.
    pub failures_to_open: u32,
    /// How long it stays open at first, in milliseconds. Each failed probe doubles it.
    pub open_ms: u64,
    /// How long it stays open at most, in milliseconds.
    pub open_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failures_to_open: 5, open_ms: 500, open_ms_max: 5_000 }
    }
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every call.
    Closed,
    /// None.
    Open,
    /// One call, which finds out.
    HalfOpen,
}

/// The other side gave no answer: refused, timed out, overloaded. A decline is an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unavailable: {0}")]
pub struct Unavailable(pub String);

/// The service is stopping; waiting has no end in sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service is stopping")]
pub struct Interrupted;

/// A breaker in front of one thing. Clones share it.
#[derive(Clone, Debug)]
pub struct Breaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    settings: Settings,
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Inner {
    failures: u32,
    open_ms: u64,
    open_until: Instant,
}

impl Breaker {
    /// A closed breaker in front of what `name` says.
    pub fn new(name: &'static str, settings: Settings) -> Self {
        let inner = Inner { failures: 0, open_ms: settings.open_ms, open_until: Instant::now() };
        let (state, _) = watch::channel(State::Closed);
        Self { shared: Arc::new(Shared { name, settings, inner: Mutex::new(inner), state }) }
    }

    /// What it lets through now.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Calls until there is an answer, however long the outage is.
    ///
    /// `stopping` ends the waiting, not a call that has begun: a call has a time limit of its own.
    pub async fn until_answered<T, F, R>(&self, stopping: &CancellationToken, mut call: F) -> Result<T, Interrupted>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, Unavailable>>,
    {
        let mut failures = 0;
        loop {
            if let Ok(answer) = self.once(stopping, failures, &mut call).await? {
                return Ok(answer);
            }
            failures += 1;
        }
    }

    /// Makes one call as soon as one may be made, after a pause that grows with the `failures` of this caller so far.
    /// For a caller that has something to do between its calls; [`Self::until_answered`] is for all others.
    pub async fn once<T, R>(
        &self,
        stopping: &CancellationToken,
        failures: u32,
        call: impl FnOnce() -> R,
    ) -> Result<Result<T, Unavailable>, Interrupted>
    where
        R: Future<Output = Result<T, Unavailable>>,
    {
        let permit = async {
            if failures > 0 {
                tokio::time::sleep(self.pause(failures)).await;
            }
            self.permit().await
        };
        let permit = tokio::select! {
            biased;
            () = stopping.cancelled() => return Err(Interrupted),
            permit = permit => permit,
        };
        Ok(permit.call(call).await)
    }

    /// Makes one call if one may be made at once, after the same pause; `None` while calls have to wait.
    pub async fn at_once<T, R>(&self, failures: u32, call: impl FnOnce() -> R) -> Option<Result<T, Unavailable>>
    where
        R: Future<Output = Result<T, Unavailable>>,
    {
        if failures > 0 {
            tokio::time::sleep(self.pause(failures)).await;
        }
        let probe = match self.state() {
            State::Closed => false,
            State::HalfOpen => return None,
            State::Open => {
                let due = self.shared.inner().open_until <= Instant::now();
                if !due || !self.shared.turn(State::Open, State::HalfOpen) {
                    return None;
                }
                true
            }
        };
        let permit = Permit { shared: &self.shared, probe, answered: false };
        Some(permit.call(call).await)
    }

    /// Waits until a call may be made.
    async fn permit(&self) -> Permit<'_> {
        let mut changes = self.shared.state.subscribe();
        loop {
            let open_until = match *changes.borrow_and_update() {
                State::Closed => return Permit { shared: &self.shared, probe: false, answered: false },
                State::HalfOpen => None,
                State::Open => Some(self.shared.inner().open_until),
            };
            match open_until {
                Some(time) if time <= Instant::now() => {
                    if self.shared.turn(State::Open, State::HalfOpen) {
                        return Permit { shared: &self.shared, probe: true, answered: false };
                    }
                }
                Some(time) => tokio::time::sleep_until(time).await,
                // The sender lives in `self`, so that waiting for it cannot fail.
                None => drop(changes.changed().await),
            }
        }
    }

    /// A pause between one caller's attempts, doubled with each, with jitter so that callers do not march in step.
    fn pause(&self, failures: u32) -> Duration {
        let most_ms = PAUSE_MS.saturating_mul(1 << failures.min(16)).min(self.shared.settings.open_ms_max).max(1);
        Duration::from_millis(fastrand::u64(most_ms.div_ceil(2)..=most_ms))
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes from one state to the other if it is in the first; says whether it went.
    fn turn(&self, from: State, to: State) -> bool {
        self.state.send_if_modified(|state| {
            let turns = *state == from;
            if turns {
                *state = to;
            }
            turns
        })
    }
}

/// Leave to make one call.
struct Permit<'a> {
    shared: &'a Shared,
    probe: bool,
    answered: bool,
}

impl Permit<'_> {
    async fn call<T, R>(self, call: impl FnOnce() -> R) -> Result<T, Unavailable>
    where
        R: Future<Output = Result<T, Unavailable>>,
    {
        let answer = call().await;
        match &answer {
            Ok(_) => self.succeeded(),
            Err(Unavailable(reason)) => self.failed(reason),
        }
        answer
    }

    fn succeeded(mut self) {
        self.answered = true;
        let settings = &self.shared.settings;
        let mut inner = self.shared.inner();
        (inner.failures, inner.open_ms) = (0, settings.open_ms);
        if self.probe && self.shared.turn(State::HalfOpen, State::Closed) {
            metrics::breaker(self.shared.name, false);
            info!("the {} answers again; calls go on", self.shared.name);
        }
    }

    fn failed(mut self, reason: &str) {
        self.answered = true;
        let Shared { settings, name, .. } = self.shared;
        let mut inner = self.shared.inner();
        inner.failures = inner.failures.saturating_add(1);
        if self.probe {
            inner.open_ms = inner.open_ms.saturating_mul(2).min(settings.open_ms_max);
            inner.open_until = Instant::now() + Duration::from_millis(inner.open_ms);
            self.shared.turn(State::HalfOpen, State::Open);
        } else if inner.failures >= settings.failures_to_open {
            inner.open_until = Instant::now() + Duration::from_millis(inner.open_ms);
            if self.shared.turn(State::Closed, State::Open) {
                metrics::breaker(name, true);
                warn!(reason, "the {name} does not answer; calls wait until it does");
            }
        }
    }
}

impl Drop for Permit<'_> {
    /// A probe that was dropped has found out nothing: the next caller probes.
    fn drop(&mut self) {
        if self.probe && !self.answered {
            self.shared.turn(State::HalfOpen, State::Open);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SETTINGS: Settings = Settings { failures_to_open: 3, open_ms: 1_000, open_ms_max: 3_000 };

    fn breaker() -> (Breaker, CancellationToken) {
        (Breaker::new("test", SETTINGS), CancellationToken::new())
    }

    fn down<T>() -> Result<T, Unavailable> {
        Err(Unavailable("down".into()))
    }

    /// Calls that fail until `up_after`, and how many there were.
    async fn call_until_up(breaker: &Breaker, stopping: &CancellationToken, up_after: Duration) -> u32 {
        let (calls, began) = (AtomicU32::new(0), Instant::now());
        let answer = breaker.until_answered(stopping, || async {
            calls.fetch_add(1, Ordering::Relaxed);
            if began.elapsed() < up_after { down() } else { Ok("answer") }
        });
        assert_eq!(answer.await, Ok("answer"));
        calls.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_leaves_it_closed() {
        let (breaker, stopping) = breaker();
        assert_eq!(call_until_up(&breaker, &stopping, Duration::ZERO).await, 1);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_probes_at_growing_distances() {
        let (breaker, stopping) = breaker();
        let mut seen = breaker.shared.state.subscribe();
        let began = Instant::now();
        let calls = call_until_up(&breaker, &stopping, Duration::from_secs(9));
        let opened = async {
            seen.wait_for(|state| *state == State::Open).await.unwrap();
            began.elapsed()
        };
        let (calls, opened) = tokio::join!(calls, opened);
        assert!(opened < Duration::from_secs(1), "three failures come quickly: {opened:?}");
        // Three to open it, then probes after 1 s, 2 s, 3 s and 3 s, each a little late by the caller's own pause.
        assert_eq!(calls, 3 + 4);
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.shared.inner().open_ms, SETTINGS.open_ms, "the next outage begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_between_answers_does_not_open_it() {
        let (breaker, stopping) = breaker();
        for _ in 0..10 {
            let first = AtomicU32::new(0);
            let answer = breaker.until_answered(&stopping, || async {
                if first.fetch_add(1, Ordering::Relaxed) < 2 { down() } else { Ok(()) }
            });
            answer.await.unwrap();
            assert_eq!(breaker.state(), State::Closed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_is_open_one_call_finds_out_for_all() {
        let (breaker, stopping) = breaker();
        let (calls, up) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (breaker, stopping, calls, up) = (breaker.clone(), stopping.clone(), calls.clone(), up.clone());
            callers.spawn(async move {
                let call = || async {
                    calls.fetch_add(1, Ordering::Relaxed);
                    // An answer takes its time, so that callers could crowd in meanwhile.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if up.load(Ordering::Relaxed) == 0 { down() } else { Ok(()) }
                };
                breaker.until_answered(&stopping, call).await.unwrap();
            });
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(breaker.state(), State::Open);
        let before = calls.load(Ordering::Relaxed);
        assert_eq!(before, 100, "those that were under way when it opened");
        tokio::time::sleep(Duration::from_secs(6)).await;
        let probes = calls.load(Ordering::Relaxed) - before;
        assert!((2..=3).contains(&probes), "{probes} probes at 1 s, 3 s and 6 s");
        up.store(1, Ordering::Relaxed);
        callers.join_all().await;
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_leaves_the_probe_to_the_next_caller() {
        let (breaker, stopping) = breaker();
        let never = breaker.until_answered(&stopping, || async { down::<()>() });
        assert!(tokio::time::timeout(Duration::from_millis(900), never).await.is_err());
        assert_eq!(breaker.state(), State::Open);
        let hangs = breaker.until_answered(&stopping, std::future::pending::<Result<(), _>>);
        assert!(tokio::time::timeout(Duration::from_secs(2), hangs).await.is_err());
        assert_eq!(call_until_up(&breaker, &stopping, Duration::ZERO).await, 1);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_is_told_at_once_and_probes_when_it_is_time() {
        let (breaker, _) = breaker();
        for failures in 0..SETTINGS.failures_to_open {
            assert_eq!(breaker.at_once(failures, || async { down::<()>() }).await, Some(down()));
        }
        let calls = AtomicU32::new(0);
        let call = || async {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Unavailable>(())
        };
        let began = Instant::now();
        assert_eq!(breaker.at_once(0, call).await, None);
        assert_eq!((began.elapsed(), calls.load(Ordering::Relaxed)), (Duration::ZERO, 0));
        tokio::time::sleep(Duration::from_millis(SETTINGS.open_ms)).await;
        assert_eq!(breaker.at_once(0, call).await, Some(Ok(())));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait_and_not_the_call() {
        let (breaker, stopping) = breaker();
        let call = breaker.until_answered(&stopping, || async {
            stopping.cancel();
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, Unavailable>("charged")
        });
        assert_eq!(call.await, Ok("charged"));
        assert_eq!(breaker.until_answered(&stopping, || async { down::<()>() }).await, Err(Interrupted));
    }
}
