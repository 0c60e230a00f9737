use orderflow_proto::google::pubsub::v1 as pb;
use prost_types::FieldMask;
use tonic::Code;

use crate::admin::full_subscription;
use crate::bad_input::seconds;
use crate::harness::{Client, SUBSCRIPTION, TOPIC, TestBroker, message};

async fn update(client: &Client, subscription: pb::Subscription, paths: &[&str]) -> pb::Subscription {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = Some(FieldMask { paths });
    let request = pb::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask };
    client.subscriber.clone().update_subscription(request).await.unwrap().into_inner()
}

async fn update_topic(client: &Client, topic: pb::Topic, paths: &[&str]) -> pb::Topic {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = pb::UpdateTopicRequest { topic: Some(topic), update_mask: Some(FieldMask { paths }) };
    client.publisher.clone().update_topic(request).await.unwrap().into_inner()
}

async fn shown(client: &Client) -> pb::Subscription {
    let request = pb::GetSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.clone().get_subscription(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_its_mask_names_and_nothing_else_also_after_a_restart() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create_topic("projects/p/topics/dead").await;
    client.create(full_subscription()).await.unwrap();
    // Whatever the request says beside the paths is ignored.
    let asked = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: "ignored".to_owned(),
        filter: "ignored".to_owned(),
        ack_deadline_seconds: 20,
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: seconds(7), maximum_backoff: seconds(8) }),
        dead_letter_policy: Some(pb::DeadLetterPolicy {
            dead_letter_topic: "ignored".to_owned(),
            max_delivery_attempts: 9,
        }),
        ..Default::default()
    };
    let paths = [
        "ack_deadline_seconds",
        "labels",
        "retain_acked_messages",
        "enable_exactly_once_delivery",
        "expiration_policy.ttl",
        "retry_policy.minimum_backoff",
        "dead_letter_policy.max_delivery_attempts",
    ];
    let mut expected = full_subscription();
    expected.ack_deadline_seconds = 20;
    expected.labels.clear();
    expected.retain_acked_messages = false;
    expected.enable_exactly_once_delivery = false;
    expected.expiration_policy = Some(pb::ExpirationPolicy { ttl: None });
    expected.retry_policy.as_mut().unwrap().minimum_backoff = seconds(7);
    expected.dead_letter_policy.as_mut().unwrap().max_delivery_attempts = 9;
    assert_eq!(update(&client, asked, &paths).await, expected);
    assert_eq!(shown(&client).await, expected);

    let asked = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: None, maximum_backoff: seconds(9) }),
        dead_letter_policy: Some(pb::DeadLetterPolicy {
            dead_letter_topic: TOPIC.to_owned(),
            max_delivery_attempts: 0,
        }),
        message_retention_duration: seconds(600),
        ..Default::default()
    };
    let paths = ["retry_policy.maximum_backoff", "dead_letter_policy.dead_letter_topic", "message_retention_duration"];
    expected.retry_policy.as_mut().unwrap().maximum_backoff = seconds(9);
    expected.dead_letter_policy.as_mut().unwrap().dead_letter_topic = TOPIC.to_owned();
    expected.message_retention_duration = seconds(600);
    assert_eq!(update(&client, asked, &paths).await, expected);

    let broker = broker.restart().await;
    let client = broker.client().await;
    assert_eq!(shown(&client).await, expected);
    // A policy that is named and not set is taken away; an expiration that is not set is the default.
    let asked = pb::Subscription { name: SUBSCRIPTION.to_owned(), ..Default::default() };
    let paths = ["retry_policy", "dead_letter_policy", "expiration_policy", "push_config"];
    expected.retry_policy = None;
    expected.dead_letter_policy = None;
    expected.expiration_policy = Some(pb::ExpirationPolicy { ttl: seconds(31 * 86_400) });
    assert_eq!(update(&client, asked, &paths).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_deleted_topic_can_be_updated() {
    let (_broker, mut client) = TestBroker::with_subscription().await;
    client.publisher.delete_topic(pb::DeleteTopicRequest { topic: TOPIC.to_owned() }).await.unwrap();
    let asked = pb::Subscription { name: SUBSCRIPTION.to_owned(), ack_deadline_seconds: 30, ..Default::default() };
    let updated = update(&client, asked, &["ack_deadline_seconds"]).await;
    assert_eq!((updated.ack_deadline_seconds, updated.topic.as_str()), (30, "_deleted-topic_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_topic_is_shown_also_by_its_subscriptions() {
    let (broker, client) = TestBroker::with_subscription().await;
    let asked = pb::Topic {
        name: TOPIC.to_owned(),
        labels: [("team".to_owned(), "payments".to_owned())].into(),
        message_retention_duration: seconds(600),
        ..Default::default()
    };
    let kept = update_topic(&client, asked.clone(), &["message_retention_duration"]).await;
    assert_eq!((kept.labels.len(), kept.message_retention_duration), (0, seconds(600)));
    assert_eq!(shown(&client).await.topic_message_retention_duration, seconds(600));
    let labelled = update_topic(&client, asked.clone(), &["labels"]).await;
    assert_eq!((&labelled.labels, labelled.message_retention_duration), (&asked.labels, seconds(600)));

    let broker = broker.restart().await;
    let client = broker.client().await;
    let cleared = pb::Topic { name: TOPIC.to_owned(), ..Default::default() };
    let cleared = update_topic(&client, cleared, &["message_retention_duration"]).await;
    assert_eq!((&cleared.labels, cleared.message_retention_duration), (&asked.labels, None));
    assert_eq!(shown(&client).await.topic_message_retention_duration, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_subscription_holds_nothing_and_gives_nothing_out_also_after_a_restart() {
    let (broker, mut client) = TestBroker::with_subscription().await;
    client.publish_texts(&["lost"]).await;
    let mut stream = client.stream().await;
    let leased = stream.take(1).await;
    let request = pb::DetachSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.publisher.detach_subscription(request).await.unwrap();
    assert_eq!(stream.end().await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);

    let broker = broker.restart().await;
    let mut client = broker.client().await;
    client.publish(vec![message("not seen")]).await.unwrap();
    assert!(shown(&client).await.detached);
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
    let request = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages: 1, ..Default::default() };
    assert_eq!(client.subscriber.pull(request).await.unwrap_err().code(), Code::FailedPrecondition);
    let ids = leased.iter().map(|message| message.ack_id.clone()).collect();
    assert_eq!(client.ack(ids).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.stream().await.end().await.unwrap_err().code(), Code::FailedPrecondition);
    let request = pb::ListTopicSubscriptionsRequest { topic: TOPIC.to_owned(), ..Default::default() };
    let listed = client.publisher.list_topic_subscriptions(request).await.unwrap().into_inner();
    assert!(listed.subscriptions.is_empty());
}
