use std::time::Duration;

use bytes::Bytes;
use fail_points::Point;
use http::header::CONTENT_TYPE;
use http::uri::InvalidUri;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};

use crate::domain::{Answer, CancelAnswer, Charge, ChargeKey, Money, ValueError};

/// Bytes of an answer that are read at most. An honest one has some hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters that a charge's id has at most, and that are kept of a reason.
const TEXT_CHARS_MAX: usize = 256;

/// Asks the acquirer over HTTP, once for each call.
#[derive(Clone, Debug)]
pub(super) struct HttpAcquirer {
    client: Client<HttpConnector, Full<Bytes>>,
    charges_uri: Uri,
    cancellations_uri: Uri,
    request_timeout: Duration,
}

/// Why a request brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody knows whether it was charged; the same request has to be made again, and again.
    #[error("the acquirer is unavailable: {0}")]
    Unavailable(String),
    /// The acquirer works, but not with this request.
    #[error("{0}")]
    Refused(String),
}

#[derive(Serialize)]
struct ChargeBody<'a> {
    amount_minor: i64,
    currency: &'a str,
    card: &'a str,
    reference: &'a str,
}

/// A charge as the acquirer tells it.
#[derive(Deserialize)]
struct ChargeReply {
    id: String,
    status: ChargeStatus,
    amount_minor: i64,
    currency: String,
    reference: String,
    refund_id: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum ChargeStatus {
    Authorised,
    Captured,
    Declined,
    Voided,
    Refunded,
}

#[derive(Deserialize)]
struct DeclinedBody {
    reason: String,
}

#[derive(Serialize)]
struct CancellationBody<'a> {
    idempotency_key: &'a str,
}

#[derive(Deserialize)]
struct CancellationReply {
    outcome: CancellationOutcome,
    charge: Option<ChargeReply>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CancellationOutcome {
    Blocked,
    Declined,
    Voided,
    Refunded,
}

/// Why a charge is declined whose key we have cancelled.
const CANCELLED: &str = "cancelled";

impl HttpAcquirer {
    /// Redirects are not followed and no proxy is asked: both could only lead card tokens astray.
    pub(super) fn new(base_url: &str, request_timeout: Duration) -> Result<Self, InvalidUri> {
        let base_url = base_url.trim_end_matches('/');
        let charges_uri = format!("{base_url}/v1/charges").parse()?;
        let cancellations_uri = format!("{base_url}/v1/cancellations").parse()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, charges_uri, cancellations_uri, request_timeout })
    }

    /// Asks once. The key makes every repeat come to the first charge.
    pub(super) async fn charge(&self, charge: &Charge) -> Result<Answer, Failure> {
        let body = ChargeBody {
            amount_minor: charge.amount.amount_minor(),
            currency: charge.amount.currency().as_str(),
            card: charge.card.as_str(),
            reference: &charge.order_id.to_string(),
        };
        let (status, bytes) = self.post(&self.charges_uri, Some(&charge.key().to_string()), &body).await?;
        fail_points::pass(Point::PaymentCharged);
        match status {
            StatusCode::OK => charged(&bytes, &body),
            StatusCode::PAYMENT_REQUIRED => declined(&bytes),
            _ => Err(failure(status)),
        }
    }

    /// Asks once that nothing stays taken under a key. The same again has the same answer.
    pub(super) async fn cancel(&self, key: ChargeKey) -> Result<CancelAnswer, Failure> {
        let body = CancellationBody { idempotency_key: &key.to_string() };
        let (status, bytes) = self.post(&self.cancellations_uri, None, &body).await?;
        match status {
            StatusCode::OK => cancelled(&bytes, key),
            _ => Err(failure(status)),
        }
    }

    async fn post(&self, uri: &Uri, key: Option<&str>, body: &impl Serialize) -> Result<(StatusCode, Bytes), Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Refused(error.to_string()))?;
        let mut request = Request::post(uri.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(Full::from(body)).map_err(|error| Failure::Refused(error.to_string()))?;
        tokio::time::timeout(self.request_timeout, self.exchange(request))
            .await
            .map_err(|_| Failure::Unavailable("no answer in time".to_owned()))?
    }

    /// Sends a request and reads the whole answer: one that breaks off is no answer, whatever its status was.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let response = self.client.request(request).await.map_err(|error| unavailable(&error))?;
        let status = response.status();
        match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(answer) => Ok((status, answer.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Failure::Refused(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")))
            }
            Err(_) => Err(Failure::Unavailable("the connection broke".to_owned())),
        }
    }
}

fn failure(status: StatusCode) -> Failure {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Failure::Unavailable(format!("status {status}")),
        _ if status.is_server_error() => Failure::Unavailable(format!("status {status}")),
        StatusCode::CONFLICT => {
            Failure::Refused("the idempotency key was used with another body (status 409)".to_owned())
        }
        _ => Failure::Refused(format!("status {status}")),
    }
}

fn charged(bytes: &[u8], asked: &ChargeBody<'_>) -> Result<Answer, Failure> {
    let answer: ChargeReply = parse(bytes)?;
    let same = answer.amount_minor == asked.amount_minor
        && answer.currency == asked.currency
        && answer.reference == asked.reference;
    if !same {
        return Err(Failure::Refused("the acquirer captured something else than it was asked for".to_owned()));
    }
    match answer.status {
        ChargeStatus::Captured => Ok(Answer::Captured { charge_id: id(answer.id, "charge")? }),
        // A repeat hears how the charge stands now.
        ChargeStatus::Voided | ChargeStatus::Refunded => Ok(Answer::Cancelled),
        ChargeStatus::Authorised | ChargeStatus::Declined => {
            Err(Failure::Refused("the acquirer took no money, and did not say no".to_owned()))
        }
    }
}

fn declined(bytes: &[u8]) -> Result<Answer, Failure> {
    let DeclinedBody { reason } = parse(bytes)?;
    if reason == CANCELLED {
        return Ok(Answer::Cancelled);
    }
    let reason: String = reason.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect();
    Ok(Answer::Declined { reason: if reason.is_empty() { "declined".to_owned() } else { reason } })
}

fn cancelled(bytes: &[u8], key: ChargeKey) -> Result<CancelAnswer, Failure> {
    let CancellationReply { outcome, charge } = parse(bytes)?;
    match (outcome, charge) {
        (CancellationOutcome::Blocked | CancellationOutcome::Declined | CancellationOutcome::Voided, _) => {
            Ok(CancelAnswer::NothingTaken)
        }
        (CancellationOutcome::Refunded, Some(charge)) if charge.reference == key.order_id.to_string() => {
            let nonsense = |error: ValueError| Failure::Refused(format!("the refunded amount {error}"));
            let currency = charge.currency.parse().map_err(nonsense)?;
            Ok(CancelAnswer::Refunded {
                charge_id: id(charge.id, "charge")?,
                refund_id: id(charge.refund_id.unwrap_or_default(), "refund")?,
                amount: Money::new(currency, charge.amount_minor).map_err(nonsense)?,
            })
        }
        (CancellationOutcome::Refunded, _) => {
            Err(Failure::Refused("the acquirer refunded something else than it was asked for".to_owned()))
        }
    }
}

fn id(id: String, what: &str) -> Result<String, Failure> {
    if (1..=TEXT_CHARS_MAX).contains(&id.chars().count()) {
        Ok(id)
    } else {
        Err(Failure::Refused(format!("the {what}'s id must have 1 to {TEXT_CHARS_MAX} characters")))
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Refused(format!("the answer does not decode: {error}")))
}

/// The reason without the address, which is the same in every line.
fn unavailable(error: &legacy::Error) -> Failure {
    Failure::Unavailable(if error.is_connect() { "no connection" } else { "the connection broke" }.to_owned())
}
