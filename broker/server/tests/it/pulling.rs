use orderflow_proto::google::pubsub::v1 as pb;
use tonic::Code;

use crate::harness::{PATIENCE, SUBSCRIPTION, TOPIC, TestBroker, ack_ids, keyed, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_waits_for_a_message_and_takes_no_more_than_asked() {
    let (broker, client) = TestBroker::with_subscription().await;
    let waiting = tokio::spawn({
        let client = broker.client().await;
        async move { client.pull(2).await }
    });
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    client.publish_texts(&["a", "b", "c"]).await;
    let first = waiting.await.unwrap();
    assert_eq!(texts(&first), ["a", "b"]);
    assert_eq!(texts(&client.pull(2).await), ["c"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.consumers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_returns_at_once_may_be_empty_and_leaves_nothing_behind() {
    let (_broker, client) = TestBroker::with_subscription().await;
    assert!(client.pull_now(10).await.is_empty());
    client.publish_texts(&["a"]).await;
    let stats = client.stats(SUBSCRIPTION).await;
    assert_eq!((stats.consumers, stats.outstanding_messages, stats.backlog_messages), (0, 0, 1));
    assert_eq!(texts(&client.pull_now(10).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_whose_caller_went_away_takes_no_message() {
    let (broker, client) = TestBroker::with_subscription().await;
    let waiting = tokio::spawn({
        let client = broker.client().await;
        async move { client.pull(2).await }
    });
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    waiting.abort();
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    client.publish_texts(&["a"]).await;
    assert_eq!(texts(&client.pull(1).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acked_never_comes_again_also_after_a_restart() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a", "b", "c"]).await;
    let received = client.pull_all(3).await;
    client.ack(vec![received[1].ack_id.clone()]).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 2);
    let broker = broker.restart().await;
    let client = broker.client().await;
    assert_eq!(texts(&client.pull_all(2).await), ["a", "c"]);
    // Acking once more, with ids of the run before, does what an ack does: the messages are done.
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_brings_the_message_back_and_an_extension_keeps_it_away() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a", "b"]).await;
    let received = client.pull_all(2).await;
    client.modify(vec![received[0].ack_id.clone()], 600).await.unwrap();
    client.modify(vec![received[1].ack_id.clone()], 0).await.unwrap();
    assert_eq!(texts(&client.pull(10).await), ["b"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_back_when_its_deadline_passes() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a"]).await;
    let first = client.pull(1).await;
    // The shortest deadline that a subscription can have is 10 s; a lease can be given a shorter one.
    client.modify(ack_ids(&first), 1).await.unwrap();
    assert_eq!(texts(&client.pull(1).await), ["a"]);
    // The late ack of an ordinary subscription still counts.
    client.ack(ack_ids(&first)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_larger_than_the_window_comes_whole_from_the_disk() {
    const COUNT: usize = 5_000;
    let (broker, client) = TestBroker::with_subscription().await;
    let all: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    for chunk in all.chunks(700) {
        client.publish_texts(&chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let broker = broker.restart().await;
    let client = broker.client().await;
    let received = client.pull_all(COUNT).await;
    assert_eq!(texts(&received), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_message_waits_counts_its_attempts_and_ends_in_the_dead_letter_topic() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create_topic("projects/p/topics/dead").await;
    client.create_subscription("projects/p/subscriptions/dead", "projects/p/topics/dead").await;
    let zero = Some(prost_types::Duration::default());
    client
        .create(pb::Subscription {
            name: SUBSCRIPTION.to_owned(),
            topic: TOPIC.to_owned(),
            retry_policy: Some(pb::RetryPolicy { minimum_backoff: zero, maximum_backoff: zero }),
            dead_letter_policy: Some(pb::DeadLetterPolicy {
                dead_letter_topic: "projects/p/topics/dead".to_owned(),
                max_delivery_attempts: 5,
            }),
            ..Default::default()
        })
        .await
        .unwrap();
    let sent = pb::PubsubMessage { attributes: [("k".to_owned(), "v".to_owned())].into(), ..keyed("key", "bad") };
    client.publish(vec![sent]).await.unwrap();
    for attempt in 1..=5 {
        let received = client.pull_all(1).await;
        assert_eq!(received[0].delivery_attempt, attempt);
        client.modify(ack_ids(&received), 0).await.unwrap();
    }
    client.until("projects/p/subscriptions/dead", |stats| stats.backlog_messages == 1).await;
    let stats = client.stats(SUBSCRIPTION).await;
    assert_eq!((stats.backlog_messages, stats.dead_lettered_messages), (0, 1));

    let broker = broker.restart().await;
    let client = broker.client().await;
    let request = pb::PullRequest {
        subscription: "projects/p/subscriptions/dead".to_owned(),
        max_messages: 1,
        ..Default::default()
    };
    let dead = client.subscriber.clone().pull(request).await.unwrap().into_inner().received_messages.remove(0);
    let dead = dead.message.unwrap();
    assert_eq!((dead.data.as_ref(), dead.ordering_key.as_str()), (b"bad".as_slice(), "key"));
    let attribute = |key: &str| dead.attributes.get(key).map(String::as_str);
    assert_eq!(attribute("k"), Some("v"));
    assert_eq!(attribute("CloudPubSubDeadLetterSourceSubscription"), Some("payment"));
    assert_eq!(attribute("CloudPubSubDeadLetterSourceSubscriptionProject"), Some("p"));
    assert_eq!(attribute("CloudPubSubDeadLetterSourceDeliveryCount"), Some("5"));
    assert_eq!(attribute("BrokerDeadLetterReason"), Some("nacked"));
    let time = attribute("CloudPubSubDeadLetterSourceTopicPublishTime").unwrap();
    time.parse::<prost_types::Timestamp>().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_pull_ends_with_not_found_when_its_subscription_is_deleted() {
    let (broker, client) = TestBroker::with_subscription().await;
    let waiting = tokio::spawn({
        let client = broker.client().await;
        let request = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages: 1, ..Default::default() };
        async move { client.subscriber.clone().pull(request).await }
    });
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    let request = pb::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.clone().delete_subscription(request).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
}
