//! Somebody of our own who listens to every event of the orders, and knows what a queue owes to a subscriber.
//!
//! The services forgive a broker much: what comes twice has no second effect on them, and what comes out of order is
//! often no harm. The witness forgives nothing. It also sees events of which no book of a service would miss one, such
//! as `OrderDeclined`, when they stay behind in an outbox.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::google::pubsub::v1::{
    AcknowledgeRequest, ModifyAckDeadlineRequest, PullRequest, ReceivedMessage, RetryPolicy, Subscription,
};
use service_kit::event::{CE_ID, CE_TYPE};
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

pub(super) use self::ledger::{Ledger, Seen};
use crate::audit::{Error, channel};

/// The topics with the events of the orders, keyed by order.
const TOPICS: [&str; 2] = ["order-events", "payment-events"];
/// How long the witness may take with a message, in seconds: the least that the protocol allows.
const ACK_DEADLINE_S: i32 = 10;
/// Messages that are asked for at a time.
const PULL_MESSAGES_MAX: i32 = 20;
/// One delivery of so many is sent back at first, to see whether its key waits for it.
const NACK_ONE_OF: u32 = 8;
/// How long it stays away then, in seconds: long enough for the next event of its order to come, if nothing held it up.
const BACKOFF_S: i64 = 3;
/// Pause after a call that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A witness at work.
pub(super) struct Witness {
    ledger: Arc<Mutex<Ledger>>,
    tasks: JoinSet<()>,
    token: CancellationToken,
}

impl Witness {
    /// Subscribes at the broker at `http://HOST:PORT`: what is published from now on is seen.
    pub(super) async fn subscribe(broker: &str, seed: u64) -> Result<Self, Error> {
        let client = SubscriberClient::new(channel(broker)?);
        let (ledger, token) = (Arc::<Mutex<Ledger>>::default(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let backoff = Some(prost_types::Duration { seconds: BACKOFF_S, nanos: 0 });
        for (number, topic) in (0..).zip(TOPICS) {
            let subscription = Subscription {
                name: format!("projects/orderflow/subscriptions/witness.{topic}"),
                topic: format!("projects/orderflow/topics/{topic}"),
                ack_deadline_seconds: ACK_DEADLINE_S,
                enable_message_ordering: true,
                retry_policy: Some(RetryPolicy { minimum_backoff: backoff, maximum_backoff: backoff }),
                enable_exactly_once_delivery: true,
                ..Default::default()
            };
            let name = subscription.name.clone();
            client.clone().create_subscription(subscription).await.map_err(Error::grpc("broker", broker))?;
            let listener = Listener { topic, name, client: client.clone(), ledger: Arc::clone(&ledger) };
            let rng = Rng::with_seed(seed.wrapping_add(number));
            let token = token.clone();
            tasks.spawn(async move {
                token.run_until_cancelled(listener.listen(rng)).await;
            });
        }
        Ok(Self { ledger, tasks, token })
    }

    /// What has been seen so far.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends listening.
    pub(super) async fn end(mut self) {
        self.token.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Takes the messages of one topic.
struct Listener {
    topic: &'static str,
    name: String,
    client: SubscriberClient<Channel>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Listener {
    async fn listen(mut self, mut rng: Rng) {
        loop {
            if self.round(&mut rng).await.is_err() {
                time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Takes some messages; each is acked or sent back by itself, as a consumer does that handles one after the other.
    async fn round(&mut self, rng: &mut Rng) -> Result<(), Status> {
        #[allow(deprecated, reason = "the field is there, and false")]
        let request =
            PullRequest { subscription: self.name.clone(), max_messages: PULL_MESSAGES_MAX, return_immediately: false };
        let received = self.client.pull(request).await?.into_inner().received_messages;
        self.ledger().begin_batch(self.topic);
        let (mut acks, mut nacks) = (Vec::new(), Vec::new());
        for ReceivedMessage { ack_id, message, .. } in received {
            let Some(message) = message else { continue };
            let number = message.message_id.parse().unwrap_or_default();
            let attribute = |name: &str| message.attributes.get(name).cloned().unwrap_or_default();
            let seen = Seen {
                topic: self.topic,
                number,
                order: message.ordering_key.clone(),
                event: attribute(CE_ID),
                kind: attribute(CE_TYPE).rsplit('.').next().unwrap_or_default().to_owned(),
            };
            let is_unlucky = rng.u32(0..NACK_ONE_OF) == 0;
            let key = seen.order.clone();
            if self.ledger().see(seen, is_unlucky) { acks.push((key, number, ack_id)) } else { nacks.push(ack_id) }
        }
        if !nacks.is_empty() {
            let subscription = self.name.clone();
            let give_back = ModifyAckDeadlineRequest { subscription, ack_ids: nacks, ack_deadline_seconds: 0 };
            self.client.modify_ack_deadline(give_back).await?;
        }
        if acks.is_empty() {
            return Ok(());
        }
        let ack_ids = acks.iter().map(|(_, _, ack_id)| ack_id.clone()).collect();
        // With exactly-once delivery a good answer says that every one of them will never come again.
        self.client.acknowledge(AcknowledgeRequest { subscription: self.name.clone(), ack_ids }).await?;
        for (key, number, _) in acks {
            self.ledger().acked(self.topic, key, number);
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
