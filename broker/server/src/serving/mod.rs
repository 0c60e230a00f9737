//! The HTTP server: one task for each connection, which attends to all that is under way on it.
//!
//! Calls wait for the same disk sync, so their replies are ready at the same moment. Since one task has them all it writes
//! them at once: a packet for a group of replies, not for each.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service;

use crate::connection::{Arrivals, Connection, ConnectionInfo};
use crate::edge::refusal;

/// A silent connection is asked this often whether its peer is still there.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that does not answer that for so long is gone.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that one connection may have open at a time. Clients put many streams and waiting pulls on one connection.
pub(crate) const CALLS_PER_CONNECTION_MAX: u32 = 1_000;
/// How often a connection is looked after in one turn, before other tasks have theirs.
const ROUNDS_MAX: usize = 4;

/// Serves whoever connects until `stop` is cancelled; then no more calls are taken, and it waits for those that are open.
/// Dropped, it cuts them off.
pub(crate) async fn serve(listener: TcpListener, connections_max: usize, routes: Routes, stop: CancellationToken) {
    let routes = routes.prepare();
    let mut connections = JoinSet::new();
    let mut arrivals = Arrivals::new(listener, connections_max);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            connection = arrivals.next() => {
                connections.spawn(attend(connection, routes.clone(), stop.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    // Nobody should be let in, and then wait for an answer that does not come.
    drop(arrivals);
    while connections.join_next().await.is_some() {}
}

/// Attends to a connection, and the calls on it, until it is closed.
async fn attend(connection: Connection, routes: Routes, stop: CancellationToken) {
    let info = connection.info().clone();
    let arrived = Arrived::default();
    let mut builder = auto::Builder::new(arrived.clone());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    // Ends a connection that never sends its headers.
    builder.http1().timer(TokioTimer::new());
    let service = service_fn(move |request| answer(routes.clone(), info.clone(), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut stopping = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut turns = Turns::new(arrived);
    let closed = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
            turns.want();
        }
        turns.poll(connection.as_mut(), cx)
    });
    if let Err(error) = closed.await {
        tracing::debug!(%error, "A connection broke.");
    }
}

async fn answer(
    mut routes: Routes,
    info: ConnectionInfo,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(info);
    let Some(limit) = time_limit(request.headers()) else {
        return routes.call(request.map(Body::new)).await;
    };
    let headers = request.headers().clone();
    match timeout(limit, routes.call(request.map(Body::new))).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = Status::deadline_exceeded("the time that the client gave the call is over");
            Ok(refusal(&headers, late).map(Body::new))
        }
    }
}

/// How long the client gives a call: at most eight digits and a unit, as gRPC over HTTP/2 says it. What is no such limit is
/// none.
fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let limit = headers.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = limit.split_at_checked(limit.len().checked_sub(1)?)?;
    if count.is_empty() || count.len() > 8 || !count.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = count.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls that have come on a connection, and are not begun.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<Vec<Call>>>);

impl Arrived {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Arrived {
    fn execute(&self, call: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(call));
    }
}

/// The turns of a connection's task.
struct Turns {
    arrived: Arrived,
    calls: FuturesUnordered<Call>,
    nudge: Option<Arc<Nudge>>,
}

impl Turns {
    fn new(arrived: Arrived) -> Self {
        Self { arrived, calls: FuturesUnordered::new(), nudge: None }
    }

    /// Has the connection looked after in the next turn.
    fn want(&self) {
        if let Some(nudge) = &self.nudge {
            nudge.is_wanted.store(true, Ordering::SeqCst);
        }
    }

    /// Reads what has come, goes on with the calls that can, and writes what they reply.
    fn poll<C, E>(&mut self, mut connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        C: Future<Output = Result<(), E>>,
    {
        let nudge = match &self.nudge {
            Some(nudge) if nudge.task.will_wake(cx.waker()) => Arc::clone(nudge),
            _ => Arc::clone(self.nudge.insert(Nudge::new(cx.waker().clone()))),
        };
        for _ in 0..ROUNDS_MAX {
            nudge.is_turn.store(true, Ordering::SeqCst);
            if nudge.is_wanted.swap(false, Ordering::SeqCst) {
                let waker = Waker::from(Arc::clone(&nudge));
                if let Poll::Ready(outcome) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(outcome);
                }
                self.calls.extend(self.arrived.take());
            }
            while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(cx) {}
            nudge.is_turn.store(false, Ordering::SeqCst);
            if !nudge.is_wanted.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

/// Says that the connection wants to be looked after. Said by a call in a turn it wakes nobody: the turn sees to it.
struct Nudge {
    task: Waker,
    is_wanted: AtomicBool,
    is_turn: AtomicBool,
}

impl Nudge {
    fn new(task: Waker) -> Arc<Self> {
        Arc::new(Self { task, is_wanted: AtomicBool::new(true), is_turn: AtomicBool::new(false) })
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_wanted.store(true, Ordering::SeqCst);
        if !self.is_turn.load(Ordering::SeqCst) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests;
