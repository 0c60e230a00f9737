//! How messages look.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use orderflow_proto::google::pubsub::v1 as pb;
use serde_json::Value;

use super::error::Error;
use super::output::to_json;
use super::table::{Column, Table};
use super::units;

const RECEIVED_MESSAGE: &str = "google.pubsub.v1.ReceivedMessage";

/// A body for people: its text, or base64 with a mark when it is none.
pub(super) fn body(data: &[u8]) -> String {
    match str::from_utf8(data) {
        Ok(text) => units::printable(text),
        Err(_) => format!("base64:{}", BASE64_STANDARD.encode(data)),
    }
}

/// The beginning of a body of `whole_bytes`, marked as such if it is not all.
pub(super) fn body_beginning(data: &[u8], whole_bytes: u64) -> String {
    if data.len() as u64 >= whole_bytes {
        return body(data);
    }
    match str::from_utf8(data) {
        // The cut went through a character.
        Err(error) if error.error_len().is_none() => format!("{}…", body(&data[..error.valid_up_to()])),
        _ => format!("{}…", body(data)),
    }
}

/// A received message in its JSON form, with the body once more as text when it is one.
pub(super) fn received_json(received: &pb::ReceivedMessage) -> Result<Value, Error> {
    let mut value = to_json(RECEIVED_MESSAGE, received)?;
    if let Some(message) = &received.message {
        add_text(&mut value["message"], &message.data);
    }
    Ok(value)
}

/// Adds `text` beside `data`.
pub(super) fn add_text(message: &mut Value, data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        message["text"] = text.into();
    }
}

/// Received messages, one a row.
pub(super) fn received_table(received: &[pb::ReceivedMessage]) -> Table<6> {
    let mut table = Table::new([
        Column::Left("MESSAGE-ID"),
        Column::Left("PUBLISHED"),
        Column::Right("ATTEMPT"),
        Column::Left("KEY"),
        Column::Left("ATTRIBUTES"),
        Column::Left("DATA"),
    ]);
    for received in received {
        let Some(message) = &received.message else { continue };
        table.row([
            message.message_id.clone(),
            units::iso(message.publish_time.as_ref()),
            attempt(received.delivery_attempt),
            units::printable(&message.ordering_key),
            units::labels(&message.attributes),
            body(&message.data),
        ]);
    }
    table
}

/// A received message in one line, for a stream, whose columns nobody knows beforehand.
pub(super) fn received_line(received: &pb::ReceivedMessage) -> String {
    let Some(message) = &received.message else { return String::new() };
    let mut parts = vec![units::iso(message.publish_time.as_ref()), message.message_id.clone()];
    if received.delivery_attempt > 0 {
        parts.push(format!("attempt {}", received.delivery_attempt));
    }
    if !message.ordering_key.is_empty() {
        parts.push(format!("[{}]", units::printable(&message.ordering_key)));
    }
    if !message.attributes.is_empty() {
        parts.push(format!("{{{}}}", units::labels(&message.attributes)));
    }
    parts.push(body(&message.data));
    parts.join("  ")
}

/// The broker counts attempts only where a dead-letter policy needs them.
fn attempt(count: i32) -> String {
    if count > 0 { count.to_string() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_text_is_shown_in_base64_with_a_mark() {
        assert_eq!(body(b"tea\tpot"), "tea\\tpot");
        assert_eq!(body(&[0xff, 0x00]), "base64:/wA=");
    }

    #[test]
    fn a_body_that_was_cut_is_marked_and_stays_text() {
        assert_eq!(body_beginning("Tür".as_bytes(), 4), "Tür");
        assert_eq!(body_beginning("Tür".as_bytes(), 9), "Tür…");
        assert_eq!(body_beginning(&"Tür".as_bytes()[..2], 4), "T…");
        assert_eq!(body_beginning(&[0xff, 0x00], 3), "base64:/wA=…");
    }

    #[test]
    fn json_has_the_data_always_and_the_text_when_it_is_one() {
        let json = |data: &'static [u8]| {
            let message = pb::PubsubMessage { data: data.into(), ..Default::default() };
            received_json(&pb::ReceivedMessage { message: Some(message), ..Default::default() }).unwrap()
        };
        let text = json(b"tea");
        assert_eq!((&text["message"]["data"], &text["message"]["text"]), (&"dGVh".into(), &"tea".into()));
        let bytes = json(&[0xff]);
        assert_eq!((&bytes["message"]["data"], &bytes["message"]["text"]), (&"/w==".into(), &Value::Null));
    }

    #[test]
    fn a_line_leaves_out_what_a_message_does_not_have() {
        let message = pb::PubsubMessage { data: "tea".into(), message_id: "7".to_owned(), ..Default::default() };
        let mut received = pb::ReceivedMessage { message: Some(message), ..Default::default() };
        assert_eq!(received_line(&received), "  7  tea");
        let message = received.message.as_mut().unwrap();
        message.ordering_key = "alice".to_owned();
        message.attributes = [("a".to_owned(), "b".to_owned())].into();
        received.delivery_attempt = 2;
        assert_eq!(received_line(&received), "  7  attempt 2  [alice]  {a=b}  tea");
    }
}
