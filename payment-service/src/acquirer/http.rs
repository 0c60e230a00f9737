use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::InvalidUri;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};

use crate::domain::{Answer, Charge};

/// Bytes of an answer that are read at most. An honest one has some hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters that a charge's id has at most, and that are kept of a reason.
const TEXT_CHARS_MAX: usize = 256;

/// Asks the acquirer over HTTP, once for each call.
#[derive(Clone, Debug)]
pub(super) struct HttpAcquirer {
    client: Client<HttpConnector, Full<Bytes>>,
    charges_uri: Uri,
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

#[derive(Deserialize)]
struct CapturedBody {
    id: String,
    amount_minor: i64,
    currency: String,
    reference: String,
}

#[derive(Deserialize)]
struct DeclinedBody {
    reason: String,
}

impl HttpAcquirer {
    /// Redirects are not followed and no proxy is asked: both could only lead card tokens astray.
    pub(super) fn new(base_url: &str, request_timeout: Duration) -> Result<Self, InvalidUri> {
        let charges_uri = format!("{}/v1/charges", base_url.trim_end_matches('/')).parse()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, charges_uri, request_timeout })
    }

    /// Asks once. The order id is the idempotency key: the acquirer answers every repeat with its first result.
    pub(super) async fn charge(&self, charge: &Charge) -> Result<Answer, Failure> {
        let order_id = charge.order_id.to_string();
        let body = ChargeBody {
            amount_minor: charge.amount.amount_minor(),
            currency: charge.amount.currency().as_str(),
            card: charge.card.as_str(),
            reference: &order_id,
        };
        let exchange = self.exchange(&order_id, &body);
        let (status, bytes) = tokio::time::timeout(self.request_timeout, exchange)
            .await
            .map_err(|_| Failure::Unavailable("no answer in time".to_owned()))??;
        match status {
            StatusCode::OK => captured(&bytes, &body),
            StatusCode::PAYMENT_REQUIRED => declined(&bytes),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(Failure::Unavailable(format!("status {status}")))
            }
            _ if status.is_server_error() => Err(Failure::Unavailable(format!("status {status}"))),
            StatusCode::CONFLICT => {
                Err(Failure::Refused("the idempotency key was used with another body (status 409)".to_owned()))
            }
            _ => Err(Failure::Refused(format!("status {status}"))),
        }
    }

    /// Sends a request and reads the whole answer: one that breaks off is no answer, whatever its status was.
    async fn exchange(&self, key: &str, body: &ChargeBody<'_>) -> Result<(StatusCode, Bytes), Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Refused(error.to_string()))?;
        let request = Request::post(self.charges_uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key)
            .body(Full::from(body))
            .map_err(|error| Failure::Refused(error.to_string()))?;
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

fn captured(bytes: &[u8], asked: &ChargeBody<'_>) -> Result<Answer, Failure> {
    let answer: CapturedBody = parse(bytes)?;
    let same = answer.amount_minor == asked.amount_minor
        && answer.currency == asked.currency
        && answer.reference == asked.reference;
    if !same {
        return Err(Failure::Refused("the acquirer captured something else than it was asked for".to_owned()));
    }
    if !(1..=TEXT_CHARS_MAX).contains(&answer.id.chars().count()) {
        return Err(Failure::Refused(format!("the charge's id must have 1 to {TEXT_CHARS_MAX} characters")));
    }
    Ok(Answer::Captured { charge_id: answer.id })
}

fn declined(bytes: &[u8]) -> Result<Answer, Failure> {
    let DeclinedBody { reason } = parse(bytes)?;
    let reason: String = reason.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect();
    Ok(Answer::Declined { reason: if reason.is_empty() { "declined".to_owned() } else { reason } })
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Refused(format!("the answer does not decode: {error}")))
}

/// The reason without the address, which is the same in every line.
fn unavailable(error: &legacy::Error) -> Failure {
    Failure::Unavailable(if error.is_connect() { "no connection" } else { "the connection broke" }.to_owned())
}
