//! The acquirer's HTTP interface: requests are parsed and refused here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fail_points::Point;
use serde::{Deserialize, Serialize};
use service_kit::status::chain;
use tracing::error;

use super::cards::{Card, Stumbles};
use super::connection::Scissors;
use super::ledger::{Change, Error, Ledger, Recorded};
use super::wire::{
    Behaviour, CancellationRequest, ChangeRequest, ChargeRequest, ChargeStatus, LEDGER_PAGE_MAX, LedgerEntry,
    LedgerPage, Mode, PERCENT_ALL, Problem,
};

/// How late a slow answer is.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 255;
/// The longest card token and the longest reference.
const TEXT_BYTES_MAX: usize = 64;
/// The largest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Why every card is declined while the behaviour says so.
const DO_NOT_HONOUR: &str = "do_not_honour";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Clone)]
struct Acquirer {
    ledger: Ledger,
    behaviour: Arc<Mutex<Behaviour>>,
    stumbles: Stumbles,
}

/// All routes, on this ledger.
pub(super) fn router(ledger: Ledger) -> Router {
    let behaviour = Behaviour::always(Mode::Normal);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/charges", post(charge).get(page))
        .route("/v1/charges/{id}", get(entry))
        .route("/v1/charges/{id}/{change}", post(change))
        .route("/v1/cancellations", post(cancel))
        .route("/v1/behaviour", get(behaviour_now).put(behave))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Acquirer { ledger, behaviour: Arc::new(Mutex::new(behaviour)), stumbles: Stumbles::default() })
}

impl Acquirer {
    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to behave with one request; refuses it while the acquirer is down.
    fn admit(&self) -> Result<Mode, Refusal> {
        let Behaviour { mode, percent } = self.behaviour();
        let mode = if fastrand::u8(0..PERCENT_ALL) < percent { mode } else { Mode::Normal };
        if mode == Mode::Unavailable { Err(Refusal::unavailable()) } else { Ok(mode) }
    }

    /// Fails on purpose if the charge's card says so, before money goes back.
    fn refund_stumble(&self, entry: &LedgerEntry) -> Result<(), Refusal> {
        let times = Card::from_token(&entry.card).refund_failures();
        let gives_back = entry.charge.status == ChargeStatus::Captured;
        if gives_back && self.stumbles.stumbles(format!("refund {}", entry.charge.id), times) {
            return Err(Refusal::unavailable());
        }
        Ok(())
    }
}

async fn charge(
    State(acquirer): State<Acquirer>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Result<Json<ChargeRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let mode = acquirer.admit()?;
    let key = idempotency_key(&headers)?;
    let Json(request) = body?;
    validate(&request).map_err(Refusal::malformed)?;
    let card = Card::from_token(&request.card);
    if acquirer.stumbles.stumbles(format!("charge {key}"), card.failures()) {
        return Err(Refusal::unavailable());
    }
    let decline = if mode == Mode::DeclineAll { Some(DO_NOT_HONOUR) } else { card.decline_reason() };
    let recorded = acquirer.ledger.charge(key, request, decline).await?;
    fail_points::pass(Point::AcquirerCommitted);
    let slow = card == Card::Slow || mode == Mode::Slow;
    let lost = mode == Mode::LostReplies || (card == Card::LostReply && !recorded.replayed);
    let status = match recorded.reply.status {
        ChargeStatus::Declined => StatusCode::PAYMENT_REQUIRED,
        ChargeStatus::Authorised | ChargeStatus::Captured | ChargeStatus::Voided | ChargeStatus::Refunded => {
            StatusCode::OK
        }
    };
    Ok((status, answer(recorded, slow, lost, &scissors).await).into_response())
}

/// What can be done with a charge, as it stands in the path.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Capture,
    Void,
    Refund,
}

async fn change(
    State(acquirer): State<Acquirer>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path((charge_id, verb)): Path<(String, Verb)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let mode = acquirer.admit()?;
    let key = idempotency_key(&headers)?;
    let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let ChangeRequest { amount_minor } = if body.is_empty() {
        ChangeRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::malformed(error.to_string()))?
    };
    let entry = acquirer.ledger.entry(&charge_id).await?;
    let to = match verb {
        Verb::Capture => ChargeStatus::Captured,
        Verb::Void => ChargeStatus::Voided,
        Verb::Refund => ChargeStatus::Refunded,
    };
    if to == ChargeStatus::Refunded {
        acquirer.refund_stumble(&entry)?;
    }
    let recorded = acquirer.ledger.change(Change { charge_id, to, amount_minor, key }).await?;
    let lost =
        mode == Mode::LostReplies || (to == ChargeStatus::Refunded && !recorded.replayed && loses_refund_reply(&entry));
    Ok(answer(recorded, mode == Mode::Slow, lost, &scissors).await)
}

async fn cancel(
    State(acquirer): State<Acquirer>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    body: Result<Json<CancellationRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let mode = acquirer.admit()?;
    let Json(CancellationRequest { idempotency_key }) = body?;
    let key = checked_key(Some(&idempotency_key), "`idempotency_key`")?;
    let entry = acquirer.ledger.by_key(&key).await?;
    if let Some(entry) = &entry {
        acquirer.refund_stumble(entry)?;
    }
    let recorded = acquirer.ledger.cancel(key).await?;
    let lost =
        mode == Mode::LostReplies || (!recorded.replayed && entry.is_some_and(|entry| loses_refund_reply(&entry)));
    Ok(answer(recorded, mode == Mode::Slow, lost, &scissors).await)
}

fn loses_refund_reply(entry: &LedgerEntry) -> bool {
    Card::from_token(&entry.card) == Card::RefundLostReply
}

/// The answer to what was done, late or never if it has to be.
async fn answer<T: Serialize>(recorded: Recorded<T>, slow: bool, lost: bool, scissors: &Scissors) -> Response {
    if slow {
        tokio::time::sleep(SLOW).await;
    }
    if lost {
        scissors.cut();
    }
    let replayed = recorded.replayed.then_some([(IDEMPOTENT_REPLAYED, "true")]);
    (replayed, Json(recorded.reply)).into_response()
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

async fn entry(State(acquirer): State<Acquirer>, Path(id): Path<String>) -> Result<Json<LedgerEntry>, Refusal> {
    Ok(Json(acquirer.ledger.entry(&id).await?))
}

async fn behaviour_now(State(acquirer): State<Acquirer>) -> Json<Behaviour> {
    Json(acquirer.behaviour())
}

async fn behave(
    State(acquirer): State<Acquirer>,
    body: Result<Json<Behaviour>, JsonRejection>,
) -> Result<Json<Behaviour>, Refusal> {
    let Json(behaviour) = body?;
    if !(1..=PERCENT_ALL).contains(&behaviour.percent) {
        return Err(Refusal::malformed(format!("`percent` must be 1 to {PERCENT_ALL}")));
    }
    *acquirer.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    tracing::info!(mode = ?behaviour.mode, percent = behaviour.percent, "the behaviour has changed");
    Ok(Json(behaviour))
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let key =
        headers.get(IDEMPOTENCY_KEY).ok_or_else(|| Refusal::malformed("the header `Idempotency-Key` is missing"))?;
    checked_key(key.to_str().ok(), "`Idempotency-Key`")
}

fn checked_key(key: Option<&str>, name: &str) -> Result<String, Refusal> {
    match key {
        Some(key)
            if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) =>
        {
            Ok(key.to_owned())
        }
        _ => Err(Refusal::malformed(format!("{name} must be 1 to {KEY_BYTES_MAX} visible ASCII characters"))),
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

    fn unavailable() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the acquirer is down for maintenance".to_owned())
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
            Error::KeyReused | Error::State(..) => Self(StatusCode::CONFLICT, failure.to_string()),
            Error::NotFound(_) => Self(StatusCode::NOT_FOUND, failure.to_string()),
            Error::Amount(_) => Self(StatusCode::UNPROCESSABLE_ENTITY, failure.to_string()),
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
