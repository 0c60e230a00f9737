//! What callers are told when something does not go.

use std::collections::HashMap;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::engine::{self, AckId};

/// The domain of our error reasons, as `google.rpc.ErrorInfo` wants one.
const ERROR_DOMAIN: &str = "broker.orderflow";
/// What is said of an ack id whose lease does not stand. Client libraries look for the prefix `PERMANENT_FAILURE_`, and
/// do not try again.
const INVALID_ACK_ID: &str = "PERMANENT_FAILURE_INVALID_ACK_ID";

/// A field of a request that can't be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The field by its path in the request, as the .proto file spells it.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { field: field.into(), why: why.to_string() }
    }

    /// The same complaint, one level further out.
    pub(crate) fn within(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), why: self.why }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.field, self.why)
    }
}

impl From<Invalid> for engine::Error {
    fn from(invalid: Invalid) -> Self {
        Self::Setting { field: invalid.field, why: invalid.why }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let message = invalid.to_string();
        let details = ErrorDetails::with_bad_request_violation(invalid.field, invalid.why);
        Status::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// The answer to what is still open when the broker stops.
pub(crate) fn stopping() -> Status {
    engine::Error::Unavailable.into()
}

impl From<engine::Error> for Status {
    fn from(error: engine::Error) -> Self {
        let message = error.to_string();
        match error {
            engine::Error::Refused(error) => refused(error, message),
            engine::Error::AckId(_) => {
                let details = ErrorDetails::with_bad_request_violation("ack_ids", message.as_str());
                Status::with_error_details(Code::InvalidArgument, message, details)
            }
            engine::Error::Setting { field, why } => Invalid::new(field, why).into(),
            engine::Error::Leases(failed) => leases_failed(failed, message),
            engine::Error::BacklogTooOld(subscription) => {
                precondition("BACKLOG_TOO_OLD", subscription.as_str(), message)
            }
            engine::Error::Taker { subscription, by: _ } => {
                precondition("PUSH_SUBSCRIPTION", subscription.as_str(), message)
            }
            engine::Error::PolicyChanged(resource) => {
                let resource = [("resource".to_owned(), resource.to_string())];
                let details = ErrorDetails::with_error_info("POLICY_CHANGED", ERROR_DOMAIN, resource);
                Status::with_error_details(Code::Aborted, message, details)
            }
            engine::Error::Busy(what) => exhausted("BUSY", what, message),
            engine::Error::Unavailable => {
                let details = ErrorDetails::with_error_info("STOPPING", ERROR_DOMAIN, []);
                Status::with_error_details(Code::Unavailable, message, details)
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value)]
fn refused(error: broker_core::Error, message: String) -> Status {
    use broker_core::Error as Core;
    match error {
        Core::TopicExists(name) => resource(Code::AlreadyExists, "topic", name.as_str(), message),
        Core::TopicNotFound(name) => resource(Code::NotFound, "topic", name.as_str(), message),
        Core::SubscriptionExists(name) => resource(Code::AlreadyExists, "subscription", name.as_str(), message),
        Core::SubscriptionNotFound(name) => resource(Code::NotFound, "subscription", name.as_str(), message),
        Core::SnapshotExists(name) => resource(Code::AlreadyExists, "snapshot", name.as_str(), message),
        Core::SnapshotNotFound(name) => resource(Code::NotFound, "snapshot", name.as_str(), message),
        Core::Detached(name) => precondition("DETACHED", name.as_str(), message),
        Core::InvalidArgument { field, why } => Invalid::new(field, why).into(),
        Core::ResourceExhausted { what, .. } => exhausted("LIMIT", what, message),
        Core::ConsumerAttached(_) => {
            tracing::error!(error = message, "The engine used a consumer id twice.");
            Status::internal("internal error")
        }
    }
}

fn resource(code: Code, kind: &str, name: &str, message: String) -> Status {
    let details = ErrorDetails::with_resource_info(kind, name, "", message.as_str());
    Status::with_error_details(code, message, details)
}

fn precondition(kind: &str, subject: &str, message: String) -> Status {
    let details = ErrorDetails::with_precondition_failure_violation(kind, subject, message.as_str());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// Names each ack id that failed, as the client libraries look for it: what is not named has succeeded.
fn leases_failed(failed: Vec<AckId>, message: String) -> Status {
    let metadata = failed.into_iter().map(|AckId(id)| (id, INVALID_ACK_ID.to_owned()));
    let details =
        ErrorDetails::with_error_info("EXACTLY_ONCE_ACKID_FAILURE", ERROR_DOMAIN, metadata.collect::<HashMap<_, _>>());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

fn exhausted(reason: &str, what: &str, message: String) -> Status {
    let metadata = [("what".to_owned(), what.to_owned())];
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}
