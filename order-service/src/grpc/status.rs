use std::collections::HashMap;
use std::time::Duration;

use service_kit::status::{ERROR_DOMAIN, database_unavailable, internal, with_reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::app::{Error, StoreError};
use crate::domain::{OrderId, Refusal};

/// When to try again after a synchronous checkout without an answer, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound(id) => {
            with_reason(Code::NotFound, message, "ORDER_NOT_FOUND", &[("order_id", &id.to_string())])
        }
        Error::KeyReused => with_reason(Code::AlreadyExists, message, "IDEMPOTENCY_KEY_REUSED", &[]),
        Error::PaymentUnavailable(id) => payment_unavailable(id, message),
        Error::Refused(refusal) => with_reason(Code::FailedPrecondition, message, reason(refusal), &[]),
        Error::TooManyWatches => with_reason(Code::ResourceExhausted, message, "TOO_MANY_WATCHES", &[]),
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotDeclined => "ORDER_NOT_DECLINED",
        Refusal::AttemptsExhausted => "PAYMENT_ATTEMPTS_EXHAUSTED",
        Refusal::WrongAmount => "WRONG_AMOUNT",
        Refusal::Contradiction => "CONTRADICTION",
    }
}

fn payment_unavailable(id: OrderId, message: String) -> Status {
    let metadata = HashMap::from([("order_id".to_owned(), id.to_string())]);
    let mut details = ErrorDetails::with_error_info("PAYMENT_UNAVAILABLE", ERROR_DOMAIN, metadata);
    details.set_retry_info(Some(Duration::from_millis(RETRY_MS)));
    Status::with_error_details(Code::Unavailable, message, details)
}
