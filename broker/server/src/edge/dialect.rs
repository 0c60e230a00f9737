use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tonic::Status;

use super::rest::problem;

/// What a client speaks, which decides what a refusal looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Grpc,
    Json,
}

impl Dialect {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let kind = request.get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) { Self::Grpc } else { Self::Json }
    }

    pub(crate) fn refusal(self, status: Status) -> Response {
        match self {
            Self::Grpc => status.into_http::<Body>().into_response(),
            Self::Json => problem::response(&status),
        }
    }
}
