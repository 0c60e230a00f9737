use service_kit::status::{database_unavailable, internal, with_reason};
use tonic::{Code, Status};

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound(order_id) => {
            with_reason(Code::NotFound, message, "PAYMENT_NOT_FOUND", &[("order_id", &order_id.to_string())])
        }
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
