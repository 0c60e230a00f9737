//! Takes messages from a subscription, one after the other for each ordering key, many keys at the same time.

use google_cloud_pubsub::client::{BasePublisher, Subscriber};
use tokio_util::sync::CancellationToken;

use crate::broker::{self, BrokerConfig};
use crate::event::Event;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect and its inbox mark are committed, or it is none of this consumer's business: it is acked.
    Done,
    /// It can never be handled (poison): it goes to the dead-letter topic with this reason, and is acked.
    Reject(String),
    /// It failed for a reason of its own: it is nacked and comes back, one attempt older.
    Retry(String),
    /// The handler gave up waiting because the service is stopping: neither acked nor nacked, no attempt counted.
    Interrupted,
}

/// Handles the messages of one subscription.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message.
    ///
    /// While something that it needs is down, a handler waits (see [`crate::breaker`]): the lease is extended
    /// meanwhile, and no attempt is counted. It stops waiting when `stopping` is cancelled. It may be dropped at any
    /// await and called again with the same event.
    fn handle(&self, event: &Event, stopping: &CancellationToken) -> impl Future<Output = Outcome> + Send;
}

/// Why a consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subscription is not there. The topology is declared before services start.
    #[error("the subscription `{subscription}` does not exist at the broker")]
    SubscriptionMissing {
        /// Its full name.
        subscription: String,
    },
    /// The broker refuses for good.
    #[error("the broker refuses the subscription `{subscription}`: {cause}")]
    Refused {
        /// Its full name.
        subscription: String,
        /// What the broker said.
        cause: String,
    },
    /// No client can be made for the broker.
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// Which subscription is consumed, and how.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The subscription's id: `payment-service.order-events`.
    pub subscription: &'static str,
    /// The id of the topic for messages that cannot be handled: `dead-letters`.
    pub dead_letters: &'static str,
    /// How many messages are handled at the same time.
    pub concurrency: usize,
}

/// How many messages a consumer handles at the same time unless it says otherwise.
pub const CONCURRENCY_DEFAULT: usize = 64;

/// A consumer of one subscription.
#[derive(Debug)]
pub struct Consumer<H> {
    config: ConsumerConfig,
    broker: BrokerConfig,
    subscriber: Subscriber,
    publisher: BasePublisher,
    handler: H,
}

impl<H: Handler> Consumer<H> {
    /// A consumer. A broker that is down is no error: the consumer waits for it.
    pub async fn open(broker: &BrokerConfig, config: ConsumerConfig, handler: H) -> Result<Self, Error> {
        let (subscriber, publisher) = (broker.subscriber().await?, broker.publisher().await?);
        Ok(Self { config, broker: broker.clone(), subscriber, publisher, handler })
    }

    /// Consumes until the token is cancelled; then finishes what is in hand and returns.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let _ = (&self.config, &self.broker, &self.subscriber, &self.publisher, &self.handler);
        token.cancelled().await;
        Ok(())
    }
}
