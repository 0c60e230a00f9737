//! The attempts of a payment as they lie in its row: JSON, so that a field can be added later.

use serde::{Deserialize, Serialize};
use service_kit::db::Error;

use super::row::{decode_status, encode_status};
use crate::domain::{Attempt, TimestampUs};

const COLUMN: &str = "attempts";

#[derive(Deserialize, Serialize)]
struct Stored {
    attempt: u32,
    first_at_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at_us: Option<i64>,
    tries: u32,
    outcome: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    detail: String,
}

pub(super) fn encode(attempts: &[Attempt]) -> Result<String, Error> {
    let stored: Vec<_> = attempts
        .iter()
        .map(|attempt| Stored {
            attempt: attempt.attempt,
            first_at_us: attempt.first_at.0,
            ended_at_us: attempt.ended_at.map(|time| time.0),
            tries: attempt.tries,
            outcome: encode_status(attempt.outcome).to_owned(),
            detail: attempt.detail.clone(),
        })
        .collect();
    serde_json::to_string(&stored).map_err(|error| Error::column(COLUMN, error))
}

pub(super) fn decode(text: &str) -> Result<Vec<Attempt>, Error> {
    let stored: Vec<Stored> = serde_json::from_str(text).map_err(|error| Error::column(COLUMN, error))?;
    let attempt = |stored: Stored| {
        Ok(Attempt {
            attempt: stored.attempt,
            first_at: TimestampUs(stored.first_at_us),
            ended_at: stored.ended_at_us.map(TimestampUs),
            tries: stored.tries,
            outcome: decode_status(&stored.outcome).map_err(|error| Error::column(COLUMN, error))?,
            detail: stored.detail,
        })
    };
    stored.into_iter().map(attempt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PaymentStatus;

    #[test]
    fn attempts_are_read_as_they_were_written() {
        let attempt = |attempt, ended_at, outcome, detail: &str| Attempt {
            attempt,
            first_at: TimestampUs(-1),
            ended_at,
            tries: u32::MAX,
            outcome,
            detail: detail.to_owned(),
        };
        let attempts = [
            attempt(1, Some(TimestampUs(i64::MAX)), PaymentStatus::Declined, "a \"reason\"\n"),
            attempt(2, None, PaymentStatus::Pending, ""),
        ];
        assert_eq!(decode(&encode(&attempts).unwrap()).unwrap(), attempts);
        assert_eq!(decode("[]").unwrap(), []);
    }

    #[test]
    fn attempts_that_make_no_sense_are_refused() {
        let unknown = r#"[{"attempt":1,"first_at_us":1,"tries":1,"outcome":"EATEN"}]"#;
        for bad in
            ["", "{}", "[{}]", unknown, &unknown.replace("EATEN", "DECLINED").replace("\"tries\":1", "\"tries\":-1")]
        {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
