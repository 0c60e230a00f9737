//! The routes of the page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use service_kit::CancellationToken;
use tokio::sync::Semaphore;
use tokio::time;

use super::live::Live;
use super::stream::{self, LOOKERS_MAX};
use super::wire::History;
use super::{Refusal, assets, control, guard, journey, letters, steady};

/// The largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long the body of a request may take.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Requests that are worked on at the same time, the event streams not among them.
const REQUESTS_MAX: usize = 64;

/// What every handler has.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) live: Arc<Live>,
    /// Cancelled when the server ends.
    pub(super) ending: CancellationToken,
    /// Places for event streams.
    pub(super) lookers: Arc<Semaphore>,
    /// Places for all other requests.
    requests: Arc<Semaphore>,
}

impl Page {
    pub(super) fn new(live: Arc<Live>, ending: CancellationToken) -> Self {
        let (lookers, requests) = (Semaphore::new(LOOKERS_MAX), Semaphore::new(REQUESTS_MAX));
        Self { live, ending, lookers: Arc::new(lookers), requests: Arc::new(requests) }
    }
}

/// All routes. `names` are those under which the page may be called, beside addresses and `localhost`.
pub(super) fn router(page: Page, names: guard::Names) -> Router {
    let requests = Arc::clone(&page.requests);
    Router::new()
        .route("/", get(async |headers: HeaderMap| asset("index.html", &headers)))
        .route("/assets/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| asset(&name, &headers)))
        .route("/healthz", get(async || "ok\n"))
        .route("/api/state", get(state))
        .route("/api/history", get(history))
        .route("/api/orders", get(journey::list).post(control::place))
        .route("/api/orders/{id}", get(journey::show))
        .route("/api/orders/{id}/invoice.pdf", get(journey::pdf))
        .route("/api/orders/{id}/cancel", post(journey::cancel))
        .route("/api/orders/{id}/retry", post(journey::retry))
        .route("/api/parts/{part}/{verb}", post(control::part))
        .route("/api/acquirer", put(control::acquirer))
        .route("/api/load", put(steady::start).delete(steady::stop))
        .route("/api/poison", post(control::poison))
        .route("/api/dead-letters", get(letters::list))
        .route("/api/dead-letters/redrive", post(letters::redrive))
        .route("/api/dead-letters/discard", post(letters::discard))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there is nothing under this path"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "the method is none that this path knows")
        })
        .layer(from_fn_with_state(requests, admit))
        // A stream lasts; it has places of its own.
        .route("/api/events", get(stream::events))
        .layer(from_fn_with_state(names, guard::guard))
        .with_state(page)
}

/// Refuses what comes while too much is under way, and what does not come to its end.
async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_place) = places.try_acquire() else {
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again").into_response();
    };
    match whole(request, BODY_WITHIN).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// A request with its whole body: whoever sends it slowly must not hold a place for as long as he likes.
async fn whole(request: Request, within: Duration) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the body has not come within {within:?}"));
    let body = time::timeout(within, Limited::new(body, BODY_BYTES_MAX).collect()).await.map_err(late)?;
    match body {
        Ok(body) => Ok(Request::from_parts(parts, body.to_bytes().into())),
        Err(error) if error.is::<LengthLimitError>() => {
            let problem = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, problem))
        }
        Err(error) => Err(Refusal::bad(format!("the body broke off: {error}"))),
    }
}

fn asset(name: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("the page has no file `{name}`"));
    assets::answer(name, headers).ok_or_else(missing)
}

async fn state(State(page): State<Page>) -> Response {
    ([(CONTENT_TYPE, "application/json")], page.live.picture()).into_response()
}

async fn history(State(page): State<Page>) -> Json<History> {
    Json(page.live.history())
}

/// The body of a request as JSON; an empty one stands for `{}`.
pub(super) fn body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(text).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio_stream::StreamExt;

    use super::*;

    async fn status(body: Body) -> Result<usize, StatusCode> {
        match whole(Request::new(body), Duration::from_millis(20)).await {
            Ok(request) => Ok(request.into_body().collect().await.unwrap().to_bytes().len()),
            Err(refusal) => Err(refusal.status()),
        }
    }

    #[tokio::test]
    async fn a_body_comes_whole_in_time_and_within_its_limit_or_the_request_is_refused() {
        let begun = || tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from_static(b"{")));
        let never = Body::from_stream(begun().chain(tokio_stream::pending()));
        assert_eq!(status(never).await, Err(StatusCode::REQUEST_TIMEOUT));
        let broken = Body::from_stream(begun().chain(tokio_stream::once(Err(std::io::Error::other("gone")))));
        assert_eq!(status(broken).await, Err(StatusCode::BAD_REQUEST));
        assert_eq!(status(vec![b' '; BODY_BYTES_MAX].into()).await, Ok(BODY_BYTES_MAX));
        assert_eq!(status(vec![b' '; BODY_BYTES_MAX + 1].into()).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
