//! Clients that never give up: each works with whatever run of the broker there is, and notes what it saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::ledger::{Delivered, Event, Id, Ledger, Parcel, Run};
use super::{FILTERED, PLAIN, SHARED, STRICT, TOPIC};

/// How long a client waits for another run of the broker before it tries again with the one it knows.
const BACKOFF: Duration = Duration::from_millis(20);
const BATCH_MESSAGES_MAX: u64 = 12;
/// How many messages publishers may be ahead of the strict consumers, so that there is an end to what is left at last.
const BEHIND_MAX: usize = 2_000;
/// One message in so many is nacked, where messages are.
const NACK_ONE_IN: u32 = 15;

/// Where the broker is, and what the clients share.
#[derive(Clone)]
pub(super) struct World {
    pub(super) ledger: Arc<Ledger>,
    pub(super) broker: watch::Receiver<(Run, String)>,
    pub(super) publishing: CancellationToken,
    pub(super) streams: Arc<AtomicUsize>,
}

impl World {
    /// A connection to the run that there is, once there is one.
    pub(super) async fn connect(&mut self) -> (Run, Channel) {
        loop {
            let (run, url) = self.broker.borrow_and_update().clone();
            if let Ok(channel) = Endpoint::from_shared(url).unwrap().connect().await {
                return (run, channel);
            }
            tokio::time::timeout(BACKOFF, self.broker.changed()).await.ok();
        }
    }

    async fn back_off(&mut self) {
        tokio::time::timeout(BACKOFF, self.broker.changed()).await.ok();
    }
}

/// Publishes 1, 2, 3 … under one key, some together, and the same ones again until they are confirmed.
pub(super) async fn publish(mut world: World, key: String, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut next = 1;
    while !world.publishing.is_cancelled() {
        while !world.ledger.is_kept_up_with(BEHIND_MAX) && !world.publishing.is_cancelled() {
            world.back_off().await;
        }
        let numbers = next..next + rng.u64(1..=BATCH_MESSAGES_MAX);
        let messages: Vec<pb::PubsubMessage> = numbers.clone().map(|number| message(&key, number)).collect();
        loop {
            let (_, channel) = world.connect().await;
            let request = pb::PublishRequest { topic: TOPIC.to_owned(), messages: messages.clone() };
            match PublisherClient::new(channel).publish(request).await {
                Ok(response) => {
                    let ids = response.into_inner().message_ids;
                    assert_eq!(ids.len(), messages.len());
                    let parcel =
                        |(id, number): (String, u64)| Parcel { id: id.parse().unwrap(), key: key.clone(), number };
                    world.ledger.published(ids.into_iter().zip(numbers.clone()).map(parcel));
                    break;
                }
                Err(status) => expect_loss_of_connection(&status),
            }
            world.back_off().await;
        }
        next = numbers.end;
    }
}

/// Consumes a strict subscription by streams, and nacks now and then if nobody shares it: what waits in the streams of
/// others would be told from what comes again by nothing but its lease.
pub(super) async fn consume(mut world: World, subscription: &'static str, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    loop {
        let (run, channel) = world.connect().await;
        let stream = world.streams.fetch_add(1, Ordering::Relaxed);
        let consumer =
            Consumer { world: &world, subscription, run, stream, nacked: HashMap::new(), acks: HashMap::new() };
        if let Err(status) = consumer.run(channel, &mut rng).await {
            expect_loss_of_connection(&status);
        }
        world.back_off().await;
    }
}

struct Consumer<'a> {
    world: &'a World,
    subscription: &'static str,
    run: Run,
    stream: usize,
    /// The message that each of these keys starts again with. What comes of the key before that is on leases that the
    /// nack has ended.
    nacked: HashMap<String, Id>,
    /// What the ack ids stand for that are to be confirmed.
    acks: HashMap<String, Id>,
}

impl Consumer<'_> {
    async fn run(mut self, channel: Channel, rng: &mut Rng) -> Result<(), Status> {
        let (requests, stream) = mpsc::channel(16);
        let first = pb::StreamingPullRequest {
            subscription: self.subscription.to_owned(),
            // No lease ends by time, so that each delivery has one cause.
            stream_ack_deadline_seconds: 600,
            max_outstanding_messages: 40,
            ..Default::default()
        };
        requests.send(first).await.unwrap();
        let responses = SubscriberClient::new(channel).streaming_pull(ReceiverStream::new(stream)).await?;
        let mut responses = responses.into_inner();
        while let Some(response) = responses.message().await? {
            self.hear(&response);
            let mut answer = pb::StreamingPullRequest::default();
            for received in response.received_messages {
                self.decide(received, &mut answer, rng);
            }
            if answer != pb::StreamingPullRequest::default() && requests.send(answer).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn decide(&mut self, received: pb::ReceivedMessage, answer: &mut pb::StreamingPullRequest, rng: &mut Rng) {
        let parcel = parcel(&received);
        let attempt = u32::try_from(received.delivery_attempt).unwrap();
        let (run, stream) = (self.run, self.stream);
        self.note(Event::Delivered(Delivered { run, stream, parcel: parcel.clone(), attempt }));
        match self.nacked.get(&parcel.key) {
            Some(id) if *id != parcel.id => return,
            _ => self.nacked.remove(&parcel.key),
        };
        self.acks.insert(received.ack_id.clone(), parcel.id);
        if self.subscription == STRICT && rng.u32(0..NACK_ONE_IN) == 0 {
            self.note(Event::NackSent(run, parcel.id));
            self.nacked.insert(parcel.key, parcel.id);
            answer.modify_deadline_ack_ids.push(received.ack_id);
            answer.modify_deadline_seconds.push(0);
        } else {
            self.note(Event::AckSent(parcel.id));
            answer.ack_ids.push(received.ack_id);
        }
    }

    fn note(&self, event: Event) {
        self.world.ledger.strict(self.subscription, event);
    }

    fn hear(&self, response: &pb::StreamingPullResponse) {
        let (acked, changed) = (&response.acknowledge_confirmation, &response.modify_ack_deadline_confirmation);
        for id in acked.iter().flat_map(|confirmation| &confirmation.ack_ids) {
            self.note(Event::AckConfirmed(self.run, self.acks[id]));
        }
        for id in changed.iter().flat_map(|confirmation| &confirmation.ack_ids) {
            self.note(Event::NackConfirmed(self.run, self.acks[id]));
        }
        let refused = acked.iter().flat_map(|confirmation| &confirmation.invalid_ack_ids);
        let refused = refused.chain(changed.iter().flat_map(|confirmation| &confirmation.invalid_ack_ids));
        assert_eq!(refused.count(), 0, "leases ended under their consumer: {response:?}");
    }
}

/// Consumes a subscription by pulls, and acks what came.
pub(super) async fn pull(mut world: World, subscription: &'static str) {
    loop {
        let (_, channel) = world.connect().await;
        if let Err(status) = pull_on(&world, subscription, SubscriberClient::new(channel)).await {
            expect_loss_of_connection(&status);
        }
        world.back_off().await;
    }
}

async fn pull_on(world: &World, name: &'static str, mut client: SubscriberClient<Channel>) -> Result<(), Status> {
    let subscription = name.to_owned();
    loop {
        let pull = pb::PullRequest { subscription: subscription.clone(), max_messages: 100, ..Default::default() };
        let received = client.pull(pull).await?.into_inner().received_messages;
        if received.is_empty() {
            continue;
        }
        received.iter().for_each(|received| world.ledger.received(name, parcel(received)));
        let ack_ids = received.into_iter().map(|received| received.ack_id).collect();
        client.acknowledge(pb::AcknowledgeRequest { subscription: subscription.clone(), ack_ids }).await?;
    }
}

/// Publishers, each with a key of its own, and consumers.
pub(super) fn start(world: &World, publishers: u64, seed: u64) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) {
    let publish = |index| tokio::spawn(publish(world.clone(), format!("key-{index}"), seed ^ index));
    let consumers = (1..).zip([STRICT, SHARED, SHARED]);
    let consume =
        |(index, subscription): (u64, _)| tokio::spawn(consume(world.clone(), subscription, seed ^ index << 32));
    let pull = |subscription| tokio::spawn(pull(world.clone(), subscription));
    ((0..publishers).map(publish).collect(), consumers.map(consume).chain([PLAIN, FILTERED].map(pull)).collect())
}

/// What a client hears while its broker dies, and nothing else.
pub(super) fn expect_loss_of_connection(status: &Status) {
    let lost = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
    assert!(lost.contains(&status.code()), "{status:?}");
}

fn message(key: &str, number: u64) -> pb::PubsubMessage {
    let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
    pb::PubsubMessage {
        // Of all sizes, so that entries lie across the borders of pages and segments.
        data: format!("{number} {}", "x".repeat(usize::try_from(number * 37 % 900).unwrap())).into(),
        attributes: [("parity".to_owned(), parity.to_owned())].into(),
        ordering_key: key.to_owned(),
        ..Default::default()
    }
}

fn parcel(received: &pb::ReceivedMessage) -> Parcel {
    let found = received.message.as_ref().unwrap();
    let text = str::from_utf8(&found.data).unwrap();
    let number = text.split(' ').next().unwrap().parse().unwrap();
    let expected = message(&found.ordering_key, number);
    assert_eq!((&found.data, &found.attributes), (&expected.data, &expected.attributes));
    Parcel { id: found.message_id.parse().unwrap(), key: found.ordering_key.clone(), number }
}
