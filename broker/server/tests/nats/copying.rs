//! `broker copy`: a journal moves into a cluster and back, whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;
use tonic::Code;

use crate::engine::NatsServer;
use crate::front::{Front, create};
use crate::harness::{Client, SUBSCRIPTION, TOPIC, ack_ids, keyed, message, text, texts};
use crate::started::{BrokerProcess, SERVES, broker};

const DEAD_TOPIC: &str = "projects/p/topics/dead";
const DEAD: &str = "projects/p/subscriptions/dead";
const SNAPSHOT: &str = "projects/p/snapshots/mark";
const KEYS: usize = 3;
const MESSAGES: usize = 24;
/// Small, so that the journal has many files.
const SMALL: [&str; 4] = ["--segment-bytes", "4096", "--checkpoint-bytes", "8192"];

/// A broker on a directory, without a cluster.
fn serve(dir: &Path) -> BrokerProcess {
    let data_dir = dir.to_str().unwrap();
    let mut command = broker(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir]);
    command.args(SMALL);
    BrokerProcess::spawn(command, SERVES)
}

fn copy(direction: &str, dir: &Path, url: &str) -> Output {
    broker(&["copy", direction, dir.to_str().unwrap(), "--engine", url]).output().unwrap()
}

/// A copy that must go well.
fn copied(direction: &str, dir: &Path, url: &str) {
    let output = copy(direction, dir, url);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A copy that must not; answers why.
fn refused(direction: &str, dir: &Path, url: &str) -> String {
    let output = copy(direction, dir, url);
    assert_eq!(output.status.code(), Some(1), "{direction}");
    String::from_utf8(output.stderr).unwrap()
}

/// A topic, a subscription with every promise, and what it is given up to.
async fn prepare(client: &Client) {
    client.create_topic(TOPIC).await;
    client.create_topic(DEAD_TOPIC).await;
    client.create_subscription(DEAD, DEAD_TOPIC).await;
    let dead_letter_topic = DEAD_TOPIC.to_owned();
    let subscription = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        ack_deadline_seconds: 600,
        enable_exactly_once_delivery: true,
        enable_message_ordering: true,
        dead_letter_policy: Some(pb::DeadLetterPolicy { dead_letter_topic, max_delivery_attempts: 5 }),
        ..Default::default()
    };
    client.create(subscription).await.unwrap();
}

/// Texts by key, in the order in which they came.
fn by_key(messages: &[pb::ReceivedMessage]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for received in messages {
        found.entry(received.message.as_ref().unwrap().ordering_key.clone()).or_default().push(text(received));
    }
    found
}

async fn snapshots(client: &Client) -> Vec<String> {
    let request = pb::ListSnapshotsRequest { project: "projects/p".to_owned(), ..Default::default() };
    let found = client.subscriber.clone().list_snapshots(request).await.unwrap().into_inner().snapshots;
    found.into_iter().map(|snapshot| snapshot.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_moves_into_a_cluster_and_back_keeps_every_message_ack_attempt_and_mark() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let source = serve(dir.path());
    let client = Client::connect(&source.url()).await;
    prepare(&client).await;
    // One is given up.
    client.publish_texts(&["poison"]).await;
    for _ in 0..5 {
        let poison = client.pull_all(1).await;
        client.modify(ack_ids(&poison), 0).await.unwrap();
    }
    client.until(DEAD, |stats| stats.backlog_messages == 1).await;
    let texts_of = |key: usize| (key..MESSAGES).step_by(KEYS).map(|number| format!("{number}-{}", "x".repeat(500)));
    for number in 0..MESSAGES {
        let text = format!("{number}-{}", "x".repeat(500));
        client.publish(vec![keyed(&format!("key-{}", number % KEYS), &text)]).await.unwrap();
    }
    // The first of each key: one is acked, one fails, one stays with its consumer.
    let mut first = client.pull_all(MESSAGES).await;
    first.sort_by_key(|received| received.message.as_ref().unwrap().ordering_key.clone());
    let of_key = |key: usize| {
        let key = format!("key-{key}");
        first.iter().filter(|received| received.message.as_ref().unwrap().ordering_key == key).collect::<Vec<_>>()
    };
    client.ack(vec![of_key(0)[0].ack_id.clone()]).await.unwrap();
    client.modify(vec![of_key(1)[0].ack_id.clone()], 0).await.unwrap();
    let leased = of_key(2)[0].ack_id.clone();
    let request = pb::CreateSnapshotRequest {
        name: SNAPSHOT.to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        ..Default::default()
    };
    client.subscriber.clone().create_snapshot(request).await.unwrap();
    let why = refused("--from", dir.path(), &nats.url);
    assert!(why.contains("in use by another broker"), "{why}");
    source.kill();

    copied("--from", dir.path(), &nats.url);
    let front = Front::join(&nats.url);
    let client = front.client().await;
    let received = client.pull_all(MESSAGES - 1).await;
    let mut expected: BTreeMap<String, Vec<String>> =
        (0..KEYS).map(|key| (format!("key-{key}"), texts_of(key).collect())).collect();
    expected.get_mut("key-0").unwrap().remove(0);
    assert_eq!(by_key(&received), expected);
    let attempt = |name: &str| {
        let of_key = received.iter().find(|received| received.message.as_ref().unwrap().ordering_key == name);
        of_key.unwrap().delivery_attempt
    };
    assert_eq!((attempt("key-1"), attempt("key-2")), (2, 1));
    let stale = client.ack(vec![leased]).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    assert_eq!(client.stats(DEAD).await.backlog_messages, 1);
    assert_eq!(snapshots(&client).await, [SNAPSHOT]);
    client.ack(ack_ids(&received[..10])).await.unwrap();
    let rest = by_key(&received[10..]);

    let back = dir.path().join("back");
    let why = refused("--to", &back, &nats.url);
    assert!(why.contains("owned by a broker at"), "{why}");
    assert_eq!(front.process.terminate(), Some(0));
    let why = refused("--from", dir.path(), &nats.url);
    assert!(why.contains("is not empty"), "{why}");
    let why = refused("--to", dir.path(), &nats.url);
    assert!(why.contains("is there and not empty"), "{why}");
    let part = dir.path().join("back.part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("notes"), "mine").unwrap();
    let why = refused("--to", &back, &nats.url);
    assert!(why.contains("back.part` is there and not empty"), "{why}");
    assert_eq!(fs::read_to_string(part.join("notes")).unwrap(), "mine");
    // What a copy before has left is in nobody's way.
    fs::rename(part.join("notes"), part.join("LOCK")).unwrap();
    fs::write(part.join("segment-00000000000000000001.log"), "cut").unwrap();
    copied("--to", &back, &nats.url);
    let last = serve(&back);
    let client = Client::connect(&last.url()).await;
    let received = client.pull_all(MESSAGES - 11).await;
    assert_eq!(by_key(&received), rest);
    assert_eq!(client.stats(DEAD).await.backlog_messages, 1);
    assert_eq!(snapshots(&client).await, [SNAPSHOT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_copy_left_is_not_served_and_is_made_whole_by_the_next_one() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let source = serve(dir.path());
    let client = Client::connect(&source.url()).await;
    create(&client).await;
    client.publish(vec![message("a"), message("b")]).await.unwrap();
    source.kill();
    copied("--from", dir.path(), &nats.url);
    // As if this one had been the first of what the next copy says, and had then died.
    let other = async_nats::connect(&nats.url).await.unwrap();
    other.request("orderflow.main.transfer", "begun".into()).await.unwrap();
    other.request("orderflow.main.file.segment-00000000000000000001.log", part().into()).await.unwrap();

    let data_dir = TempDir::new().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--engine", &nats.url, "--data-dir"];
    let served = broker(&arguments).arg(data_dir.path()).output().unwrap();
    assert_eq!(served.status.code(), Some(1));
    let why = String::from_utf8(served.stderr).unwrap();
    assert!(why.contains("`broker copy` into the journal `main` was interrupted"), "{why}");
    let back = data_dir.path().join("back");
    let why = refused("--to", &back, &nats.url);
    assert!(why.contains("was interrupted") && !back.exists(), "{why}");

    copied("--from", dir.path(), &nats.url);
    let front = Front::join(&nats.url);
    let client = front.client().await;
    assert_eq!(texts(&client.pull_all(2).await), ["a", "b"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 2);
}

/// The message that says that a file is there.
fn part() -> Vec<u8> {
    let mut message = vec![1, 1];
    message.extend(0_u64.to_le_bytes());
    message
}

#[tokio::test]
async fn what_is_no_journal_is_not_copied() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let why = refused("--from", &dir.path().join("none"), &nats.url);
    assert!(why.contains("none"), "{why}");
    let why = refused("--to", &dir.path().join("back"), &nats.url);
    assert!(why.contains("is empty, so there is nothing to copy"), "{why}");
    let usage = broker(&["copy", "--engine", &nats.url]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
