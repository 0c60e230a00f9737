//! What is answered instead of an answer: a status and a sentence.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tonic::Code;

use crate::{acquirer, audit, dead_letters};

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    problem: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, problem: impl Into<String>) -> Self {
        Self { status, problem: problem.into() }
    }

    pub(super) fn bad(problem: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.problem }))).into_response()
    }
}

impl From<audit::Error> for Refusal {
    fn from(error: audit::Error) -> Self {
        let status = match &error {
            audit::Error::Grpc { status, .. } => from_code(status.code()),
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

impl From<acquirer::ClientError> for Refusal {
    fn from(error: acquirer::ClientError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, error.to_string())
    }
}

impl From<dead_letters::Error> for Refusal {
    fn from(error: dead_letters::Error) -> Self {
        let status = match error {
            dead_letters::Error::Broker(error) => return error.into(),
            dead_letters::Error::Unknown(_) => StatusCode::NOT_FOUND,
            dead_letters::Error::Held(_) | dead_letters::Error::Skipped(_) => StatusCode::CONFLICT,
            dead_letters::Error::Payload(_) | dead_letters::Error::File { .. } => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

/// A part's refusal, as HTTP puts it. What is no refusal is an answer that did not come.
fn from_code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
