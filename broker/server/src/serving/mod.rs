//! The HTTP server: one task for each connection, which attends to all that is under way on it.
//!
//! Calls wait for the same disk sync, so their replies are ready at the same moment. Since one task has them all it writes
//! them at once: a packet for a group of replies, not for each.

mod turns;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
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

use self::turns::{NewCalls, Turns};
use crate::connection::{Arrivals, Connection, ConnectionInfo};
use crate::edge::Dialect;

/// A silent connection is asked this often whether its peer is still there.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that does not answer that for so long is gone.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that one connection may have open at a time. Clients put many streams and waiting pulls on one connection.
pub(crate) const CALLS_PER_CONNECTION_MAX: u32 = 1_000;
/// How long a new connection may say nothing at all, before its place goes to somebody else.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls of one connection that this side may have to break off, in all of its life. More of them and it is closed: a client
/// that opens more calls than it may, again and again, or goes on sending to calls that are over, costs more than it brings.
const BROKEN_OFF_CALLS_MAX: usize = 1_024;

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
                connections.spawn(attend(connection, routes.clone(), stop.child_token()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    // The port is free from here on: whoever connects is refused, instead of waiting for an answer that does not come.
    drop(arrivals);
    while connections.join_next().await.is_some() {}
}

/// Attends to a connection, and the calls on it, until it is closed.
async fn attend(connection: Connection, routes: Routes, stop: CancellationToken) {
    let mut stopping = pin!(stop.cancelled());
    let is_used = tokio::select! {
        used = timeout(FIRST_BYTE_TIMEOUT, connection.is_used()) => used.unwrap_or(false),
        () = &mut stopping => false,
    };
    if !is_used {
        return;
    }
    let info = connection.info().clone();
    let new_calls = NewCalls::default();
    let mut builder = auto::Builder::new(new_calls.clone());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .max_local_error_reset_streams(BROKEN_OFF_CALLS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    // Ends a connection that never completes the headers of an HTTP/1 request.
    builder.http1().timer(TokioTimer::new());
    let service = service_fn(move |request| answer(routes.clone(), info.clone(), request));
    let mut http = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut turns = Turns::new(new_calls);
    let mut is_stopping = false;
    let outcome = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            http.as_mut().graceful_shutdown();
            turns.want_connection();
        }
        turns.poll(http.as_mut(), cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(?error, "A connection broke.");
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
    let dialect = Dialect::of(request.headers());
    match timeout(limit, routes.call(request.map(Body::new))).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = Status::deadline_exceeded("the time that the client gave the call is over");
            Ok(dialect.refusal(late).map(Body::new))
        }
    }
}

/// How long the client gives a call: at most eight digits and a unit, as gRPC over HTTP/2 says it. Anything else is no
/// limit.
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

#[cfg(test)]
mod tests;
