//! The way to the acquirer: an HTTP client behind a circuit breaker.
//!
//! Money is authorised and captured in one call: nothing happens between the two that would want the one without the
//! other, and a second call would be one more that can get lost. Whatever is to go back goes by a cancellation of the
//! charge's key, which voids, refunds or blocks as the acquirer's own ledger says.

mod http;

use std::time::Duration;

use ::http::uri::InvalidUri;
use service_kit::breaker::{Breaker, Interrupted, Settings, State, Unavailable};

use crate::app::{Acquirer, Asking, NoAnswer};
use crate::domain::{Answer, CancelAnswer, Charge, ChargeKey};
use http::{Failure, HttpAcquirer};

/// Asks the acquirer. While it is down, who can wait does: nothing is counted against them, and only one request at a
/// time finds out whether it is back.
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

    async fn ask<T, R>(&self, asking: Asking<'_>, request: impl FnOnce() -> R + Send) -> Result<T, NoAnswer>
    where
        T: Send,
        R: Future<Output = Result<T, Failure>> + Send,
    {
        let call = || async {
            match request().await {
                Ok(answer) => Ok(Ok(answer)),
                // The acquirer works: that keeps the breaker closed.
                Err(Failure::Refused(reason)) => Ok(Err(NoAnswer::Refused(reason))),
                Err(Failure::Unavailable(reason)) => Err(Unavailable(reason)),
            }
        };
        let answered = match asking.stopping {
            Some(stopping) => match self.breaker.once(stopping, asking.failures, call).await {
                Ok(answered) => answered,
                Err(Interrupted) => return Err(NoAnswer::Interrupted),
            },
            None => match self.breaker.at_once(asking.failures, call).await {
                Some(answered) => answered,
                None => {
                    let reason = "it did not answer before".to_owned();
                    return Err(NoAnswer::Unavailable { reason, asked: false });
                }
            },
        };
        answered.unwrap_or_else(|Unavailable(reason)| Err(NoAnswer::Unavailable { reason, asked: true }))
    }
}

impl Acquirer for PatientAcquirer {
    async fn charge(&self, charge: &Charge, asking: Asking<'_>) -> Result<Answer, NoAnswer> {
        self.ask(asking, || self.http.charge(charge)).await
    }

    async fn cancel(&self, key: ChargeKey, asking: Asking<'_>) -> Result<CancelAnswer, NoAnswer> {
        self.ask(asking, || self.http.cancel(key)).await
    }

    fn answers(&self) -> bool {
        self.breaker.state() == State::Closed
    }
}

#[cfg(test)]
mod tests;
