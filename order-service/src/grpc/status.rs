use service_kit::status::{database_unavailable, internal, with_reason};
use tonic::{Code, Status};

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound(id) => {
            with_reason(Code::NotFound, message, "ORDER_NOT_FOUND", &[("order_id", &id.to_string())])
        }
        Error::KeyReused => with_reason(Code::AlreadyExists, message, "IDEMPOTENCY_KEY_REUSED", &[]),
        Error::TooManyWatches => with_reason(Code::ResourceExhausted, message, "TOO_MANY_WATCHES", &[]),
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
