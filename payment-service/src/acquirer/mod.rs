//! The way to the acquirer: an HTTP client behind a circuit breaker.

mod http;

use std::time::Duration;

use ::http::uri::InvalidUri;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};

use crate::app::{Acquirer, NoAnswer};
use crate::domain::{Answer, Charge};
use http::{Failure, HttpAcquirer};

/// Asks the acquirer until there is an answer, always with the same idempotency key. While it is down, charges wait:
/// nothing is counted against them, and only one request at a time finds out whether it is back.
#[derive(Debug)]
pub(crate) struct PatientAcquirer {
    http: HttpAcquirer,
    breaker: Breaker,
}

/// The acquirer's URL cannot be used. An acquirer that is down is not an error.
#[derive(Debug, thiserror::Error)]
#[error("the acquirer's URL cannot be used")]
pub(crate) struct Error(#[source] InvalidUri);

impl PatientAcquirer {
    /// `base_url` is an `http://` URL; the paths of the acquirer's protocol are added to it.
    pub(crate) fn new(base_url: &str, request_timeout: Duration) -> Result<Self, Error> {
        let http = HttpAcquirer::new(base_url, request_timeout).map_err(Error)?;
        Ok(Self { http, breaker: Breaker::new("acquirer", Settings::default()) })
    }
}

impl Acquirer for PatientAcquirer {
    async fn charge(&self, charge: &Charge, stopping: &CancellationToken) -> Result<Answer, NoAnswer> {
        let attempt = || async {
            match self.http.charge(charge).await {
                Ok(answer) => Ok(Ok(answer)),
                // The acquirer works: that keeps the breaker closed.
                Err(Failure::Refused(reason)) => Ok(Err(NoAnswer::Refused(reason))),
                Err(Failure::Unavailable(reason)) => Err(Unavailable(reason)),
            }
        };
        match self.breaker.until_answered(stopping, attempt).await {
            Ok(result) => result,
            Err(Interrupted) => Err(NoAnswer::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests;
