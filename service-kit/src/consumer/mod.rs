//! Takes messages from a subscription, one after the other for each ordering key, many keys at the same time.

mod dead_letter;
mod lanes;
mod source;

use std::sync::Arc;
use std::time::Duration;

use fail_points::Fault;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::subscriber::handler::Handler as Lease;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, info, info_span, warn};

use crate::broker::{self, BrokerConfig};
use crate::event::Event;
use crate::telemetry::{TRACE, metrics, trace};

pub use dead_letter::{CUT_DATA_BYTES_MAX, DEAD_LETTER_CUT, DEAD_LETTER_REASON, DEAD_LETTER_SUBSCRIPTION};

use dead_letter::{DeadLetters, Fate};
use lanes::{Key, Lanes};
use source::Source;

/// How many messages a consumer handles at the same time unless it says otherwise.
pub const CONCURRENCY_DEFAULT: usize = 64;

/// How many messages the broker may have out to one consumer.
pub const OUTSTANDING_MESSAGES_MAX: u16 = 256;

/// How many messages a consumer has in hand at most. More than may be out, because what was out to a broker that
/// restarted is still being handled while it is delivered again.
pub const IN_HAND_MAX: usize = 2 * OUTSTANDING_MESSAGES_MAX as usize;

/// How long a stopping consumer may finish what it has in hand, in milliseconds.
pub const FINISH_MS_MAX: u64 = 5_000;

/// How often it is looked which keys have waited long enough for a message to come back, in milliseconds.
const SWEEP_MS: u64 = 1_000;

/// How long acks may gather in the client before they are sent, in milliseconds, and a good while for the way.
const ACK_FLUSH_MS: u64 = 300;

/// How long a consumer that is broken on purpose sits on a message that it has acked, in milliseconds.
const SABOTAGED_MS: u64 = 2_000;

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

impl Outcome {
    /// As the figures name it.
    fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Reject(_) => "rejected",
            Self::Retry(_) => "retried",
            Self::Interrupted => "interrupted",
        }
    }
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
    /// The thread for the broker's connection cannot be started.
    #[error("the thread for the broker's connection cannot be started")]
    Thread(#[source] std::io::Error),
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

/// A consumer of one subscription.
#[derive(Debug)]
pub struct Consumer<H> {
    source: Source,
    work: Work<H>,
    concurrency: usize,
}

impl<H: Handler> Consumer<H> {
    /// A consumer. A broker that is down is no error: the consumer waits for it.
    pub async fn open(broker: &BrokerConfig, config: ConsumerConfig, handler: H) -> Result<Self, Error> {
        let subscription = broker.subscription(config.subscription);
        let source = Source::open(broker, subscription.clone()).await?;
        let (publisher, topic) = (broker.publisher().await?, broker.topic(config.dead_letters));
        let dead_letters = DeadLetters { publisher, topic, subscription };
        Ok(Self { source, work: Work { handler: Arc::new(handler), dead_letters }, concurrency: config.concurrency })
    }

    /// Consumes until the token is cancelled; then finishes what is in hand and returns.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        info!(subscription = self.source.subscription(), "the consumer starts");
        let hand = Hand {
            lanes: Lanes::new(self.concurrency.max(1)),
            tasks: JoinSet::new(),
            work: self.work,
            stopping: token.clone(),
            acked_at: None,
        };
        consume(self.source, hand, token).await
    }
}

async fn consume<H: Handler>(source: Source, mut hand: Hand<H>, token: CancellationToken) -> Result<(), Error> {
    let mut sweep = tokio::time::interval(Duration::from_millis(SWEEP_MS));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // One wait goes on while other things happen: given up, it would open its stream anew each time.
    let mut next = Box::pin(source.next());
    loop {
        hand.start();
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(finished) = hand.tasks.join_next() => hand.settle(finished),
            // Also while messages come without a pause: what is waited for may have gone to another consumer.
            _ = sweep.tick() => hand.lanes.expire(Instant::now()),
            (source, message) = &mut next, if hand.lanes.in_hand() < IN_HAND_MAX => {
                next.set(source.next());
                if let Some((message, lease)) = message? {
                    hand.take(message, lease);
                }
            }
        }
    }
    hand.finish().await;
    // Cuts the connection: what was not acked is given back by the broker.
    drop(next);
    Ok(())
}

/// Every message in hand and the tasks that handle them.
struct Hand<H> {
    lanes: Lanes<Delivery, Lease>,
    tasks: JoinSet<(Key, Outcome)>,
    work: Work<H>,
    stopping: CancellationToken,
    acked_at: Option<Instant>,
}

impl<H: Handler> Hand<H> {
    fn take(&mut self, message: Message, lease: Lease) {
        let attempt = lease.delivery_attempt().and_then(|attempt| u32::try_from(attempt).ok());
        let (key, id) = (message.ordering_key.clone(), message.message_id.clone());
        self.lanes.arrive(&key, id, Delivery { message, attempt }, lease);
    }

    fn start(&mut self) {
        while let Some((key, delivery)) = self.lanes.start() {
            if fail_points::broken(Fault::AckBeforeCommit) {
                self.lanes.leases_of_running(&key).into_iter().for_each(Lease::ack);
            }
            let (work, stopping) = (self.work.clone(), self.stopping.clone());
            self.tasks.spawn(async move { (key, work.handle(delivery, &stopping).await) });
        }
    }

    fn settle(&mut self, finished: Result<(Key, Outcome), tokio::task::JoinError>) {
        let (key, outcome) = match finished {
            Ok(finished) => finished,
            Err(error) => match error.try_into_panic() {
                // A handler with a bug must not look like a message that is slow.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        let now = Instant::now();
        match outcome {
            Outcome::Done | Outcome::Reject(_) => {
                self.lanes.finish(key, false, now).into_iter().for_each(Lease::ack);
                self.acked_at = Some(now);
            }
            Outcome::Retry(_) => {
                self.lanes.finish(key, true, now).into_iter().for_each(Lease::nack);
                self.acked_at = Some(now);
            }
            // It stays in its lane, on its lease, until the connection is cut.
            Outcome::Interrupted => {}
        }
    }

    /// Handles what is in hand, for as long as a stop may take, and lets the client send the acks.
    async fn finish(&mut self) {
        let finished = async {
            loop {
                self.start();
                match self.tasks.join_next().await {
                    Some(finished) => self.settle(finished),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(Duration::from_millis(FINISH_MS_MAX), finished).await.is_err() {
            warn!(in_hand = self.lanes.in_hand(), "messages that are still being handled come back later");
            self.tasks.abort_all();
        }
        if let Some(acked_at) = self.acked_at {
            tokio::time::sleep_until(acked_at + Duration::from_millis(ACK_FLUSH_MS)).await;
        }
    }
}

/// A message as it was delivered.
#[derive(Debug)]
struct Delivery {
    message: Message,
    attempt: Option<u32>,
}

/// What is done with one message.
#[derive(Debug)]
struct Work<H> {
    handler: Arc<H>,
    dead_letters: DeadLetters,
}

impl<H> Clone for Work<H> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), dead_letters: self.dead_letters.clone() }
    }
}

impl<H: Handler> Work<H> {
    async fn handle(&self, delivery: Delivery, stopping: &CancellationToken) -> Outcome {
        if fail_points::broken(Fault::AckBeforeCommit) {
            // Whoever dies meanwhile has lost the message.
            tokio::time::sleep(Duration::from_millis(SABOTAGED_MS)).await;
        }
        let (subscription, started) = (self.dead_letters.subscription.clone(), Instant::now());
        let span = info_span!(
            target: TRACE,
            "message",
            otel.name = format_args!("{} process", short(&subscription)),
            otel.kind = "consumer",
            subscription = short(&subscription),
            message_id = delivery.message.message_id,
            ordering_key = delivery.message.ordering_key,
            attempt = delivery.attempt,
            trace_id = Empty,
        );
        trace::follow(&span, &trace::Attributes(&delivery.message.attributes));
        let outcome = self.judge(delivery, stopping).instrument(span).await;
        metrics::handled(short(&subscription), outcome.name(), started.elapsed());
        outcome
    }

    async fn judge(&self, delivery: Delivery, stopping: &CancellationToken) -> Outcome {
        let Delivery { message, attempt } = delivery;
        let (attributes, key) = (message.attributes.clone(), message.ordering_key.clone());
        let outcome = match Event::parse(attributes, key, message.data.clone(), attempt) {
            Ok(mut event) => {
                if fail_points::broken(Fault::NoInbox) {
                    event.id = uuid::Uuid::now_v7().to_string();
                }
                self.handler.handle(&event, stopping).await
            }
            Err(error) => Outcome::Reject(error.to_string()),
        };
        let outcome = match outcome {
            Outcome::Reject(reason) => match self.dead_letters.put(&message, &reason, stopping).await {
                Fate::Set => Outcome::Done,
                Fate::Stopping => Outcome::Interrupted,
                // The broker's own policy sets it aside after its attempts.
                Fate::Refused(problem) => Outcome::Retry(format!("{reason}; and it cannot be set aside: {problem}")),
            },
            outcome => outcome,
        };
        match outcome {
            Outcome::Retry(reason) => {
                let subscription = &self.dead_letters.subscription;
                warn!(
                    subscription,
                    message_id = message.message_id,
                    attempt,
                    reason,
                    "a message failed; it comes back"
                );
                Outcome::Retry(reason)
            }
            outcome => outcome,
        }
    }
}

/// `projects/P/subscriptions/S` as `S`.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
