use service_kit::status::{database_unavailable, internal, with_reason};
use tonic::{Code, Status};

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::TooManyWatches => with_reason(Code::ResourceExhausted, message, "TOO_MANY_WATCHES", &[]),
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
