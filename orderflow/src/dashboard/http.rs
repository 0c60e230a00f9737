//! The routes of the page.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use service_kit::CancellationToken;
use tokio::sync::Semaphore;

use super::live::Live;
use super::stream::{self, LOOKERS_MAX};
use super::wire::History;
use super::{Refusal, assets, control, guard, journey, letters, steady};

/// The largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
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
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(requests, admit))
        // A stream lasts; it has places of its own.
        .route("/api/events", get(stream::events))
        .layer(from_fn_with_state(names, guard::guard))
        .with_state(page)
}

/// Refuses what comes while too much is under way.
async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again").into_response(),
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
