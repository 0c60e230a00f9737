use std::collections::HashMap;

use orderflow_proto::google::pubsub::v1 as pb;
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::harness::{SUBSCRIPTION, TOPIC, TestBroker, message, texts, with_attributes};

/// The largest publish request, in encoded bytes.
const REQUEST_BYTES_MAX: usize = 10_000_000;

/// A request of exactly so many bytes.
fn request_of(bytes: usize) -> Vec<pb::PubsubMessage> {
    let request = |data_bytes| pb::PublishRequest {
        topic: TOPIC.to_owned(),
        messages: vec![pb::PubsubMessage { data: vec![7; data_bytes].into(), ..Default::default() }],
    };
    let around = request(bytes).encoded_len() - bytes;
    let request = request(bytes - around);
    assert_eq!(request.encoded_len(), bytes);
    request.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn message_ids_ascend_in_the_order_of_the_request_and_never_repeat() {
    let (broker, client) = TestBroker::with_subscription().await;
    let mut ids = client.publish_texts(&["a", "b", "c"]).await;
    let broker = broker.restart().await;
    ids.extend(broker.client().await.publish_texts(&["d"]).await);
    let numbers: Vec<u64> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_whole() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let sent = pb::PubsubMessage {
        data: vec![0, 255, 10].into(),
        ordering_key: "key".to_owned(),
        ..with_attributes(&[("one", "1"), ("empty", "")])
    };
    let ids = client.publish(vec![sent.clone()]).await.unwrap();
    let received = client.pull(1).await.remove(0);
    assert_eq!(received.delivery_attempt, 0, "attempts are shown only with a dead-letter policy");
    let got = received.message.unwrap();
    assert_eq!((&got.data, &got.attributes, &got.ordering_key), (&sent.data, &sent.attributes, &sent.ordering_key));
    assert_eq!(got.message_id, ids[0]);
    assert!(got.publish_time.unwrap().seconds > 1_700_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_of_a_topic_gets_every_message_published_after_its_creation() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["early"]).await;
    client.create_subscription("projects/p/subscriptions/late", TOPIC).await;
    client.publish_texts(&["later"]).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 2);
    assert_eq!(client.stats("projects/p/subscriptions/late").await.backlog_messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_publish_hold_at_the_edge_and_one_beyond() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let text_of = |bytes| "x".repeat(bytes);
    let attributes_of = |count| {
        let attributes = (0..count).map(|number| (format!("key-{number}"), String::new())).collect();
        pb::PubsubMessage { attributes, ..Default::default() }
    };
    let keyed = |bytes| pb::PubsubMessage { ordering_key: text_of(bytes), ..message("data") };
    let cases = [
        ("messages", vec![message("x"); 1_000], vec![message("x"); 1_001]),
        ("messages", vec![message("x"); 1], Vec::new()),
        ("messages", request_of(REQUEST_BYTES_MAX), request_of(REQUEST_BYTES_MAX + 1)),
        ("messages[0].attributes", vec![attributes_of(100)], vec![attributes_of(101)]),
        (
            "messages[0].attributes",
            vec![with_attributes(&[(&text_of(256), "")])],
            vec![with_attributes(&[(&text_of(257), "")])],
        ),
        (
            "messages[0].attributes",
            vec![with_attributes(&[("k", &text_of(1_024))])],
            vec![with_attributes(&[("k", &text_of(1_025))])],
        ),
        ("messages[0].attributes", vec![with_attributes(&[("goo", "")])], vec![with_attributes(&[("goog", "")])]),
        ("messages[0].attributes", vec![with_attributes(&[("k", "")])], vec![with_attributes(&[("", "v")])]),
        ("messages[0].ordering_key", vec![keyed(1_024)], vec![keyed(1_025)]),
        ("messages[0].data", vec![message("x")], vec![message("")]),
    ];
    let mut accepted = 0;
    for (field, good, bad) in cases {
        accepted += good.len() as u64;
        client.publish(good).await.unwrap_or_else(|status| panic!("{field}: {status}"));
        let status = client.publish(bad).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        assert_eq!(field_of(&status), field);
        assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, accepted, "{field}");
    }
}

fn field_of(status: &tonic::Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_bad_request().unwrap().field_violations.remove(0).field
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_largest_size_is_delivered_by_stream_and_pull() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let big = request_of(REQUEST_BYTES_MAX);
    client.publish(big.clone()).await.unwrap();
    let mut client = client;
    client.subscriber = client.subscriber.max_decoding_message_size(usize::MAX);
    let mut stream = client.stream().await;
    let received = stream.take(1).await;
    assert!(received[0].message.as_ref().unwrap().data == big[0].data);
    client.modify(vec![received[0].ack_id.clone()], 0).await.unwrap();
    drop(stream);
    let received = client.pull_all(1).await;
    assert!(received[0].message.as_ref().unwrap().data == big[0].data);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_compressed_and_responses_are_not_even_for_clients_that_could_read_it() {
    let (broker, client) = TestBroker::with_subscription().await;
    let mut zipped = broker.client().await;
    zipped.publisher = zipped.publisher.send_compressed(CompressionEncoding::Gzip);
    zipped.subscriber = zipped.subscriber.accept_compressed(CompressionEncoding::Gzip);
    zipped.publish_texts(&[&"long and dull ".repeat(1_000)]).await;
    drop(client);
    let request = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages: 1, ..Default::default() };
    let response = zipped.subscriber.pull(request).await.unwrap();
    assert!(response.metadata().get("grpc-encoding").is_none_or(|encoding| encoding == "identity"));
    assert_eq!(texts(&response.into_inner().received_messages), ["long and dull ".repeat(1_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publisher_writes_into_fields_of_the_broker_is_replaced() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let forged = pb::PubsubMessage {
        message_id: "mine".to_owned(),
        publish_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        attributes: HashMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    let ids = client.publish(vec![forged]).await.unwrap();
    let got = client.pull(1).await.remove(0).message.unwrap();
    assert_eq!(got.message_id, ids[0]);
    assert_ne!(got.publish_time.unwrap().seconds, 1);
}
