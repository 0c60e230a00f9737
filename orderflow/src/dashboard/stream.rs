//! `GET /api/events`: server-sent events, for as long as somebody looks.
//!
//! Who reads slowly misses pictures of the present, but no sample: those wait in the history.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use service_kit::clock::now_ms;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time;
use tokio_stream::wrappers::ReceiverStream;

use super::http::Page;
use super::{Refusal, live::Live};

/// Browsers that may look at the same time.
pub(super) const LOOKERS_MAX: usize = 32;
/// After so long a silence a comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How far before now the samples begin for who names no last one, in milliseconds.
const RECENT_MS: i64 = 5_000;

pub(super) async fn events(State(page): State<Page>, headers: HeaderMap) -> Result<Response, Refusal> {
    let place = Arc::clone(&page.lookers).try_acquire_owned().map_err(|_| {
        let problem = format!("{LOOKERS_MAX} browsers look already; close one of the pages");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, problem)
    })?;
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    // One event may wait while the socket is full; the next is made when there is room for it.
    let (sender, receiver) = mpsc::channel(1);
    let after_ms = last_id.unwrap_or_else(|| now_ms() - RECENT_MS);
    tokio::spawn(async move {
        let ended = sender.clone();
        tokio::select! {
            () = feed(&page.live, &sender, after_ms, place) => {}
            () = ended.closed() => {}
            () = page.ending.cancelled() => {}
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// Sends until the other side is gone.
async fn feed(
    live: &Live,
    sender: &mpsc::Sender<Result<Bytes, Infallible>>,
    mut after_ms: i64,
    _place: OwnedSemaphorePermit,
) {
    let mut ticks = live.ticks();
    let mut revision = live.flow().revision();
    loop {
        let mut text = event("state", None, &live.picture());
        let (samples, revised) = {
            let flow = live.flow();
            let revised = flow.revised(revision);
            revision = flow.revision();
            (flow.samples(after_ms), revised)
        };
        for sample in samples {
            after_ms = sample.time_ms;
            text.extend(event("sample", Some(sample.time_ms), &json(&sample)));
        }
        // What is told again has no id: whoever comes back is to go on where the samples ended.
        for sample in revised.iter().filter(|sample| sample.time_ms <= after_ms) {
            text.extend(event("sample", None, &json(sample)));
        }
        if sender.send(Ok(text.into())).await.is_err() {
            return;
        }
        while time::timeout(HEARTBEAT, ticks.changed()).await.is_err() {
            if sender.send(Ok(Bytes::from_static(b": alive\n\n"))).await.is_err() {
                return;
            }
        }
    }
}

/// One event. JSON has no line breaks of its own.
fn event(name: &str, id: Option<i64>, data: &[u8]) -> Vec<u8> {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let mut text = format!("event: {name}\n{id}data: ").into_bytes();
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    text
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
