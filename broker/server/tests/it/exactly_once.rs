use std::collections::HashMap;
use std::time::Instant;

use orderflow_proto::google::pubsub::v1 as pb;
use prost_types::FieldMask;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, PATIENCE, SUBSCRIPTION, Stream, TOPIC, TestBroker, ack_ids, texts};

async fn exactly_once() -> (TestBroker, Client) {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let (name, topic) = (SUBSCRIPTION.to_owned(), TOPIC.to_owned());
    let subscription = pb::Subscription { name, topic, enable_exactly_once_delivery: true, ..Default::default() };
    client.create(subscription).await.unwrap();
    (broker, client)
}

/// What a status says of single ack ids, where the client libraries look for it.
fn failures(status: &Status) -> HashMap<String, String> {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    status.get_details_error_info().unwrap().metadata
}

fn invalid(ids: &[&String]) -> HashMap<String, String> {
    ids.iter().map(|id| ((*id).clone(), "PERMANENT_FAILURE_INVALID_ACK_ID".to_owned())).collect()
}

async fn response(
    stream: &mut Stream,
    holds: impl Fn(&pb::StreamingPullResponse) -> bool,
) -> pb::StreamingPullResponse {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "other responses come, and not the one that is waited for");
        let response = tokio::time::timeout(PATIENCE, stream.responses.message()).await.expect("a response comes");
        let response = response.unwrap().expect("the stream goes on");
        let properties = response.subscription_properties.expect("every response tells the properties");
        assert!(properties.exactly_once_delivery_enabled);
        if holds(&response) {
            return response;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ack_of_a_lease_that_has_ended_fails_by_its_id_and_the_others_count() {
    let (broker, client) = exactly_once().await;
    client.publish_texts(&["a", "b"]).await;
    let first = ack_ids(&client.pull_all(2).await);
    client.modify(vec![first[0].clone()], 0).await.unwrap();
    let second = client.pull_all(1).await;
    assert_eq!(texts(&second), ["a"]);

    let status = client.ack(first.clone()).await.unwrap_err();
    assert_eq!(failures(&status), invalid(&[&first[0]]));
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 1, "the other one counts");
    let status = client.modify(vec![first[0].clone()], 600).await.unwrap_err();
    assert_eq!(failures(&status), invalid(&[&first[0]]));
    let status = client.modify(vec![first[0].clone()], 0).await.unwrap_err();
    assert_eq!(failures(&status), invalid(&[&first[0]]));

    client.ack(ack_ids(&second)).await.unwrap();
    // What was confirmed is confirmed again: the client may not have heard it the first time.
    client.ack(ack_ids(&second)).await.unwrap();
    let broker = broker.restart().await;
    assert_eq!(broker.client().await.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_an_earlier_run_cannot_ack() {
    let (broker, client) = exactly_once().await;
    client.publish_texts(&["a"]).await;
    let first = ack_ids(&client.pull_all(1).await);
    let broker = broker.restart().await;
    let client = broker.client().await;
    let status = client.ack(first.clone()).await.unwrap_err();
    assert_eq!(failures(&status), invalid(&[&first[0]]));
    assert_eq!(texts(&client.pull_all(1).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_confirms_acks_and_deadlines_one_by_one() {
    let (_broker, client) = exactly_once().await;
    client.publish_texts(&["a", "b"]).await;
    let mut stream = client.stream().await;
    let first = ack_ids(&stream.take(2).await);
    stream
        .send(pb::StreamingPullRequest {
            modify_deadline_ack_ids: first.clone(),
            modify_deadline_seconds: vec![0, 60],
            ..Default::default()
        })
        .await;
    let answer = response(&mut stream, |response| response.modify_ack_deadline_confirmation.is_some()).await;
    let confirmed = answer.modify_ack_deadline_confirmation.unwrap();
    assert_eq!((&confirmed.ack_ids, confirmed.invalid_ack_ids.len()), (&first, 0));

    let again = response(&mut stream, |response| !response.received_messages.is_empty()).await.received_messages;
    assert_eq!(texts(&again), ["a"]);
    let mut request = pb::StreamingPullRequest { ack_ids: first.clone(), ..Default::default() };
    request.modify_deadline_ack_ids = vec![first[0].clone()];
    request.modify_deadline_seconds = vec![60];
    stream.send(request).await;
    let answer = response(&mut stream, |response| response.acknowledge_confirmation.is_some()).await;
    let acked = answer.acknowledge_confirmation.unwrap();
    assert_eq!((acked.ack_ids, acked.invalid_ack_ids), (vec![first[1].clone()], vec![first[0].clone()]));
    let changed = answer.modify_ack_deadline_confirmation.unwrap();
    assert_eq!((changed.ack_ids.len(), &changed.invalid_ack_ids[..]), (0, &first[..1]));
    stream.ack(&again).await;
    let answer = response(&mut stream, |response| response.acknowledge_confirmation.is_some()).await;
    assert_eq!(answer.acknowledge_confirmation.unwrap().ack_ids, ack_ids(&again));
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_hears_when_exactly_once_delivery_is_turned_on() {
    let (_broker, mut client) = TestBroker::with_subscription().await;
    let mut stream = client.stream().await;
    client.publish_texts(&["a"]).await;
    let first = stream.responses.message().await.unwrap().unwrap();
    assert!(!first.subscription_properties.unwrap().exactly_once_delivery_enabled);
    stream.ack(&first.received_messages).await;
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;

    let name = SUBSCRIPTION.to_owned();
    let update = pb::Subscription { name, enable_exactly_once_delivery: true, ..Default::default() };
    let paths = vec!["enable_exactly_once_delivery".to_owned()];
    let (subscription, update_mask) = (Some(update), Some(FieldMask { paths }));
    let request = pb::UpdateSubscriptionRequest { subscription, update_mask };
    client.subscriber.update_subscription(request).await.unwrap();
    client.publish_texts(&["b"]).await;
    // The first ack was not confirmed: this is the next response.
    let next = response(&mut stream, |_| true).await;
    assert_eq!(texts(&next.received_messages), ["b"]);
    stream.ack(&next.received_messages).await;
    let answer = response(&mut stream, |response| response.acknowledge_confirmation.is_some()).await;
    assert_eq!(answer.acknowledge_confirmation.unwrap().ack_ids, ack_ids(&next.received_messages));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_exactly_once_delivery_a_lease_that_has_ended_is_no_error() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a"]).await;
    let first = ack_ids(&client.pull_all(1).await);
    client.modify(first.clone(), 0).await.unwrap();
    client.modify(first.clone(), 600).await.unwrap();
    client.ack(first).await.unwrap();
}
