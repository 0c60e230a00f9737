//! Helpers for answers that are not OK.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use tracing::error;

/// The domain that `ErrorInfo` details name.
pub const ERROR_DOMAIN: &str = "orderflow.dev";

/// Gathers what is wrong with a request, field by field, so that one answer tells all of it.
#[derive(Debug, Default)]
pub struct Violations {
    violations: Vec<FieldViolation>,
}

impl Violations {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what is wrong with `field`, named as the request names it: `lines[2].quantity`.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(FieldViolation::new(field, description));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// INVALID_ARGUMENT with a `BadRequest` detail when anything is wrong.
    // A status is large, but this is the cold path.
    #[allow(clippy::result_large_err)]
    pub fn finish(self) -> Result<(), Status> {
        if self.violations.is_empty() {
            return Ok(());
        }
        let mut message = String::from("the request has invalid fields: ");
        for (at, violation) in self.violations.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(message, "{comma}`{}`", violation.field);
        }
        Err(Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(self.violations)))
    }
}

/// INVALID_ARGUMENT for one field.
pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Status {
    let field = field.into();
    let message = format!("the request has invalid fields: `{field}`");
    let details = ErrorDetails::with_bad_request(vec![FieldViolation::new(field, description)]);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A status whose `ErrorInfo` tells a program the reason (`IDEMPOTENCY_KEY_REUSED`) and its circumstances.
pub fn with_reason(code: Code, message: impl Into<String>, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata))
}

/// INTERNAL for an error that is none of the caller's business: it is logged here, and not sent.
pub fn internal(error: &(dyn Error + 'static)) -> Status {
    error!(error = chain(error), "a request failed inside the service");
    Status::internal("the service failed; its log says why")
}

/// UNAVAILABLE for a request that the database could not serve now: the cause is logged here, and not sent.
pub fn database_unavailable(error: &(dyn Error + 'static)) -> Status {
    error!(error = chain(error), "a request found the database unavailable");
    Status::unavailable("the database is unavailable; try again")
}

/// An error and its causes in one line. A cause that its error has told already is not told again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            let _ = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}

/// The innermost cause alone, for errors that tell each of their causes again.
pub(crate) fn root<'e>(mut error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_in_the_details() {
        let mut violations = Violations::new();
        violations.add("customer_id", "is empty");
        violations.add("lines[0].quantity", "is zero");
        let status = violations.finish().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "the request has invalid fields: `customer_id`, `lines[0].quantity`");
        let details = status.get_error_details();
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["customer_id", "lines[0].quantity"]);
        assert!(Violations::new().finish().is_ok());
    }

    #[test]
    fn a_reason_can_be_read_by_a_program() {
        let status = with_reason(Code::AlreadyExists, "the key was used", "KEY_REUSED", &[("order_id", "7")]);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("KEY_REUSED", ERROR_DOMAIN));
        assert_eq!(info.metadata["order_id"], "7");
    }

    #[test]
    fn each_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{said}")]
        struct Layer {
            said: &'static str,
            source: Option<Box<Layer>>,
        }
        let layer = |said, source| Layer { said, source };
        let inner = layer("the port is taken", None);
        let error = layer("cannot start", Some(layer("bind: the port is taken", Some(inner.into())).into()));
        assert_eq!(chain(&error), "cannot start: bind: the port is taken");
        assert_eq!(root(&error).to_string(), "the port is taken");
    }

    #[test]
    fn internals_are_not_sent() {
        let secret = std::io::Error::other("password is 1234");
        assert!(!internal(&secret).message().contains("1234"));
        assert!(!database_unavailable(&secret).message().contains("1234"));
    }
}
