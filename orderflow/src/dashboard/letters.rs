//! The dead letters: shown, sent back, given up.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Refusal;
use super::http::{Page, body};
use crate::dead_letters::{self, Letter};

/// Letters that are told, the oldest ones.
const LETTERS_TOLD_MAX: usize = 200;
/// Letters that one request sends back or gives up.
const IDS_MAX: usize = 100;
/// A longer payload is cut, in characters.
const PAYLOAD_CHARS_MAX: usize = 2_000;

/// `GET /api/dead-letters`
pub(super) async fn list(State(page): State<Page>) -> Result<Json<Value>, Refusal> {
    let letters = dead_letters::list(&page.live.site.addresses.broker).await?;
    let told: Vec<Value> = letters.iter().take(LETTERS_TOLD_MAX).map(letter).collect();
    Ok(Json(json!({ "letters": told, "total": letters.len() })))
}

fn letter(letter: &Letter) -> Value {
    json!({
        "id": letter.id(),
        "order": letter.order(),
        "reason": letter.reason(),
        "kind": letter.kind(),
        "source_subscription": letter.source(),
        "published_ms": letter.time_ms(),
        "payload": cut(&letter.payload_text()),
    })
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PAYLOAD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    ids: Vec<String>,
}

fn ids(bytes: Result<Bytes, BytesRejection>) -> Result<Vec<String>, Refusal> {
    let Ids { ids } = body(bytes)?;
    if (1..=IDS_MAX).contains(&ids.len()) {
        Ok(ids)
    } else {
        Err(Refusal::bad(format!("`ids` must be 1 to {IDS_MAX}")))
    }
}

/// `POST /api/dead-letters/redrive`
pub(super) async fn redrive(
    State(page): State<Page>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let reply = dead_letters::redrive(&page.live.site.addresses.broker, ids(bytes)?).await?;
    page.live.touch();
    if reply.skipped.is_empty() {
        Ok(Json(json!({ "redriven": reply.redriven_messages })))
    } else {
        Err(dead_letters::Error::Skipped(reply.skipped).into())
    }
}

/// `POST /api/dead-letters/discard`
pub(super) async fn discard(
    State(page): State<Page>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let ids = ids(bytes)?;
    let discarded = dead_letters::discard(&page.live.site.addresses.broker, &ids).await;
    page.live.touch();
    discarded?;
    Ok(Json(json!({ "discarded": ids.len() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_payload_is_cut_between_two_characters() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"ä".repeat(PAYLOAD_CHARS_MAX + 1));
        assert_eq!(long.chars().count(), PAYLOAD_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn one_letter_at_least_is_named() {
        assert!(ids(Ok(Bytes::from_static(br#"{"ids":[]}"#))).is_err(), "none would stand for all");
        assert_eq!(ids(Ok(Bytes::from_static(br#"{"ids":["7"]}"#))).unwrap(), ["7"]);
    }
}
