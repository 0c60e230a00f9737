//! An event as it travels through the broker: bytes with CloudEvents attributes.

use std::collections::HashMap;
use std::time::SystemTime;

use bytes::Bytes;
use prost_types::Timestamp;

/// Attribute with the event's id, unique for all time.
pub const CE_ID: &str = "ce-id";
/// Attribute with the event's type, such as `orderflow.events.v1.OrderPlaced`.
pub const CE_TYPE: &str = "ce-type";
/// Attribute with the event's source, such as `order-service`.
pub const CE_SOURCE: &str = "ce-source";
/// Attribute with the time of the event in the form of RFC 3339.
pub const CE_TIME: &str = "ce-time";

/// An event that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The id that the producer gave it: the same for every copy.
    pub id: String,
    /// What happened, such as `orderflow.events.v1.OrderPlaced`.
    pub kind: String,
    /// Who tells it, such as `order-service`. Empty when the producer did not say.
    pub source: String,
    /// When it happened, if the producer said so in a form that can be read.
    pub time: Option<SystemTime>,
    /// Events of one key arrive in order. Empty when it does not matter.
    pub ordering_key: String,
    /// The encoded event.
    pub payload: Bytes,
    /// All attributes, those above among them.
    pub attributes: HashMap<String, String>,
    /// How many times the broker has tried, from 1, if it counts.
    pub delivery_attempt: Option<u32>,
}

/// Why bytes with attributes are no event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An attribute without which nobody can tell what it is, or whether it came before.
    #[error("the message has no attribute `{0}`")]
    Missing(&'static str),
}

impl Event {
    /// Reads the attributes of a message.
    pub fn parse(
        attributes: HashMap<String, String>,
        ordering_key: String,
        payload: Bytes,
        delivery_attempt: Option<u32>,
    ) -> Result<Self, Error> {
        let required = |name: &'static str| {
            let value = attributes.get(name).filter(|value| !value.is_empty());
            value.cloned().ok_or(Error::Missing(name))
        };
        let id = required(CE_ID)?;
        let kind = required(CE_TYPE)?;
        let source = attributes.get(CE_SOURCE).cloned().unwrap_or_default();
        let time = attributes.get(CE_TIME).and_then(|text| text.parse::<Timestamp>().ok());
        let time = time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(Self { id, kind, source, time, ordering_key, payload, attributes, delivery_attempt })
    }
}

/// A time in the form of RFC 3339.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}
