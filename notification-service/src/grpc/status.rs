use service_kit::status::{chain, internal, with_reason};
use tonic::{Code, Status};
use tracing::error;

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::TooManyWatches => with_reason(Code::ResourceExhausted, message, "TOO_MANY_WATCHES", &[]),
        Error::Store(StoreError::Unavailable(cause)) => {
            error!(error = chain(cause.as_ref()), "a request found the database unavailable");
            Status::unavailable("the database is unavailable; try again")
        }
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
