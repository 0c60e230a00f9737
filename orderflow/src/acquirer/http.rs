//! The acquirer's HTTP interface: requests are parsed and refused here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use service_kit::status::chain;
use tracing::error;

use super::cards::Card;
use super::connection::Scissors;
use super::ledger::{Error, Ledger};
use super::wire::{Behaviour, ChargeRequest, ChargeStatus, LEDGER_PAGE_MAX, LedgerPage, Mode, Problem};

/// How late a slow answer is.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 255;
/// The longest card token and the longest reference.
const TEXT_BYTES_MAX: usize = 64;
/// The largest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Clone)]
struct Acquirer {
    ledger: Ledger,
    mode: Arc<Mutex<Mode>>,
}

/// All routes, on this ledger.
pub(super) fn router(ledger: Ledger) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/charges", post(charge).get(page))
        .route("/v1/behaviour", put(behave))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Acquirer { ledger, mode: Arc::default() })
}

async fn charge(
    State(acquirer): State<Acquirer>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Result<Json<ChargeRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let mode = *acquirer.mode.lock().unwrap_or_else(PoisonError::into_inner);
    if mode == Mode::Unavailable {
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the acquirer is down for maintenance".to_owned()));
    }
    let key = idempotency_key(&headers)?;
    let Json(request) = body?;
    validate(&request).map_err(Refusal::malformed)?;
    let card = Card::from_token(&request.card);
    let recorded = acquirer.ledger.charge(key, request).await?;
    if card == Card::Slow || mode == Mode::Slow {
        tokio::time::sleep(SLOW).await;
    }
    if card == Card::LostReply && !recorded.replayed {
        scissors.cut();
    }
    let status = match recorded.reply.status {
        ChargeStatus::Captured => StatusCode::OK,
        ChargeStatus::Declined => StatusCode::PAYMENT_REQUIRED,
    };
    let replayed = recorded.replayed.then_some([(IDEMPOTENT_REPLAYED, "true")]);
    Ok((status, replayed, Json(recorded.reply)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageRequest {
    /// The number of the last entry that the caller has.
    #[serde(default)]
    after: i64,
    /// More than the limit is cut to it.
    #[serde(default = "page_default")]
    limit: u32,
}

fn page_default() -> u32 {
    100
}

async fn page(
    State(acquirer): State<Acquirer>,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<Json<LedgerPage>, Refusal> {
    let Query(PageRequest { after, limit }) = query.map_err(|error| Refusal::malformed(error.body_text()))?;
    if limit == 0 {
        return Err(Refusal::malformed("`limit` must be at least 1"));
    }
    Ok(Json(LedgerPage { entries: acquirer.ledger.page(after, limit.min(LEDGER_PAGE_MAX)).await? }))
}

async fn behave(
    State(acquirer): State<Acquirer>,
    body: Result<Json<Behaviour>, JsonRejection>,
) -> Result<Json<Behaviour>, Refusal> {
    let Json(behaviour) = body?;
    *acquirer.mode.lock().unwrap_or_else(PoisonError::into_inner) = behaviour.mode;
    tracing::info!(mode = ?behaviour.mode, "the behaviour has changed");
    Ok(Json(behaviour))
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let key =
        headers.get(IDEMPOTENCY_KEY).ok_or_else(|| Refusal::malformed("the header `Idempotency-Key` is missing"))?;
    match key.to_str() {
        Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(key.to_owned()),
        _ => {
            Err(Refusal::malformed(format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters")))
        }
    }
}

fn validate(request: &ChargeRequest) -> Result<(), String> {
    if request.amount_minor <= 0 {
        return Err("`amount_minor` must be above zero".to_owned());
    }
    if request.currency.len() != 3 || !request.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err("`currency` must be three capital letters".to_owned());
    }
    for (name, text) in [("card", &request.card), ("reference", &request.reference)] {
        if !(1..=TEXT_BYTES_MAX).contains(&text.len()) {
            return Err(format!("`{name}` must be 1 to {TEXT_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

/// An answer that is none of the charge itself.
struct Refusal(StatusCode, String);

impl Refusal {
    fn malformed(problem: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, problem.into())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        // axum has several codes for a body that is no charge; the protocol has one.
        let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self(status, rejection.body_text())
    }
}

impl From<Error> for Refusal {
    fn from(failure: Error) -> Self {
        match failure {
            Error::KeyReused => Self(StatusCode::CONFLICT, failure.to_string()),
            Error::UnknownStatus(_) | Error::Database(_) => {
                error!(error = chain(&failure), "a request failed inside the acquirer");
                Self(StatusCode::INTERNAL_SERVER_ERROR, "the acquirer failed; its log says why".to_owned())
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}
