//! Asking the acquirer from outside: its health, its ledger, its behaviour.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{self, HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time;

use super::wire::{Behaviour, LEDGER_PAGE_MAX, LedgerEntry, LedgerPage, Mode};

/// A longer body of an answer is refused: it is far more than the largest page needs.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL or a header is none.
    #[error("the request can't be made: {0}")]
    Request(#[from] http::Error),
    /// The connection could not be made, or it broke.
    #[error("the acquirer does not answer: {}", service_kit::status::root(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// No answer in time.
    #[error("the acquirer did not answer within {0:?}")]
    TimedOut(Duration),
    /// The answer broke off.
    #[error("the acquirer's answer can't be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is a refusal.
    #[error("the acquirer answers {0}")]
    Refused(StatusCode),
    /// The answer is not what this version knows.
    #[error("the acquirer's answer is no JSON that is known here: {0}")]
    Json(#[from] serde_json::Error),
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// Its code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A client for the acquirer at one address.
#[derive(Clone, Debug)]
pub struct AcquirerClient {
    // The suite speaks plain HTTP, so that hyper's own client is enough; one with TLS would want a provider for it.
    http: Client<HttpConnector, Body>,
    url: String,
    timeout: Duration,
}

impl AcquirerClient {
    /// Speaks to the acquirer at `http://HOST:PORT`.
    pub fn new(url: &str, timeout: Duration) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, url: url.trim_end_matches('/').to_owned(), timeout }
    }

    /// Succeeds when the acquirer can work.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.call(Method::GET, "/healthz", &[], String::new()).await?.successful().map(drop)
    }

    /// The whole ledger, oldest entry first.
    pub async fn ledger(&self) -> Result<Vec<LedgerEntry>, ClientError> {
        let mut entries: Vec<LedgerEntry> = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry| entry.number);
            let path = format!("/v1/charges?after={after}&limit={LEDGER_PAGE_MAX}");
            let body = self.call(Method::GET, &path, &[], String::new()).await?.successful()?;
            let page: LedgerPage = serde_json::from_slice(&body)?;
            if page.entries.is_empty() {
                return Ok(entries);
            }
            entries.extend(page.entries);
        }
    }

    /// Changes how the acquirer behaves.
    pub async fn behave(&self, mode: Mode) -> Result<(), ClientError> {
        self.behave_as(Behaviour::always(mode)).await
    }

    /// Changes how the acquirer behaves with some of the requests.
    pub async fn behave_as(&self, behaviour: Behaviour) -> Result<(), ClientError> {
        let body = serde_json::to_string(&behaviour)?;
        self.call(Method::PUT, "/v1/behaviour", &[], body).await?.successful().map(drop)
    }

    /// How the acquirer behaves.
    pub async fn behaviour(&self) -> Result<Behaviour, ClientError> {
        let body = self.call(Method::GET, "/v1/behaviour", &[], String::new()).await?.successful()?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// One charge, by its id, and each step of it.
    pub async fn charge(&self, id: &str) -> Result<LedgerEntry, ClientError> {
        let body = self.call(Method::GET, &format!("/v1/charges/{id}"), &[], String::new()).await?.successful()?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Sends any request; a body goes as JSON.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body))?;
        let answer = async {
            let (parts, body) = self.http.request(request).await?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(ClientError::Body)?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        time::timeout(self.timeout, answer).await.unwrap_or(Err(ClientError::TimedOut(self.timeout)))
    }
}

impl Answer {
    fn successful(self) -> Result<Bytes, ClientError> {
        if self.status.is_success() { Ok(self.body) } else { Err(ClientError::Refused(self.status)) }
    }
}
