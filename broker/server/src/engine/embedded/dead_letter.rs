//! The attributes that a dead letter carries: where it came from, and why.

use std::collections::HashMap;

use broker_core::{FailReason, SubscriptionName, Time};

/// The names that the public service uses.
const SOURCE_SUBSCRIPTION: &str = "CloudPubSubDeadLetterSourceSubscription";
const SOURCE_PROJECT: &str = "CloudPubSubDeadLetterSourceSubscriptionProject";
const DELIVERY_COUNT: &str = "CloudPubSubDeadLetterSourceDeliveryCount";
const PUBLISH_TIME: &str = "CloudPubSubDeadLetterSourceTopicPublishTime";
/// Why the last attempt failed; the public service does not tell.
const REASON: &str = "BrokerDeadLetterReason";
/// What a consumer that sets a message aside by itself writes: the subscription by its full name, and why.
const SET_ASIDE_SUBSCRIPTION: &str = "dead-letter-subscription";
const SET_ASIDE_REASON: &str = "dead-letter-reason";

/// What is known of a message that goes to its dead-letter topic.
#[derive(Clone, Debug)]
pub(super) struct Provenance {
    pub(super) source: SubscriptionName,
    pub(super) attempts: u32,
    pub(super) reason: FailReason,
}

impl Provenance {
    /// The attributes that say so; `published` is when the message was published to the topic that it came from.
    pub(super) fn attributes(&self, published: Time) -> [(String, String); 5] {
        let reason = match self.reason {
            FailReason::Nacked => "nacked",
            FailReason::Expired => "expired",
            FailReason::Lost => "connection lost",
        };
        [
            (SOURCE_SUBSCRIPTION, self.source.id().to_owned()),
            (SOURCE_PROJECT, self.source.project().to_owned()),
            (DELIVERY_COUNT, self.attempts.to_string()),
            (PUBLISH_TIME, timestamp(published).to_string()),
            (REASON, reason.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
    }
}

/// Takes the attributes of the last way to a dead-letter topic off a message, and gives the subscription that they name.
/// A message that the broker forwarded and a consumer set aside, one after the other, goes back one step at a time.
pub(super) fn take_source(attributes: &mut HashMap<String, String>) -> Option<SubscriptionName> {
    if let (Some(id), Some(project)) = (attributes.get(SOURCE_SUBSCRIPTION), attributes.get(SOURCE_PROJECT)) {
        let source = format!("projects/{project}/subscriptions/{id}").parse().ok()?;
        for key in [SOURCE_SUBSCRIPTION, SOURCE_PROJECT, DELIVERY_COUNT, PUBLISH_TIME, REASON] {
            attributes.remove(key);
        }
        return Some(source);
    }
    let source = attributes.get(SET_ASIDE_SUBSCRIPTION)?.parse().ok()?;
    attributes.remove(SET_ASIDE_SUBSCRIPTION);
    attributes.remove(SET_ASIDE_REASON);
    Some(source)
}

fn timestamp(time: Time) -> prost_types::Timestamp {
    let seconds = i64::try_from(time.0 / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubscriptionName {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_forwarded_message_gained_is_taken_off_again_and_nothing_else() {
        let source = name("projects/p/subscriptions/payment");
        let own = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let mut attributes = own.clone();
        let provenance = Provenance { source: source.clone(), attempts: 5, reason: FailReason::Expired };
        attributes.extend(provenance.attributes(Time(1_000)));
        assert_eq!(attributes[PUBLISH_TIME], "1970-01-01T00:00:01Z");
        assert_eq!(attributes[REASON], "expired");
        assert_eq!(take_source(&mut attributes), Some(source));
        assert_eq!(attributes, own);
        assert_eq!(take_source(&mut attributes), None);
    }

    #[test]
    fn a_message_that_its_consumer_set_aside_tells_its_source_too() {
        let source = name("projects/p/subscriptions/payment");
        let mut attributes = HashMap::from([
            (SET_ASIDE_SUBSCRIPTION.to_owned(), source.to_string()),
            (SET_ASIDE_REASON.to_owned(), "no such order".to_owned()),
        ]);
        let first = attributes.clone();
        let forwarded =
            Provenance { source: name("projects/p/subscriptions/operator"), attempts: 5, reason: FailReason::Nacked };
        attributes.extend(forwarded.attributes(Time(1)));
        assert_eq!(take_source(&mut attributes), Some(forwarded.source), "the last step first");
        assert_eq!(attributes, first);
        assert_eq!(take_source(&mut attributes), Some(source));
        assert!(attributes.is_empty());
    }

    #[test]
    fn a_source_that_is_no_subscription_is_none_and_leaves_the_attributes() {
        let mut attributes = HashMap::from([(SET_ASIDE_SUBSCRIPTION.to_owned(), "nonsense".to_owned())]);
        assert_eq!(take_source(&mut attributes), None);
        assert_eq!(attributes.len(), 1);
    }
}
