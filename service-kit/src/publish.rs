//! Publishes an event at once, for whoever has no database and so no outbox: the event's cause is repeated until it is
//! published, so that the event comes at least once, each time under the same id.

use std::time::SystemTime;

use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::client::BasePublisher;
use google_cloud_pubsub::model::Message;

use crate::broker::{self, BrokerConfig, code, reason};
use crate::event::{CE_ID, CE_SOURCE, CE_TIME, CE_TYPE, rfc3339};
use crate::outbox::NewEvent;
use crate::telemetry::{metrics, trace};

/// Why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker took no event now; the same again may succeed.
    #[error("the event was not published: {0}")]
    Unavailable(String),
    /// The broker will never take this event.
    #[error("the broker refuses the event: {0}")]
    Refused(String),
}

/// Publishes events under ids that the caller gives.
#[derive(Clone, Debug)]
pub struct Publisher {
    broker: BrokerConfig,
    publisher: BasePublisher,
}

impl Publisher {
    /// A publisher. A broker that is down is no error.
    pub async fn open(broker: &BrokerConfig) -> Result<Self, broker::Error> {
        Ok(Self { broker: broker.clone(), publisher: broker.publisher().await? })
    }

    /// Publishes an event and waits until the broker has it. `id` is the event's (`ce-id`): the same for every repeat.
    /// `source` is who tells it (`ce-source`). The event carries the caller's trace on.
    pub async fn publish(&self, id: &str, source: &str, event: NewEvent) -> Result<(), Error> {
        let NewEvent { topic, ordering_key, kind, payload } = event;
        let time = rfc3339(SystemTime::now());
        let attributes = [(CE_ID, id), (CE_TYPE, kind), (CE_SOURCE, source), (CE_TIME, &time)];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let message = Message::new()
            .set_data(payload)
            .set_ordering_key(ordering_key)
            .set_attributes(attributes.into_iter().chain(trace::headers()));
        // A publisher keeps a task for each ordering key for as long as it lives; this one lives for one event.
        let publisher = self.publisher.publisher(self.broker.topic(topic)).set_message_count_threshold(1_u32).build();
        match publisher.publish(message).await {
            Ok(_) => {
                metrics::published(topic);
                Ok(())
            }
            Err(error) => {
                let reason = reason(&error);
                Err(match code(&error) {
                    Some(Code::InvalidArgument) => Error::Refused(reason),
                    _ => Error::Unavailable(reason),
                })
            }
        }
    }
}
