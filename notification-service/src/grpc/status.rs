use service_kit::status::{database_unavailable, internal, with_reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::TooManyWatches => with_reason(Code::ResourceExhausted, message, "TOO_MANY_WATCHES", &[]),
        Error::NoSuchNotification { .. } => {
            let violation = FieldViolation::new("number", message);
            let message = "the request has invalid fields: `number`";
            Status::with_error_details(Code::OutOfRange, message, ErrorDetails::with_bad_request(vec![violation]))
        }
        Error::NoInvoice { order_id } => {
            with_reason(Code::NotFound, message, "INVOICE_NOT_FOUND", &[("order_id", &order_id)])
        }
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
