//! Listens to what happens to orders: a subscription of the page's own beside the queues of the services. A queue
//! remembers what nobody has handled; this one may forget, since nobody's work waits in it.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::google::pubsub::v1::{
    DeleteSubscriptionRequest, ExpirationPolicy, PubsubMessage, StreamingPullRequest, Subscription,
};
use prost_types::Timestamp;
use service_kit::CancellationToken;
use service_kit::event::{CE_ID, CE_TIME, CE_TYPE};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use super::super::flow::Flow;
use super::super::live::Live;
use super::super::site;
use super::backoff::Backoff;
use crate::queues::LISTENER;

const TOPIC: &str = "projects/orderflow/topics/order-events";
const PLACED: &str = "orderflow.events.v1.OrderPlaced";
const PAID: &str = "orderflow.events.v1.OrderPaid";
/// A subscription that nobody deleted is gone after so long, as little as the protocol allows.
const EXPIRES_S: i64 = 24 * 60 * 60;
/// What is older is of no use to a chart, and the protocol allows no less.
const RETAINED_S: i64 = 10 * 60;
/// How long a message is leased: far longer than it takes to count it.
const LEASE_S: i32 = 30;
/// Messages that are under way to the page.
const OUTSTANDING_MAX: i64 = 2_000;
/// How long acks gather until they are sent.
const ACK_EVERY: Duration = Duration::from_millis(200);
/// Acks that are sent in one request.
const ACKS_MAX: usize = 1_000;
/// Events that are remembered, so that one that comes twice counts once.
const REMEMBERED_MAX: usize = 16_384;
/// How long the end of the subscription may take.
const DELETE_WITHIN: Duration = Duration::from_secs(1);

/// Listens until the token is cancelled, and then deletes the subscription.
pub(super) async fn listen(live: Arc<Live>, token: CancellationToken) {
    let Ok(channel) = site::channel(&live.site.addresses.broker) else { return };
    let mut listener = Listener {
        client: SubscriberClient::new(channel),
        subscription: format!("projects/orderflow/subscriptions/{LISTENER}{:08x}.order-events", fastrand::u32(..)),
        exists: false,
        memory: Memory::default(),
    };
    let mut backoff = Backoff::default();
    let endless = async {
        loop {
            if let Err(status) = listener.follow(&live, &mut backoff).await {
                tracing::debug!(reason = status.message(), "the orders' events have ended");
                // Somebody deleted it, or the broker began anew.
                listener.exists &= status.code() != Code::NotFound;
            }
            backoff.pause().await;
        }
    };
    token.run_until_cancelled(endless).await;
    if listener.exists {
        let request = DeleteSubscriptionRequest { subscription: listener.subscription };
        let _ = time::timeout(DELETE_WITHIN, listener.client.delete_subscription(request)).await;
    }
}

struct Listener {
    client: SubscriberClient<Channel>,
    subscription: String,
    exists: bool,
    memory: Memory,
}

impl Listener {
    async fn create(&mut self) -> Result<(), Status> {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let subscription = Subscription {
            name: self.subscription.clone(),
            topic: TOPIC.into(),
            ack_deadline_seconds: LEASE_S,
            message_retention_duration: seconds(RETAINED_S),
            expiration_policy: Some(ExpirationPolicy { ttl: seconds(EXPIRES_S) }),
            filter: format!(r#"attributes.{CE_TYPE} = "{PLACED}" OR attributes.{CE_TYPE} = "{PAID}""#),
            ..Default::default()
        };
        match self.client.create_subscription(subscription).await {
            Ok(_) => Ok(()),
            // An answer was lost, and this is the second try.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Counts what comes until the stream ends.
    async fn follow(&mut self, live: &Live, backoff: &mut Backoff) -> Result<(), Status> {
        if !self.exists {
            self.create().await?;
            self.exists = true;
        }
        let (requests, receiver) = mpsc::channel(4);
        let first = StreamingPullRequest {
            subscription: self.subscription.clone(),
            stream_ack_deadline_seconds: LEASE_S,
            client_id: Uuid::now_v7().to_string(),
            max_outstanding_messages: OUTSTANDING_MAX,
            ..Default::default()
        };
        let closed = |_| Status::unavailable("the stream has ended");
        requests.send(first).await.map_err(closed)?;
        let mut messages = self.client.streaming_pull(ReceiverStream::new(receiver)).await?.into_inner();
        let mut ack_ids = Vec::new();
        let mut flush = time::interval(ACK_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                next = messages.message() => {
                    let Some(next) = next? else { return Ok(()) };
                    backoff.reset();
                    for received in next.received_messages {
                        ack_ids.push(received.ack_id);
                        self.memory.count(&mut live.flow(), &received.message.unwrap_or_default());
                    }
                    ack_ids.len() >= ACKS_MAX
                }
                _ = flush.tick(), if !ack_ids.is_empty() => true,
            };
            while due && !ack_ids.is_empty() {
                let rest = ack_ids.split_off(ack_ids.len().min(ACKS_MAX));
                let ack_ids = std::mem::replace(&mut ack_ids, rest);
                requests.send(StreamingPullRequest { ack_ids, ..Default::default() }).await.map_err(closed)?;
            }
        }
    }
}

/// What has come lately.
#[derive(Default)]
struct Memory {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Memory {
    fn count(&mut self, flow: &mut Flow, message: &PubsubMessage) {
        let Some(event) = read(message) else { return };
        if !self.is_new(message.attributes.get(CE_ID).map(String::as_str).unwrap_or_default()) {
            return;
        }
        match event {
            Event::Placed { at_ms } => flow.accepted(at_ms),
            Event::Paid { at_ms, latency_ms } => flow.paid(at_ms, latency_ms),
        }
    }

    fn is_new(&mut self, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Placed { at_ms: i64 },
    Paid { at_ms: i64, latency_ms: u64 },
}

/// What a message tells; nothing for what can't be read, such as a poisoned one.
fn read(message: &PubsubMessage) -> Option<Event> {
    let attribute = |name| message.attributes.get(name).map(String::as_str).unwrap_or_default();
    // The id of an order tells when it was accepted.
    let accepted_ms = accepted_ms(&message.ordering_key)?;
    let time = attribute(CE_TIME).parse::<Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok());
    let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let at_ms = i64::try_from(time?.as_millis()).ok()?;
    match attribute(CE_TYPE) {
        PLACED => Some(Event::Placed { at_ms }),
        PAID => Some(Event::Paid {
            at_ms,
            latency_ms: u64::try_from(at_ms.saturating_sub(accepted_ms)).unwrap_or_default(),
        }),
        _ => None,
    }
}

fn accepted_ms(order_id: &str) -> Option<i64> {
    let (seconds, nanos) = Uuid::parse_str(order_id).ok()?.get_timestamp()?.to_unix();
    i64::try_from(seconds.checked_mul(1_000)?.checked_add(u64::from(nanos) / 1_000_000)?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const ACCEPTED_MS: i64 = 1_700_000_000_000;

    fn message(kind: &str, key: &str, time_ms: i64, id: &str) -> PubsubMessage {
        let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(time_ms).unwrap());
        let attributes = [(CE_TYPE, kind), (CE_TIME, &Timestamp::from(time).to_string()), (CE_ID, id)];
        let attributes: HashMap<_, _> = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        PubsubMessage { attributes, ordering_key: key.to_owned(), ..Default::default() }
    }

    fn order() -> String {
        let seconds = u64::try_from(ACCEPTED_MS / 1_000).unwrap();
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)).to_string()
    }

    #[test]
    fn the_time_to_payment_counts_from_the_acceptance() {
        let paid = read(&message(PAID, &order(), ACCEPTED_MS + 1_250, "1"));
        assert_eq!(paid, Some(Event::Paid { at_ms: ACCEPTED_MS + 1_250, latency_ms: 1_250 }));
        let placed = read(&message(PLACED, &order(), ACCEPTED_MS + 1, "2"));
        assert_eq!(placed, Some(Event::Placed { at_ms: ACCEPTED_MS + 1 }));
        let early = read(&message(PAID, &order(), ACCEPTED_MS - 5, "3"));
        assert_eq!(early, Some(Event::Paid { at_ms: ACCEPTED_MS - 5, latency_ms: 0 }), "two clocks differ");
    }

    #[test]
    fn what_can_not_be_read_is_nothing() {
        assert_eq!(read(&PubsubMessage::default()), None);
        assert_eq!(read(&message(PAID, "no order", ACCEPTED_MS, "1")), None);
        assert_eq!(read(&message("made.up.Event", &order(), ACCEPTED_MS, "1")), None);
        let mut without_time = message(PAID, &order(), ACCEPTED_MS, "1");
        without_time.attributes.insert(CE_TIME.into(), "yesterday".into());
        assert_eq!(read(&without_time), None);
    }

    #[test]
    fn an_event_that_comes_twice_counts_once() {
        let (mut flow, mut memory) = (Flow::default(), Memory::default());
        for id in ["1", "1", "2"] {
            memory.count(&mut flow, &message(PLACED, &order(), ACCEPTED_MS, id));
        }
        assert_eq!(flow.orders(ACCEPTED_MS).accepted, 2);
    }

    #[test]
    fn only_so_many_events_are_remembered() {
        let mut memory = Memory::default();
        for id in 0..=REMEMBERED_MAX {
            assert!(memory.is_new(&id.to_string()));
        }
        assert_eq!((memory.known.len(), memory.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(memory.is_new("0"), "the oldest is forgotten");
        assert!(!memory.is_new(&REMEMBERED_MAX.to_string()));
    }
}
