//! A broker on a directory of its own, and clients that speak of topics and messages.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use broker::{Broker, Config, Error};
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use orderflow_proto::orderflow::broker::v1::{GetStatsRequest, SubscriptionStats};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::engine;

/// Nothing that a test waits for takes longer, unless it does not happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const TOPIC: &str = "projects/p/topics/orders";
pub(crate) const SUBSCRIPTION: &str = "projects/p/subscriptions/payment";

/// A broker in this process.
pub(crate) struct TestBroker {
    dir: TempDir,
    pub(crate) url: String,
    pub(crate) metrics: Option<std::net::SocketAddr>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

/// Clients on one connection of their own.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) publisher: PublisherClient<Channel>,
    pub(crate) subscriber: SubscriberClient<Channel>,
    pub(crate) inspector: BrokerServiceClient<Channel>,
}

/// A StreamingPull as its client sees it.
pub(crate) struct Stream {
    pub(crate) requests: mpsc::Sender<pb::StreamingPullRequest>,
    pub(crate) responses: Streaming<pb::StreamingPullResponse>,
}

pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir.to_owned(), "127.0.0.1:0".parse().unwrap());
    engine::configure(&mut config);
    config
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::new().unwrap(), adjust).await
    }

    async fn start_in(dir: TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(dir.path());
        adjust(&mut config);
        engine::configure(&mut config);
        let broker = Broker::open(config).await.unwrap();
        let url = format!("http://{}", broker.address());
        let metrics = broker.metrics_address();
        let stop = CancellationToken::new();
        let running = tokio::spawn(broker.run(stop.clone()));
        let mut broker = Self { dir, url, metrics, stop, running };
        broker.until_it_serves().await;
        broker
    }

    /// A broker on a shared journal serves once it owns the journal.
    async fn until_it_serves(&mut self) {
        let begun = Instant::now();
        let mut inspector = self.client().await.inspector;
        while let Err(status) = inspector.get_stats(GetStatsRequest::default()).await {
            if self.running.is_finished() {
                panic!("it has ended: {:?}", (&mut self.running).await);
            }
            assert!(begun.elapsed() < PATIENCE, "it does not serve: {status}");
        }
    }

    /// A broker with [`TOPIC`] and a [`SUBSCRIPTION`] with every setting at its default, and a client of it.
    pub(crate) async fn with_subscription() -> (Self, Client) {
        let broker = Self::start().await;
        let client = broker.client().await;
        client.create_topic(TOPIC).await;
        client.create_subscription(SUBSCRIPTION, TOPIC).await;
        (broker, client)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url).await
    }

    /// Tells the broker to stop, without waiting for it.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end of a broker that was told to stop.
    pub(crate) async fn stopped(self) -> TempDir {
        self.running.await.unwrap().unwrap();
        self.dir
    }

    pub(crate) async fn restart(self) -> Self {
        self.stop();
        Self::start_in(self.stopped().await, |_| {}).await
    }
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Self {
            publisher: PublisherClient::new(channel.clone()),
            subscriber: SubscriberClient::new(channel.clone()),
            inspector: BrokerServiceClient::new(channel),
        }
    }

    pub(crate) async fn create_topic(&self, name: &str) -> pb::Topic {
        let topic = pb::Topic { name: name.to_owned(), ..Default::default() };
        self.publisher.clone().create_topic(topic).await.unwrap().into_inner()
    }

    pub(crate) async fn create_subscription(&self, name: &str, topic: &str) -> pb::Subscription {
        let subscription = pb::Subscription { name: name.to_owned(), topic: topic.to_owned(), ..Default::default() };
        self.create(subscription).await.unwrap()
    }

    pub(crate) async fn create(&self, subscription: pb::Subscription) -> Result<pb::Subscription, Status> {
        Ok(self.subscriber.clone().create_subscription(subscription).await?.into_inner())
    }

    pub(crate) async fn publish(&self, messages: Vec<pb::PubsubMessage>) -> Result<Vec<String>, Status> {
        let request = pb::PublishRequest { topic: TOPIC.to_owned(), messages };
        Ok(self.publisher.clone().publish(request).await?.into_inner().message_ids)
    }

    pub(crate) async fn publish_texts(&self, texts: &[&str]) -> Vec<String> {
        self.publish(texts.iter().map(|text| message(text)).collect()).await.unwrap()
    }

    pub(crate) async fn pull(&self, max_messages: i32) -> Vec<pb::ReceivedMessage> {
        let request = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages, ..Default::default() };
        self.subscriber.clone().pull(request).await.unwrap().into_inner().received_messages
    }

    /// What there is now; a pull that does not wait.
    #[expect(deprecated, reason = "clients still set it")]
    pub(crate) async fn pull_now(&self, max_messages: i32) -> Vec<pb::ReceivedMessage> {
        let subscription = SUBSCRIPTION.to_owned();
        let request = pb::PullRequest { subscription, max_messages, return_immediately: true };
        self.subscriber.clone().pull(request).await.unwrap().into_inner().received_messages
    }

    /// Pulls until so many messages have come.
    pub(crate) async fn pull_all(&self, count: usize) -> Vec<pb::ReceivedMessage> {
        let begun = Instant::now();
        let mut all = Vec::new();
        while all.len() < count {
            assert!(begun.elapsed() < PATIENCE, "only {} of {count} messages came", all.len());
            all.extend(self.pull(1_000).await);
        }
        all
    }

    pub(crate) async fn ack(&self, ack_ids: Vec<String>) -> Result<(), Status> {
        let request = pb::AcknowledgeRequest { subscription: SUBSCRIPTION.to_owned(), ack_ids };
        self.subscriber.clone().acknowledge(request).await.map(drop)
    }

    pub(crate) async fn modify(&self, ack_ids: Vec<String>, ack_deadline_seconds: i32) -> Result<(), Status> {
        let subscription = SUBSCRIPTION.to_owned();
        let request = pb::ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds };
        self.subscriber.clone().modify_ack_deadline(request).await.map(drop)
    }

    pub(crate) async fn stats(&self, subscription: &str) -> SubscriptionStats {
        let stats = self.inspector.clone().get_stats(GetStatsRequest::default()).await.unwrap().into_inner();
        let found = stats.subscriptions.into_iter().find(|stats| stats.subscription == subscription);
        found.unwrap()
    }

    /// Waits until the figures of a subscription are as they should be.
    pub(crate) async fn until(&self, subscription: &str, holds: impl Fn(&SubscriptionStats) -> bool) {
        let begun = Instant::now();
        loop {
            let stats = self.stats(subscription).await;
            if holds(&stats) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it stays at {stats:?}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn open(&self, first: pb::StreamingPullRequest) -> Stream {
        let (requests, stream) = mpsc::channel(16);
        let responses = self.subscriber.clone().streaming_pull(ReceiverStream::new(stream)).await.unwrap().into_inner();
        requests.send(first).await.unwrap();
        Stream { requests, responses }
    }

    /// A stream with every setting at its default.
    pub(crate) async fn stream(&self) -> Stream {
        self.open(first_request()).await
    }
}

impl Stream {
    pub(crate) async fn send(&self, request: pb::StreamingPullRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn ack(&self, messages: &[pb::ReceivedMessage]) {
        self.send(pb::StreamingPullRequest { ack_ids: ack_ids(messages), ..Default::default() }).await;
    }

    /// The next messages, however many come together.
    pub(crate) async fn next(&mut self) -> Vec<pb::ReceivedMessage> {
        loop {
            let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
            let response = response.expect("a response comes").unwrap().expect("the stream goes on");
            if !response.received_messages.is_empty() {
                return response.received_messages;
            }
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<pb::ReceivedMessage> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.next().await);
        }
        assert_eq!(all.len(), count, "{:?}", texts(&all));
        all
    }

    /// Reads to the end of the stream.
    pub(crate) async fn end(mut self) -> Result<(), Status> {
        loop {
            match tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("the stream ends") {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

pub(crate) fn first_request() -> pb::StreamingPullRequest {
    pb::StreamingPullRequest {
        subscription: SUBSCRIPTION.to_owned(),
        stream_ack_deadline_seconds: 10,
        ..Default::default()
    }
}

pub(crate) fn message(text: &str) -> pb::PubsubMessage {
    pb::PubsubMessage { data: text.to_owned().into(), ..Default::default() }
}

pub(crate) fn keyed(key: &str, text: &str) -> pb::PubsubMessage {
    pb::PubsubMessage { ordering_key: key.to_owned(), ..message(text) }
}

pub(crate) fn with_attributes(attributes: &[(&str, &str)]) -> pb::PubsubMessage {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pb::PubsubMessage { attributes: attributes.iter().map(owned).collect::<HashMap<_, _>>(), ..Default::default() }
}

pub(crate) fn texts(messages: &[pb::ReceivedMessage]) -> Vec<String> {
    messages.iter().map(text).collect()
}

pub(crate) fn text(received: &pb::ReceivedMessage) -> String {
    String::from_utf8(received.message.as_ref().unwrap().data.to_vec()).unwrap()
}

pub(crate) fn ack_ids(messages: &[pb::ReceivedMessage]) -> Vec<String> {
    messages.iter().map(|message| message.ack_id.clone()).collect()
}
