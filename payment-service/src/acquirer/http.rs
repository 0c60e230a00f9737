use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use crate::domain::{Answer, Charge};

/// Bytes of an answer that are read at most. An honest one has some hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters that a charge's id has at most, and that are kept of a reason.
const TEXT_CHARS_MAX: usize = 256;

/// Asks the acquirer over HTTP, once for each call.
#[derive(Clone, Debug)]
pub(super) struct HttpAcquirer {
    client: Client,
    charges_url: Url,
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
    pub(super) fn new(
        base_url: &str,
        request_timeout: Duration,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let charges_url = Url::parse(&format!("{}/v1/charges", base_url.trim_end_matches('/')))?;
        let client = Client::builder()
            .timeout(request_timeout)
            // The acquirer is where the configuration says; a proxy or a redirect could only lead card tokens astray.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self { client, charges_url })
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
        let request = self.client.post(self.charges_url.clone()).header("Idempotency-Key", &order_id).json(&body);
        let response = request.send().await.map_err(|error| unavailable(&error))?;
        let status = response.status();
        // An answer that breaks off is no answer, whatever its status was.
        let bytes = read(response).await?;
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
}

async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Refused(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
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

/// The reason without the address, which may hold secrets and is the same in every line.
fn unavailable(error: &reqwest::Error) -> Failure {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    Failure::Unavailable(kind.to_owned())
}
