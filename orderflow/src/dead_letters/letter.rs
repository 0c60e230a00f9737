//! One dead letter and what it tells of itself.

use std::collections::BTreeMap;

use orderflow_proto::google::pubsub::v1::PubsubMessage;
use service_kit::consumer::{DEAD_LETTER_REASON, DEAD_LETTER_SUBSCRIPTION};
use service_kit::event::CE_TYPE;

use super::payload;

/// Where the broker says that a message came from, which it gave up after its last attempt.
const SOURCE: &str = "CloudPubSubDeadLetterSourceSubscription";
/// Why the broker gave it up.
const SOURCE_REASON: &str = "BrokerDeadLetterReason";
/// How often the broker tried.
const SOURCE_ATTEMPTS: &str = "CloudPubSubDeadLetterSourceDeliveryCount";

/// A message that nobody could handle.
#[derive(Clone, Debug)]
pub struct Letter {
    message: PubsubMessage,
}

impl Letter {
    pub(super) fn new(message: PubsubMessage) -> Self {
        Self { message }
    }

    pub(super) fn into_message(self) -> PubsubMessage {
        self.message
    }

    /// Its id in the dead-letter topic.
    pub fn id(&self) -> &str {
        &self.message.message_id
    }

    /// When it became a dead letter.
    pub fn time(&self) -> String {
        self.message.publish_time.map(|time| time.to_string()).unwrap_or_default()
    }

    /// The same, in milliseconds since 1970.
    pub fn time_ms(&self) -> Option<i64> {
        let time = self.message.publish_time?;
        Some(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000)
    }

    /// The payload as JSON if it can be read so, else its bytes as far as they are text.
    pub fn payload_text(&self) -> String {
        match payload::decode(self.kind(), self.data()) {
            Ok(json) => format!("{json:#}"),
            Err(_) => String::from_utf8_lossy(self.data()).into_owned(),
        }
    }

    /// What kind of event it is; empty when it does not say so.
    pub fn kind(&self) -> &str {
        self.attribute(CE_TYPE)
    }

    /// The order that it is about, which is its ordering key.
    pub fn order(&self) -> String {
        self.message.ordering_key.clone()
    }

    /// The id of the subscription that it came from.
    pub fn source(&self) -> &str {
        let source = match self.attribute(DEAD_LETTER_SUBSCRIPTION) {
            "" => self.attribute(SOURCE),
            name => name,
        };
        source.rsplit('/').next().unwrap_or(source)
    }

    /// Why it lies here: the consumer's words, or the broker's after the last attempt.
    pub fn reason(&self) -> String {
        match (self.attribute(DEAD_LETTER_REASON), self.attribute(SOURCE_REASON)) {
            ("", "") => "no reason given".to_owned(),
            ("", reason) => format!("{reason} {} times", self.attribute(SOURCE_ATTEMPTS)),
            (reason, _) => reason.to_owned(),
        }
    }

    /// All attributes, by name.
    pub fn attributes(&self) -> BTreeMap<&str, &str> {
        self.message.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        &self.message.data
    }

    fn attribute(&self, name: &str) -> &str {
        self.message.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(attributes: &[(&str, &str)]) -> Letter {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Letter::new(PubsubMessage { attributes, ..Default::default() })
    }

    #[test]
    fn a_letter_that_its_consumer_set_aside_tells_the_consumers_reason() {
        let letter = letter(&[
            (DEAD_LETTER_SUBSCRIPTION, "projects/orderflow/subscriptions/payment-service.order-events"),
            (DEAD_LETTER_REASON, "`total` is missing"),
        ]);
        assert_eq!((letter.source(), letter.reason().as_str()), ("payment-service.order-events", "`total` is missing"));
    }

    #[test]
    fn a_letter_that_the_broker_gave_up_tells_how_often_it_tried() {
        let letter =
            letter(&[(SOURCE, "payment-service.order-events"), (SOURCE_REASON, "nacked"), (SOURCE_ATTEMPTS, "20")]);
        assert_eq!((letter.source(), letter.reason().as_str()), ("payment-service.order-events", "nacked 20 times"));
    }
}
