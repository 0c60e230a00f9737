//! From the wire to the terms of the engine: names, pages, messages, deadlines.

use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use broker_core::{AckDeadline, NameError, Time};
use orderflow_proto::google::pubsub::v1 as pb;
use prost::Message as _;

use super::status::Invalid;
use crate::engine::{Message, Page};

/// The most messages in one publish request.
pub(crate) const PUBLISH_MESSAGES_MAX: usize = 1_000;
/// The largest publish request, in encoded bytes.
pub(crate) const PUBLISH_REQUEST_BYTES_MAX: usize = 10_000_000;
/// The largest request that is decoded at all, in bytes: one beyond the limit of a publish request gets an answer that
/// names the limit, and one far beyond it costs no memory.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The most attributes of one message.
pub(crate) const ATTRIBUTES_MAX: usize = 100;
/// The longest key of an attribute, in bytes.
pub(crate) const ATTRIBUTE_KEY_BYTES_MAX: usize = 256;
/// The longest value of an attribute, in bytes.
pub(crate) const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1_024;
/// The longest ordering key, in bytes.
pub(crate) const ORDERING_KEY_BYTES_MAX: usize = 1_024;
/// What attribute keys must not start with: the public service keeps it for itself.
const ATTRIBUTE_KEY_RESERVED: &str = "goog";
/// The entries of a page when the request names no size.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 100;
/// The most entries of a page; a request for more gets this many.
pub(crate) const PAGE_SIZE_MAX: usize = 1_000;
/// The most ack ids in one request: what fits into the public limit of 512 KiB a request, and some more.
pub(crate) const ACK_IDS_MAX: usize = 10_000;
/// The longest deadline that a lease can be given, in seconds.
pub(crate) const LEASE_SECONDS_MAX: i32 = 600;

/// A resource name.
pub(super) fn name<T: FromStr<Err = NameError>>(field: &str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|error| Invalid::new(field, error))
}

/// What the core complains about, as a complaint about a field.
pub(super) fn invalid(error: broker_core::Error) -> Invalid {
    match error {
        broker_core::Error::InvalidArgument { field, why } => Invalid::new(field, why),
        other => Invalid::new("request", other),
    }
}

/// A deadline of a subscription or a stream: 10 to 600 s.
pub(super) fn ack_deadline(field: &str, seconds: i32) -> Result<AckDeadline, Invalid> {
    let ms = u32::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    AckDeadline::from_ms(ms).map_err(|_| Invalid::new(field, format!("{seconds} s is not within 10 to 600 s")))
}

/// A deadline of a lease: 0 to 600 s.
pub(super) fn lease_ms(field: &str, seconds: i32) -> Result<u32, Invalid> {
    let in_range = u32::try_from(seconds).ok().filter(|_| seconds <= LEASE_SECONDS_MAX);
    in_range
        .map(|seconds| seconds * 1_000)
        .ok_or_else(|| Invalid::new(field, format!("{seconds} s is not within 0 to {LEASE_SECONDS_MAX} s")))
}

/// A span of time that is not negative and a whole number of milliseconds.
pub(super) fn duration_ms(field: &str, duration: &prost_types::Duration) -> Result<u64, Invalid> {
    let whole = u64::try_from(duration.seconds).ok().zip(u64::try_from(duration.nanos).ok());
    let (seconds, nanos) = whole.ok_or_else(|| Invalid::new(field, "must not be negative"))?;
    if nanos % 1_000_000 != 0 || nanos >= 1_000_000_000 {
        return Err(Invalid::new(field, "must be a whole number of milliseconds"));
    }
    Ok(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000))
}

/// A point in time in milliseconds since the Unix epoch, rounded up: whatever was before it in milliseconds was before
/// it. What lies before the epoch counts as the epoch.
pub(super) fn time_ms(field: &str, time: &prost_types::Timestamp) -> Result<Time, Invalid> {
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or_else(|| Invalid::new(field, format!("{} ns are not within a second", time.nanos)))?;
    let Ok(seconds) = u64::try_from(time.seconds) else { return Ok(Time(0)) };
    Ok(Time(seconds.saturating_mul(1_000).saturating_add(nanos.div_ceil(1_000_000))))
}

/// A point in time on the wire.
pub(super) fn timestamp(ms: u64) -> prost_types::Timestamp {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds, nanos }
}

/// The number of ack ids, at least one.
pub(super) fn ack_ids(field: &str, ids: &[String]) -> Result<(), Invalid> {
    if ids.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    ack_ids_max(field, ids)
}

/// The number of ack ids, which may be zero.
pub(super) fn ack_ids_max(field: &str, ids: &[String]) -> Result<(), Invalid> {
    if ids.len() > ACK_IDS_MAX {
        return Err(Invalid::new(field, format!("{} ids are more than {ACK_IDS_MAX}", ids.len())));
    }
    Ok(())
}

/// The messages of a publish request, each within its limits.
pub(super) fn messages(request: pb::PublishRequest) -> Result<Vec<Message>, Invalid> {
    let bytes = request.encoded_len();
    if bytes > PUBLISH_REQUEST_BYTES_MAX {
        let why = format!("a request of {bytes} bytes is larger than {PUBLISH_REQUEST_BYTES_MAX} bytes");
        return Err(Invalid::new("messages", why));
    }
    let count = request.messages.len();
    if !(1..=PUBLISH_MESSAGES_MAX).contains(&count) {
        return Err(Invalid::new("messages", format!("{count} is not within 1 to {PUBLISH_MESSAGES_MAX}")));
    }
    let parse = |(at, message)| self::message(message).map_err(|invalid| invalid.within(&format!("messages[{at}]")));
    request.messages.into_iter().enumerate().map(parse).collect()
}

/// One message. The broker gives id and publish time, whatever the publisher wrote there.
fn message(message: pb::PubsubMessage) -> Result<Message, Invalid> {
    let pb::PubsubMessage { data, attributes, message_id: _, publish_time: _, ordering_key } = message;
    content(&data, attributes.len())?;
    attributes.iter().try_for_each(|(key, value)| attribute(key, value))?;
    self::ordering_key(&ordering_key)?;
    Ok(Message { data, attributes, ordering_key })
}

/// What a message is made of.
pub(super) fn content(data: &[u8], attributes: usize) -> Result<(), Invalid> {
    if data.is_empty() && attributes == 0 {
        return Err(Invalid::new("data", "a message needs data or an attribute"));
    }
    if attributes > ATTRIBUTES_MAX {
        return Err(Invalid::new("attributes", format!("{attributes} attributes are more than {ATTRIBUTES_MAX}")));
    }
    Ok(())
}

/// An attribute of a message.
pub(super) fn attribute(key: &str, value: &str) -> Result<(), Invalid> {
    if !(1..=ATTRIBUTE_KEY_BYTES_MAX).contains(&key.len()) {
        let why = format!("a key of {} bytes is not within 1 to {ATTRIBUTE_KEY_BYTES_MAX} bytes", key.len());
        return Err(Invalid::new("attributes", why));
    }
    if key.starts_with(ATTRIBUTE_KEY_RESERVED) {
        let why = format!("key `{key}` must not start with `{ATTRIBUTE_KEY_RESERVED}`");
        return Err(Invalid::new("attributes", why));
    }
    if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        let why = format!("the value of `{key}` is longer than {ATTRIBUTE_VALUE_BYTES_MAX} bytes");
        return Err(Invalid::new("attributes", why));
    }
    Ok(())
}

/// The ordering key of a message.
pub(super) fn ordering_key(key: &str) -> Result<(), Invalid> {
    if key.len() > ORDERING_KEY_BYTES_MAX {
        let why = format!("{} bytes are more than {ORDERING_KEY_BYTES_MAX}", key.len());
        return Err(Invalid::new("ordering_key", why));
    }
    Ok(())
}

/// Which part of a list is wanted.
pub(super) fn page<N: FromStr>(size: i32, token: &str) -> Result<Page<N>, Invalid> {
    let limit = match usize::try_from(size) {
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => return Err(Invalid::new("page_size", "must not be negative")),
    };
    let after = if token.is_empty() { None } else { Some(read_token(token)?) };
    Ok(Page { after, limit })
}

/// The token that continues after `last`, if the page is full.
pub(super) fn next_page_token(page_limit: usize, found: usize, last: Option<&str>) -> String {
    match last {
        Some(last) if found >= page_limit => write_token(last),
        _ => String::new(),
    }
}

fn write_token(last: &str) -> String {
    let mut bytes = crc32fast::hash(last.as_bytes()).to_le_bytes().to_vec();
    bytes.extend_from_slice(last.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn read_token<N: FromStr>(token: &str) -> Result<N, Invalid> {
    let decode = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (sum, last) = bytes.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*sum) == crc32fast::hash(last)).then_some(())?;
        str::from_utf8(last).ok()?.parse().ok()
    };
    decode().ok_or_else(|| Invalid::new("page_token", "is not a token that this broker gave out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_comes_back_as_the_name_it_stands_for() {
        let token = write_token("projects/p/topics/t");
        assert_eq!(read_token::<String>(&token).unwrap(), "projects/p/topics/t");
    }

    #[test]
    fn a_page_token_with_any_character_changed_is_refused() {
        let token = write_token("projects/p/topics/t");
        for at in 0..token.len() {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).unwrap();
            assert!(read_token::<String>(&broken).is_err(), "{broken} passes");
        }
    }
}
