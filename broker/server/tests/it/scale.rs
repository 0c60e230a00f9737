//! Many subscriptions, many streams, a deep backlog: what is held stays small, and nothing waits for anything else.

use std::collections::BTreeSet;
use std::time::Instant;

use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::harness::{Client, PATIENCE, SUBSCRIPTION, Stream, TOPIC, TestBroker, first_request, message, text, texts};
use crate::started::BrokerProcess;

/// Subscriptions and streams at once, as many as a large installation has.
const STREAMS: usize = 1_000;

fn subscription(number: usize) -> String {
    format!("projects/p/subscriptions/many-{number}")
}

/// Opens a stream on each of these subscriptions, over a few connections.
async fn open_all(broker: &TestBroker, subscriptions: impl IntoIterator<Item = String>) -> Vec<Stream> {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(broker.client().await);
    }
    let mut streams = Vec::new();
    for (subscription, client) in subscriptions.into_iter().zip(clients.iter().cycle()) {
        streams.push(client.open(pb::StreamingPullRequest { subscription, ..first_request() }).await);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscriptions_of_one_topic_get_every_message_on_a_thousand_streams() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    for number in 0..STREAMS {
        client.create_subscription(&subscription(number), TOPIC).await;
    }
    let mut streams = open_all(&broker, (0..STREAMS).map(subscription)).await;
    let sent: Vec<String> = (0..3).map(|number| number.to_string()).collect();
    for text in &sent {
        client.publish_texts(&[text]).await;
    }
    for stream in &mut streams {
        let received = stream.take(sent.len()).await;
        assert_eq!(texts(&received), sent);
        stream.ack(&received).await;
    }
    for number in [0, STREAMS / 2, STREAMS - 1] {
        client.until(&subscription(number), |stats| stats.backlog_messages == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_of_one_subscription_share_it_and_a_new_one_gets_its_share_at_once() {
    let (broker, client) = TestBroker::with_subscription().await;
    let streams = open_all(&broker, std::iter::repeat_n(SUBSCRIPTION.to_owned(), STREAMS)).await;
    client.until(SUBSCRIPTION, |stats| stats.consumers as usize == STREAMS).await;
    client.publish(vec![message("x"); STREAMS]).await.unwrap();
    // Each has got exactly one: nobody waits while another one has two.
    let mut readers = JoinSet::new();
    for mut stream in streams {
        readers.spawn(async move {
            let received = stream.take(1).await;
            (received, stream)
        });
    }
    let mut open = Vec::new();
    while let Some(read) = readers.join_next().await {
        let (received, stream) = read.unwrap();
        stream.ack(&received).await;
        open.push(stream);
    }
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;

    let mut late = client.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers as usize == STREAMS + 1).await;
    for _ in 0..2 {
        client.publish(vec![message("y"); STREAMS]).await.unwrap();
    }
    assert_eq!(text(&late.next().await[0]), "y");
}

/// What a process has in memory, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(broker: &BrokerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_backlog_and_a_restart_has_all_of_it() {
    const BATCHES: usize = 200;
    let dir = TempDir::new().unwrap();
    let small = ["--segment-bytes", "4194304", "--checkpoint-bytes", "4194304"];
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    let batch = vec![message(&"x".repeat(400)); 1_000];
    for _ in 0..BATCHES / 10 {
        client.publish(batch.clone()).await.unwrap();
    }
    let before_kib = memory_kib(&broker);
    for _ in 0..BATCHES - BATCHES / 10 {
        client.publish(batch.clone()).await.unwrap();
    }
    // 72 MB of messages came; half of that would already be a copy of them.
    let grown_kib = memory_kib(&broker).saturating_sub(before_kib);
    assert!(grown_kib < 36_000, "memory has grown by {grown_kib} KiB");
    broker.kill();
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, BATCHES as u64 * 1_000);
    assert!(memory_kib(&broker) < before_kib + 36_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn space_comes_back_though_many_messages_all_over_the_journal_are_stuck() {
    const BATCHES: usize = 60;
    let dir = TempDir::new().unwrap();
    let small = ["--segment-bytes", "262144", "--checkpoint-bytes", "262144"];
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    let filler = "x".repeat(1_000);
    let mut stuck = BTreeSet::new();
    // One of a hundred messages is never acked.
    let round = async |number: usize| {
        let name = format!("stuck-{number}");
        let mut batch = vec![message(&filler); 99];
        batch.push(message(&name));
        client.publish(batch).await.unwrap();
        let received = client.pull_all(100).await;
        let (kept, acked): (Vec<_>, Vec<_>) = received.into_iter().partition(|one| text(one).starts_with("stuck"));
        client.modify(kept.iter().map(|one| one.ack_id.clone()).collect(), 600).await.unwrap();
        client.ack(acked.iter().map(|one| one.ack_id.clone()).collect()).await.unwrap();
        name
    };
    for number in 0..BATCHES {
        stuck.insert(round(number).await);
    }
    // 6 MB went through, and what stays is worth a few segments.
    let begun = Instant::now();
    loop {
        let request = orderflow_proto::orderflow::broker::v1::GetStatsRequest::default();
        let bytes = client.inspector.clone().get_stats(request).await.unwrap().into_inner().journal_bytes;
        if bytes < 1_500_000 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{bytes} bytes stay");
        // Checkpoints come with traffic.
        stuck.insert(round(stuck.len()).await);
    }
    broker.kill();
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    let found: BTreeSet<String> = client.pull_all(stuck.len()).await.iter().map(text).collect();
    assert_eq!(found, stuck);
}
