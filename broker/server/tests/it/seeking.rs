use std::time::SystemTime;

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::seek_request::Target;
use prost_types::{FieldMask, Timestamp};

use crate::bad_input::seconds;
use crate::harness::{Client, SUBSCRIPTION, TOPIC, TestBroker, ack_ids, texts};

const SNAPSHOT: &str = "projects/p/snapshots/before";
const HOUR: i64 = 60 * 60;
const WEEK: i64 = 7 * 24 * HOUR;

async fn seek(client: &Client, target: Target) {
    let request = pb::SeekRequest { subscription: SUBSCRIPTION.to_owned(), target: Some(target) };
    client.subscriber.clone().seek(request).await.unwrap();
}

async fn take_snapshot(client: &Client) -> pb::Snapshot {
    let request = pb::CreateSnapshotRequest {
        name: SNAPSHOT.to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    client.subscriber.clone().create_snapshot(request).await.unwrap().into_inner()
}

async fn retaining(client: &Client) {
    client.create_topic(TOPIC).await;
    let (name, topic) = (SUBSCRIPTION.to_owned(), TOPIC.to_owned());
    let subscription = pb::Subscription { name, topic, retain_acked_messages: true, ..Default::default() };
    client.create(subscription).await.unwrap();
}

/// Publishes numbers, one request each, acks them all, and tells when each was published.
async fn publish_and_ack(client: &Client, count: usize) -> Vec<(String, Timestamp)> {
    for number in 0..count {
        client.publish_texts(&[&number.to_string()]).await;
    }
    let received = client.pull_all(count).await;
    client.ack(ack_ids(&received)).await.unwrap();
    let time = |received: &pb::ReceivedMessage| received.message.as_ref().unwrap().publish_time.unwrap();
    texts(&received).into_iter().zip(received.iter().map(time)).collect()
}

fn parts(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

async fn backlog(client: &Client) -> u64 {
    client.stats(SUBSCRIPTION).await.backlog_messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_to_a_time_brings_back_what_was_published_from_then_on_and_nothing_else() {
    let broker = TestBroker::start_with(|config| config.segment_bytes = 16 << 10).await;
    let client = broker.client().await;
    retaining(&client).await;
    let published = publish_and_ack(&client, 60).await;
    let broker = broker.restart().await;
    let client = broker.client().await;
    for (_, time) in published.iter().step_by(13) {
        // A nanosecond later is after what was published at that time.
        for target in [*time, Timestamp { nanos: time.nanos + 1, ..*time }] {
            let later = |(_, time): &&(String, Timestamp)| parts(*time) >= parts(target);
            let expected: Vec<&str> = published.iter().filter(later).map(|(text, _)| text.as_str()).collect();
            seek(&client, Target::Time(target)).await;
            assert_eq!(backlog(&client).await, expected.len() as u64, "{target}");
            let received = client.pull_all(expected.len()).await;
            assert_eq!(texts(&received), expected, "{target}");
        }
    }
    for beginning in [Timestamp::default(), Timestamp { seconds: -1, nanos: 0 }] {
        seek(&client, Target::Time(beginning)).await;
        assert_eq!(backlog(&client).await, 60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_to_a_time_to_come_purges_and_new_messages_are_seen() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a", "b"]).await;
    seek(&client, Target::Time(Timestamp { seconds: now() + HOUR, nanos: 0 })).await;
    assert_eq!(backlog(&client).await, 0);
    client.publish_texts(&["c"]).await;
    let broker = broker.restart().await;
    assert_eq!(texts(&broker.client().await.pull_all(1).await), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_retention_a_seek_brings_back_only_what_nobody_has_acked() {
    let (_broker, client) = TestBroker::with_subscription().await;
    publish_and_ack(&client, 3).await;
    client.publish_texts(&["unacked"]).await;
    let leased = client.pull_all(1).await;
    seek(&client, Target::Time(Timestamp::default())).await;
    // The lease of before is over: its ack does not count, and the message comes again.
    client.ack(ack_ids(&leased)).await.unwrap();
    assert_eq!(texts(&client.pull_all(1).await), ["unacked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_keeps_its_messages_lets_every_subscription_go_back() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let (name, message_retention_duration) = (TOPIC.to_owned(), seconds(600));
    let topic = pb::Topic { name, message_retention_duration, ..Default::default() };
    client.publisher.clone().create_topic(topic).await.unwrap();
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    publish_and_ack(&client, 3).await;
    seek(&client, Target::Time(Timestamp::default())).await;
    assert_eq!(texts(&client.pull_all(3).await), ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_back_what_was_not_acked_when_it_was_taken_also_after_a_restart() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a", "b", "c"]).await;
    let received = client.pull_all(3).await;
    client.ack(vec![received[1].ack_id.clone()]).await.unwrap();
    let taken = take_snapshot(&client).await;
    assert_eq!((taken.name.as_str(), taken.topic.as_str(), taken.labels["k"].as_str()), (SNAPSHOT, TOPIC, "v"));
    let expires = taken.expire_time.unwrap();
    assert!((now() + WEEK - 60..=now() + WEEK).contains(&expires.seconds), "{expires}");
    client.ack(vec![received[0].ack_id.clone(), received[2].ack_id.clone()]).await.unwrap();
    client.publish_texts(&["d"]).await;
    let later = client.pull_all(1).await;
    client.ack(ack_ids(&later)).await.unwrap();
    assert_eq!(backlog(&client).await, 0);

    let broker = broker.restart().await;
    let client = broker.client().await;
    seek(&client, Target::Snapshot(SNAPSHOT.to_owned())).await;
    assert_eq!(texts(&client.pull_all(3).await), ["a", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_shown_listed_changed_and_deleted() {
    let (broker, mut client) = TestBroker::with_subscription().await;
    let taken = take_snapshot(&client).await;
    let shown = client.subscriber.get_snapshot(pb::GetSnapshotRequest { snapshot: SNAPSHOT.to_owned() }).await.unwrap();
    assert_eq!(shown.into_inner(), taken);

    let expire_time = Some(Timestamp { seconds: now() + HOUR, nanos: 0 });
    let update = |paths: &[&str]| pb::UpdateSnapshotRequest {
        snapshot: Some(pb::Snapshot { name: SNAPSHOT.to_owned(), expire_time, ..Default::default() }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    };
    let changed = client.subscriber.update_snapshot(update(&["expire_time"])).await.unwrap().into_inner();
    assert_eq!(changed, pb::Snapshot { expire_time, ..taken.clone() });
    let changed = client.subscriber.update_snapshot(update(&["labels"])).await.unwrap().into_inner();
    assert_eq!(changed, pb::Snapshot { expire_time, labels: Default::default(), ..taken });

    let broker = broker.restart().await;
    let mut client = broker.client().await;
    let request = pb::ListSnapshotsRequest { project: "projects/p".to_owned(), ..Default::default() };
    let listed = client.subscriber.list_snapshots(request.clone()).await.unwrap().into_inner();
    assert_eq!((listed.snapshots, listed.next_page_token.as_str()), (vec![changed], ""));
    let of_topic = pb::ListTopicSnapshotsRequest { topic: TOPIC.to_owned(), ..Default::default() };
    let listed = client.publisher.list_topic_snapshots(of_topic).await.unwrap().into_inner();
    assert_eq!(listed.snapshots, [SNAPSHOT]);
    client.subscriber.delete_snapshot(pb::DeleteSnapshotRequest { snapshot: SNAPSHOT.to_owned() }).await.unwrap();
    assert!(client.subscriber.list_snapshots(request).await.unwrap().into_inner().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_snapshots_are_paged_without_gap_or_repeat() {
    let (_broker, mut client) = TestBroker::with_subscription().await;
    let names: Vec<String> = (0..5).map(|number| format!("projects/p/snapshots/snap-{number}")).collect();
    for name in names.iter().rev() {
        let (name, subscription) = (name.clone(), SUBSCRIPTION.to_owned());
        let request = pb::CreateSnapshotRequest { name, subscription, ..Default::default() };
        client.subscriber.create_snapshot(request).await.unwrap();
    }
    let (mut all, mut of_topic) = (Vec::new(), Vec::new());
    let (mut page_token, mut topic_token) = (String::new(), String::new());
    for _ in 0..3 {
        let request = pb::ListSnapshotsRequest { project: "projects/p".to_owned(), page_size: 2, page_token };
        let page = client.subscriber.list_snapshots(request).await.unwrap().into_inner();
        all.extend(page.snapshots.into_iter().map(|snapshot| snapshot.name));
        page_token = page.next_page_token;
        let topic = TOPIC.to_owned();
        let request = pb::ListTopicSnapshotsRequest { topic, page_size: 2, page_token: topic_token };
        let page = client.publisher.list_topic_snapshots(request).await.unwrap().into_inner();
        of_topic.extend(page.snapshots);
        topic_token = page.next_page_token;
    }
    assert_eq!((&all, &of_topic), (&names, &names));
    assert_eq!((page_token.as_str(), topic_token.as_str()), ("", ""));
}
