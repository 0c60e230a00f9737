use service_kit::status::{database_unavailable, internal, with_reason};
use tonic::{Code, Status};
use tracing::error;

use crate::app::{Error, StoreError};

/// What a caller is told of an error. What is none of the caller's business is logged instead.
pub(super) fn of(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound(order_id) => {
            with_reason(Code::NotFound, message, "PAYMENT_NOT_FOUND", &[("order_id", &order_id.to_string())])
        }
        Error::Closed(order_id) => {
            with_reason(Code::FailedPrecondition, message, "ORDER_CANCELLED", &[("order_id", &order_id.to_string())])
        }
        Error::TooEarly { order_id, attempt } => {
            let metadata = [("order_id", order_id.to_string()), ("attempt", attempt.to_string())];
            let metadata = metadata.each_ref().map(|(name, value)| (*name, value.as_str()));
            with_reason(Code::FailedPrecondition, message, "ATTEMPT_TOO_EARLY", &metadata)
        }
        Error::OtherPayment(order_id) => {
            with_reason(Code::FailedPrecondition, message, "OTHER_PAYMENT", &[("order_id", &order_id.to_string())])
        }
        Error::Unavailable(_) => with_reason(Code::Unavailable, message, "ACQUIRER_UNAVAILABLE", &[]),
        Error::Interrupted => with_reason(Code::Unavailable, message, "STOPPING", &[]),
        Error::Refused(_) => {
            error!(error = message, "a charge was refused by the acquirer");
            Status::internal("the acquirer cannot process the charge; the service's log says why")
        }
        Error::Store(StoreError::Unavailable(cause)) => database_unavailable(cause.as_ref()),
        Error::Store(StoreError::Broken(cause)) => internal(cause.as_ref()),
    }
}
