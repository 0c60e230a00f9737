//! Fills a broker with a backlog, restarts it, drains it, and prints what that took: memory, disk, time.
//!
//! It drives the `broker` binary that stands beside it in the target folder, as a process of its own:
//!
//! ```text
//! cargo build --release -p broker --bins --example backlog
//! target/release/examples/backlog --messages 10000000 --subscriptions 1 --keys 0
//! ```
//!
//! `streams` in place of the options opens as many streams as asked for and measures those. Memory is read from
//! `/proc`, so it needs Linux.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::orderflow::broker::v1::GetStatsRequest;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const TOPIC: &str = "projects/p/topics/backlog";
/// Publish requests that are under way at a time.
const PUBLISHERS: u64 = 8;
/// Acks of one request.
const ACKS_MAX: usize = 1_000;
/// How many of its last messages a consumer holds back, to ack one of them at random. What is stuck comes on top; together
/// they must stay below the 10,000 that a stream may have out.
const SHUFFLED_MESSAGES: usize = 5_000;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Fills a broker with a backlog, restarts it, drains it, and prints what that took.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Where the journal goes; it is kept. Without it, a folder that is removed at the end.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How many messages are published.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// How many of them go into one request.
    #[arg(long, default_value_t = 1_000)]
    batch: u64,
    /// The size of each one's data.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// How many subscriptions the topic has.
    #[arg(long, default_value_t = 1)]
    subscriptions: u64,
    /// How many ordering keys there are; 0 publishes without.
    #[arg(long, default_value_t = 0)]
    keys: u64,
    /// How many messages the first subscription consumes at the end, acked in random order.
    #[arg(long, default_value_t = 0)]
    drain: u64,
    /// Of the messages that are drained, one in so many is never acked; 0 acks all.
    #[arg(long, default_value_t = 0)]
    stuck: u64,
    /// How many streams are opened at the end, spread over the subscriptions.
    #[arg(long, default_value_t = 0)]
    streams: u64,
    /// How many connections carry them.
    #[arg(long, default_value_t = 4)]
    connections: u64,
}

#[tokio::main]
async fn main() -> Outcome {
    let options = Options::parse();
    let dir = match &options.data_dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("broker-backlog-{}", std::process::id())),
    };
    let mut broker = Broker::start(&dir)?;
    broker.report("empty");
    let clients = broker.clients().await?;
    clients.create(&options).await?;

    let begun = Instant::now();
    publish(&broker, &options).await?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("published {} in {seconds:.1} s", options.messages);
    println!("journal {} MB", clients.journal_bytes().await? / 1_000_000);
    broker.report("with the backlog");

    for ending in ["KILL", "TERM"] {
        broker = broker.restart(&dir, ending).await?;
        broker.report("after the restart");
    }
    if options.drain > 0 {
        drain(&broker, &options).await?;
    }
    if options.streams > 0 {
        stream(&broker, &options).await?;
    }
    broker.end("TERM")?;
    if options.data_dir.is_none() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A broker in a process of its own, which ends with this value.
struct Broker {
    child: Child,
    url: String,
}

#[derive(Clone)]
struct Clients {
    publisher: PublisherClient<Channel>,
    subscriber: SubscriberClient<Channel>,
    inspector: BrokerServiceClient<Channel>,
}

impl Broker {
    fn start(dir: &std::path::Path) -> Outcome<Self> {
        let binary = std::env::current_exe()?
            .parent()
            .and_then(|examples| examples.parent())
            .ok_or("no target folder")?
            .join("broker");
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
        let address = loop {
            let line = lines.next().ok_or("the broker ended")??;
            println!("  {line}");
            if let Some((_, address)) = line.split_once("The broker serves. address=") {
                break address.trim().to_owned();
            }
        };
        // Somebody has to read the rest.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("  {line}")));
        Ok(Self { child, url: format!("http://{address}") })
    }

    fn end(&mut self, signal: &str) -> Outcome {
        let id = self.child.id().to_string();
        Command::new("kill").args([&format!("-{signal}"), &id]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the process, and measures how long a new one takes until it has answered.
    async fn restart(mut self, dir: &std::path::Path, signal: &str) -> Outcome<Self> {
        let begun = Instant::now();
        self.end(signal)?;
        println!("SIG{signal}: ended within {} ms", begun.elapsed().as_millis());
        let begun = Instant::now();
        let broker = Self::start(dir)?;
        broker.clients().await?.journal_bytes().await?;
        println!("ready again after {} ms", begun.elapsed().as_millis());
        Ok(broker)
    }

    async fn clients(&self) -> Outcome<Clients> {
        let channel = Endpoint::from_shared(self.url.clone())?.connect().await?;
        Ok(Clients {
            publisher: PublisherClient::new(channel.clone()),
            subscriber: SubscriberClient::new(channel.clone()),
            inspector: BrokerServiceClient::new(channel),
        })
    }

    /// What the process has in memory now, and at most, in KiB.
    fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()
        };
        (field("VmRSS").unwrap_or(0), field("VmHWM").unwrap_or(0))
    }

    fn report(&self, when: &str) {
        let (now, most) = self.memory_kib();
        println!("memory {when}: {:.1} MiB, at most {:.1} MiB", now as f64 / 1024.0, most as f64 / 1024.0);
    }
}

impl Clients {
    async fn create(&self, options: &Options) -> Outcome {
        let topic = pb::Topic { name: TOPIC.to_owned(), ..Default::default() };
        match self.publisher.clone().create_topic(topic).await {
            Err(status) if status.code() != tonic::Code::AlreadyExists => return Err(status.into()),
            _ => {}
        }
        for number in 0..options.subscriptions {
            let subscription = pb::Subscription {
                name: subscription(number),
                topic: TOPIC.to_owned(),
                ack_deadline_seconds: 600,
                enable_message_ordering: options.keys > 0,
                ..Default::default()
            };
            match self.subscriber.clone().create_subscription(subscription).await {
                Err(status) if status.code() != tonic::Code::AlreadyExists => return Err(status.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn journal_bytes(&self) -> Outcome<u64> {
        Ok(self.inspector.clone().get_stats(GetStatsRequest::default()).await?.into_inner().journal_bytes)
    }
}

fn subscription(number: u64) -> String {
    format!("projects/p/subscriptions/backlog-{number}")
}

async fn publish(broker: &Broker, options: &Options) -> Outcome {
    let next = Arc::new(AtomicU64::new(0));
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (mut publisher, next, options) = (broker.clients().await?.publisher, next.clone(), options.clone());
        publishers.spawn(async move {
            loop {
                let first = next.fetch_add(options.batch, Ordering::Relaxed);
                let last = options.messages.min(first + options.batch);
                if first >= last {
                    return Outcome::Ok(());
                }
                let messages = (first..last).map(|number| message(number, &options)).collect();
                publisher.publish(pb::PublishRequest { topic: TOPIC.to_owned(), messages }).await?;
            }
        });
    }
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    Ok(())
}

fn message(number: u64, options: &Options) -> pb::PubsubMessage {
    let ordering_key = if options.keys > 0 { format!("key-{}", number % options.keys) } else { String::new() };
    pb::PubsubMessage { data: vec![b'x'; options.bytes].into(), ordering_key, ..Default::default() }
}

/// Consumes from the first subscription, and acks in random order.
async fn drain(broker: &Broker, options: &Options) -> Outcome {
    let clients = broker.clients().await?;
    let (requests, stream) = tokio::sync::mpsc::channel(16);
    let first = pb::StreamingPullRequest {
        subscription: subscription(0),
        stream_ack_deadline_seconds: 600,
        ..Default::default()
    };
    requests.send(first).await?;
    let mut responses = clients.subscriber.clone().streaming_pull(ReceiverStream::new(stream)).await?.into_inner();
    let begun = Instant::now();
    let (mut received, mut acked) = (0, 0);
    let mut held: Vec<String> = Vec::new();
    while acked < options.drain {
        if let Some(response) = responses.message().await? {
            for message in response.received_messages {
                received += 1;
                if options.stuck == 0 || received % options.stuck != 0 {
                    held.push(message.ack_id);
                }
            }
        }
        fastrand::shuffle(&mut held);
        while held.len() > SHUFFLED_MESSAGES - ACKS_MAX || (received >= options.messages && !held.is_empty()) {
            let ack_ids = held.split_off(held.len().saturating_sub(ACKS_MAX));
            acked += ack_ids.len() as u64;
            requests.send(pb::StreamingPullRequest { ack_ids, ..Default::default() }).await?;
        }
        if received >= options.messages {
            break;
        }
    }
    println!("consumed {received} in {:.1} s", begun.elapsed().as_secs_f64());
    // Space comes back with a checkpoint or two, and those come with traffic.
    publish(broker, &Options { messages: 1_500, batch: 10, bytes: 100_000, ..options.clone() }).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("journal {} MB", clients.journal_bytes().await? / 1_000_000);
    broker.report("after the drain");
    Ok(())
}

/// Opens streams, publishes to them, and measures what each costs.
async fn stream(broker: &Broker, options: &Options) -> Outcome {
    let (before, _) = broker.memory_kib();
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(broker.clients().await?);
    }
    let mut open = Vec::new();
    let begun = Instant::now();
    for number in 0..options.streams {
        let clients = &connections[usize::try_from(number % options.connections)?];
        let (requests, stream) = tokio::sync::mpsc::channel(16);
        let first = pb::StreamingPullRequest {
            subscription: subscription(number % options.subscriptions),
            stream_ack_deadline_seconds: 600,
            max_outstanding_messages: 1_000,
            ..Default::default()
        };
        requests.send(first).await?;
        let responses = clients.subscriber.clone().streaming_pull(ReceiverStream::new(stream)).await?.into_inner();
        open.push((requests, responses));
    }
    println!("opened {} streams in {} ms", options.streams, begun.elapsed().as_millis());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (after, _) = broker.memory_kib();
    println!("{:.1} KiB for each stream", after.saturating_sub(before) as f64 / options.streams as f64);
    let begun = Instant::now();
    let mut readers = JoinSet::new();
    let expected = Arc::new(AtomicU64::new(0));
    for (requests, mut responses) in open {
        let expected = expected.clone();
        readers.spawn(async move {
            while let Ok(Some(response)) = responses.message().await {
                let ack_ids: Vec<String> = response.received_messages.into_iter().map(|one| one.ack_id).collect();
                expected.fetch_add(ack_ids.len() as u64, Ordering::Relaxed);
                requests.send(pb::StreamingPullRequest { ack_ids, ..Default::default() }).await.ok();
            }
        });
    }
    publish(broker, &Options { messages: 1_000, batch: 10, ..options.clone() }).await?;
    println!("published 1000 to {} subscriptions in {} ms", options.subscriptions, begun.elapsed().as_millis());
    let wanted = 1_000 * options.subscriptions.min(options.streams);
    while expected.load(Ordering::Relaxed) < wanted && begun.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{} deliveries in {} ms", expected.load(Ordering::Relaxed), begun.elapsed().as_millis());
    broker.report("with the streams");
    Ok(())
}
