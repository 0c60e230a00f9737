//! Messages that nobody can read, and what has to become of them: one dead letter from each subscription of their topic.

use std::collections::BTreeSet;
use std::time::Duration;

use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::{PublishRequest, PubsubMessage};
use service_kit::event::{CE_ID, CE_SOURCE, CE_TYPE};
use tokio::time::{self, Instant};

use crate::audit::{Error, channel};
use crate::dead_letters;

/// How the ordering key of such a message begins.
const PREFIX: &str = "poison-";
/// Bytes that are no protobuf message.
const BYTES: &[u8] = &[0xff; 8];
/// How long the broker is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A message that was published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Poison {
    topic: &'static str,
    /// Its ordering key and its event id.
    id: String,
}

/// Whether an ordering key is that of such a message.
pub(super) fn is_poison(order: &str) -> bool {
    order.starts_with(PREFIX)
}

impl Poison {
    /// Publishes a message with this number, once or, when an answer is lost, several times.
    pub(super) async fn publish(broker: &str, topic: &'static str, number: usize) -> Result<Self, Error> {
        let id = format!("{PREFIX}{number}");
        let kind = if topic == "order-events" { "OrderPlaced" } else { "PaymentCaptured" };
        let kind = format!("orderflow.events.v1.{kind}");
        let attributes = [(CE_ID, id.clone()), (CE_TYPE, kind), (CE_SOURCE, "chaos".to_owned())];
        let message = PubsubMessage {
            data: BYTES.into(),
            attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ordering_key: id.clone(),
            ..Default::default()
        };
        let request = PublishRequest { topic: format!("projects/orderflow/topics/{topic}"), messages: vec![message] };
        let mut client = PublisherClient::new(channel(broker)?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.publish(request.clone()).await {
                Ok(_) => return Ok(Self { topic, id }),
                Err(status) if Instant::now() > deadline => return Err(Error::grpc("broker", broker)(status)),
                Err(_) => time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// The subscriptions whose consumers have to set it aside.
    fn sources(&self) -> [String; 2] {
        let consumer = if self.topic == "order-events" { "payment-service" } else { "order-service" };
        [consumer, "notification-service"].map(|consumer| format!("{consumer}.{}", self.topic))
    }
}

/// The dead letters of poison, while they are cleared away.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Poison that was set aside, and the subscription that it came from.
    found: BTreeSet<(String, String)>,
    /// Letters that were discarded. A crash between setting aside and acking makes one more.
    pub(super) discarded: usize,
}

impl Letters {
    /// Discards what is there of poison, each letter by its id. Others stay: the audit finds them.
    pub(super) async fn discard(&mut self, broker: &str) -> Result<(), dead_letters::Error> {
        for letter in dead_letters::list(broker).await? {
            if is_poison(&letter.order()) {
                dead_letters::discard(broker, &[letter.id().to_owned()]).await?;
                self.found.insert((letter.order(), letter.source().to_owned()));
                self.discarded += 1;
            }
        }
        Ok(())
    }

    /// What should have been set aside and was not.
    pub(super) fn missing(&self, published: &[Poison]) -> Vec<String> {
        let mut missing = Vec::new();
        let mut expected = BTreeSet::new();
        for poison in published {
            for source in poison.sources() {
                if !self.found.contains(&(poison.id.clone(), source.clone())) {
                    missing.push(format!("{} was not set aside by the consumer of {source}", poison.id));
                }
                expected.insert((poison.id.clone(), source));
            }
        }
        let strange = self.found.iter().filter(|found| !expected.contains(*found));
        missing.extend(strange.map(|(id, source)| format!("{id} was set aside by {source}, which never had it")));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_that_somebody_swallowed_is_missed() {
        let poison = Poison { topic: "order-events", id: "poison-0".into() };
        let mut letters = Letters::default();
        letters.found.insert(("poison-0".into(), "payment-service.order-events".into()));
        let missing = letters.missing(std::slice::from_ref(&poison));
        assert_eq!(missing, ["poison-0 was not set aside by the consumer of notification-service.order-events"]);
        letters.found.insert(("poison-0".into(), "notification-service.order-events".into()));
        assert!(letters.missing(&[poison]).is_empty());
        assert_eq!(letters.missing(&[]).len(), 2);
    }
}
