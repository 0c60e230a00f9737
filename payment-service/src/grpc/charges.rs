//! Charges that somebody waits for. Each runs in a task of its own: when the caller goes away, its record is kept.

use std::sync::Arc;
use std::time::Duration;

use service_kit::CancellationToken;
use service_kit::status::with_reason;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::status;
use crate::app::{Acquirer, App, Error, Patience, Payments, StoreError};
use crate::domain::{Charge, Payment};

/// How many charges of callers are under way at most, those included whose callers are gone.
const CHARGES_MAX: usize = 256;

/// How long a caller waits at most, in milliseconds, also if it says nothing or more.
const CHARGE_MS_MAX: u64 = 30_000;

/// Digits that a time-out in gRPC metadata has at most.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Runs charges.
#[derive(Debug)]
pub(super) struct Charges {
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

/// A caller waits until its deadline, and for no outage to end.
struct Hurried {
    deadline: Instant,
}

impl Charges {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { tasks, room: Arc::new(Semaphore::new(CHARGES_MAX)) }
    }

    /// Charges, and tells the outcome if it comes before the deadline.
    pub(super) async fn run<S: Payments, A: Acquirer>(
        &self,
        app: App<S, A>,
        charge: Charge,
        deadline: Instant,
    ) -> Result<Payment, Status> {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            let message = "too many charges are under way; try again";
            return Err(with_reason(Code::Unavailable, message, "TOO_MANY_CHARGES", &[]));
        };
        let task = self.tasks.spawn(async move {
            let charged = app.charge(None, charge, &Hurried { deadline }).await;
            drop(place);
            charged
        });
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(charged)) => charged.map_err(status::of),
            Ok(Err(_)) => Err(Status::internal("the charge ended without an outcome")),
            Err(_) => Err(Status::deadline_exceeded("the acquirer has not answered in time; the outcome is unknown")),
        }
    }
}

impl Patience for Hurried {
    async fn store<T, R>(&self, mut call: impl FnMut() -> R + Send) -> Result<T, Error>
    where
        T: Send,
        R: Future<Output = Result<T, StoreError>> + Send,
    {
        Ok(call().await?)
    }

    fn stopping(&self) -> Option<&CancellationToken> {
        None
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.deadline
    }
}

/// When the caller stops waiting.
pub(super) fn deadline(metadata: &MetadataMap) -> Instant {
    let most = Duration::from_millis(CHARGE_MS_MAX);
    let told = metadata.get("grpc-timeout").and_then(|text| timeout(text.to_str().ok()?));
    Instant::now() + told.map_or(most, |told| told.min(most))
}

/// A time-out as gRPC writes it: digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 60 * 60)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        let table = [
            ("3000m", Some(Duration::from_secs(3))),
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("7S", Some(Duration::from_secs(7))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("m", None),
            ("3", None),
            ("-3m", None),
            ("999999999m", None),
            ("3µ", None),
        ];
        for (text, expected) in table {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
