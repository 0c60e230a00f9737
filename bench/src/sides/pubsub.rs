//! The client of the Pub/Sub protocol: for our broker, and for the server that does nothing.
//!
//! It is the generated tonic client without anything around it. The official client library adds batching, threads and
//! lease keeping of its own, which would be measured instead of the server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{Answer, Batch, Client};
use crate::error::{Error, Outcome};
use crate::process::Server;

/// Connections that publishes take turns on.
const CONNECTIONS: usize = 2;
/// Requests of a stream that wait to be sent.
const REQUESTS_MAX: usize = 16;
/// Messages that a stream may have out.
const OUTSTANDING_MAX: i64 = 10_000;
/// The longest deadline that there is, so that none passes while it is measured.
const ACK_DEADLINE_SECONDS: i32 = 600;

/// Starts our broker on a journal of its own.
pub(super) async fn start_broker() -> Outcome<Server> {
    Server::start(broker).await
}

/// The call that runs our broker: the one in `BENCH_BROKER`, or the one that is built into this program.
pub(super) fn broker(dir: &Path, address: SocketAddr) -> Outcome<Command> {
    let mut command = match std::env::var_os("BENCH_BROKER") {
        Some(program) => Command::new(program),
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("broker");
            command
        }
    };
    command.args(["serve", "--listen", &address.to_string(), "--data-dir"]).arg(dir.join("data"));
    Ok(command)
}

/// Starts the server that does nothing.
pub(super) async fn start_noop(answer: Answer) -> Outcome<Server> {
    Server::start(|_, address| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["noop", "--listen", &address.to_string(), "--answer", answer.name()]);
        Ok(command)
    })
    .await
}

/// Connects to servers that have the same topics; with several, the connections are spread over them.
pub(super) async fn connect(addresses: &[SocketAddr], answer: Answer) -> Outcome<Arc<dyn Client>> {
    let mut channels = Vec::with_capacity(CONNECTIONS);
    for address in addresses.iter().cycle().take(CONNECTIONS) {
        channels.push(channel(*address).await?);
    }
    Ok(Arc::new(Pubsub { channels, next: AtomicUsize::new(0), answer }))
}

pub(super) async fn channel(address: SocketAddr) -> Outcome<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect().await?)
}

struct Pubsub {
    channels: Vec<Channel>,
    next: AtomicUsize,
    answer: Answer,
}

impl Pubsub {
    fn channel(&self) -> Channel {
        self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone()
    }
}

#[tonic::async_trait]
impl Client for Pubsub {
    async fn prepare(&self, topics: usize, subscriptions: usize) -> Outcome {
        let mut publisher = PublisherClient::new(self.channel());
        let mut subscriber = SubscriberClient::new(self.channel());
        for at in 0..topics {
            publisher.create_topic(pb::Topic { name: topic(at), ..Default::default() }).await?;
            for number in 0..subscriptions {
                let name = if at == 0 { subscription(number) } else { format!("{}-{at}", subscription(number)) };
                let subscription = pb::Subscription {
                    name,
                    topic: topic(at),
                    ack_deadline_seconds: ACK_DEADLINE_SECONDS,
                    ..Default::default()
                };
                subscriber.create_subscription(subscription).await?;
            }
        }
        Ok(())
    }

    async fn publish(&self, at: usize, batch: &Batch) -> Outcome {
        let message = pb::PubsubMessage { data: batch.body.clone(), ..Default::default() };
        let request = pb::PublishRequest { topic: topic(at), messages: vec![message; batch.messages] };
        let answer = PublisherClient::new(self.channel()).publish(request).await?.into_inner();
        let expected = if self.answer == Answer::Ids { batch.messages } else { 0 };
        if answer.message_ids.len() != expected {
            return Err(Error::Server(format!("{} ids for {expected} messages", answer.message_ids.len())));
        }
        Ok(())
    }

    async fn consume(&self, number: usize, received: &AtomicU64, stop: CancellationToken) -> Outcome {
        let (requests, stream) = mpsc::channel(REQUESTS_MAX);
        let opening = pb::StreamingPullRequest {
            subscription: subscription(number),
            stream_ack_deadline_seconds: ACK_DEADLINE_SECONDS,
            max_outstanding_messages: OUTSTANDING_MAX,
            ..Default::default()
        };
        requests.send(opening).await.map_err(Error::server)?;
        let mut subscriber = SubscriberClient::new(self.channel());
        let mut responses = subscriber.streaming_pull(ReceiverStream::new(stream)).await?.into_inner();
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                () = stop.cancelled() => return Ok(()),
            };
            let response = response.ok_or_else(|| Error::Server("the stream ended".to_owned()))?;
            let ack_ids: Vec<String> = response.received_messages.into_iter().map(|message| message.ack_id).collect();
            if ack_ids.is_empty() {
                continue;
            }
            let count = ack_ids.len() as u64;
            let acks = pb::StreamingPullRequest { ack_ids, ..Default::default() };
            tokio::select! {
                sent = requests.send(acks) => sent.map_err(Error::server)?,
                () = stop.cancelled() => return Ok(()),
            }
            received.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn topic(at: usize) -> String {
    format!("projects/bench/topics/topic-{at}")
}

fn subscription(number: usize) -> String {
    format!("projects/bench/subscriptions/subscription-{number}")
}
