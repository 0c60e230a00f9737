use std::collections::HashMap;

use orderflow_proto::google::pubsub::v1 as pb;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{SUBSCRIPTION, TOPIC, TestBroker, texts};

fn labels() -> HashMap<String, String> {
    HashMap::from([("team".to_owned(), "payments".to_owned())])
}

pub(crate) fn full_subscription() -> pb::Subscription {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 500_000_000 });
    pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        ack_deadline_seconds: 600,
        labels: labels(),
        enable_message_ordering: true,
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: seconds(0), maximum_backoff: seconds(599) }),
        dead_letter_policy: Some(pb::DeadLetterPolicy {
            dead_letter_topic: "projects/p/topics/dead".to_owned(),
            max_delivery_attempts: 100,
        }),
        expiration_policy: Some(pb::ExpirationPolicy { ttl: seconds(86_400) }),
        retain_acked_messages: true,
        message_retention_duration: seconds(31 * 86_400 - 1),
        enable_exactly_once_delivery: true,
        filter: "attributes:a AND NOT attributes.b = \"c\"".to_owned(),
        state: pb::subscription::State::Active.into(),
        ..Default::default()
    }
}

async fn subscription(broker: &TestBroker) -> Result<pb::Subscription, tonic::Status> {
    let request = pb::GetSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    Ok(broker.client().await.subscriber.get_subscription(request).await?.into_inner())
}

async fn topic(broker: &TestBroker, name: &str) -> Result<pb::Topic, tonic::Status> {
    let request = pb::GetTopicRequest { topic: name.to_owned() };
    Ok(broker.client().await.publisher.get_topic(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_back_as_they_were_given_also_after_a_restart() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let kept = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let asked =
        pb::Topic { name: TOPIC.to_owned(), labels: labels(), message_retention_duration: kept, ..Default::default() };
    let created = client.publisher.clone().create_topic(asked).await.unwrap().into_inner();
    client.create_topic("projects/p/topics/dead").await;
    assert_eq!((created.name.as_str(), &created.labels), (TOPIC, &labels()));
    assert_eq!(created.message_retention_duration, kept);
    assert_eq!(client.create(full_subscription()).await.unwrap(), full_subscription());

    let broker = broker.restart().await;
    assert_eq!(topic(&broker, TOPIC).await.unwrap(), created);
    let shown = pb::Subscription { topic_message_retention_duration: kept, ..full_subscription() };
    assert_eq!(subscription(&broker).await.unwrap(), shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_left_out_get_the_defaults_of_the_public_api() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let asked = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        // What clients send for a pull subscription.
        push_config: Some(pb::PushConfig::default()),
        retry_policy: Some(pb::RetryPolicy::default()),
        dead_letter_policy: Some(pb::DeadLetterPolicy {
            dead_letter_topic: TOPIC.to_owned(),
            max_delivery_attempts: 0,
        }),
        ..Default::default()
    };
    let created = client.create(asked).await.unwrap();
    assert_eq!(created.ack_deadline_seconds, 10);
    let retry = created.retry_policy.unwrap();
    assert_eq!(retry.minimum_backoff.unwrap().seconds, 10);
    assert_eq!(retry.maximum_backoff.unwrap().seconds, 600);
    assert_eq!(created.dead_letter_policy.unwrap().max_delivery_attempts, 5);
    assert!(!created.enable_message_ordering);
    assert!(!created.retain_acked_messages);
    assert!(!created.enable_exactly_once_delivery);
    assert_eq!(created.message_retention_duration.unwrap().seconds, 7 * 86_400);
    assert_eq!(created.expiration_policy.unwrap().ttl.unwrap().seconds, 31 * 86_400);

    let name = "projects/p/subscriptions/for-ever".to_owned();
    let never = Some(pb::ExpirationPolicy { ttl: None });
    let asked = pb::Subscription { name, topic: TOPIC.to_owned(), expiration_policy: never, ..Default::default() };
    assert_eq!(client.create(asked).await.unwrap().expiration_policy, never);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_can_be_taken_once_and_the_error_names_it() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let again = pb::Topic { name: TOPIC.to_owned(), ..Default::default() };
    let status = client.publisher.clone().create_topic(again).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, TOPIC);
    let again = pb::Subscription { name: SUBSCRIPTION.to_owned(), topic: TOPIC.to_owned(), ..Default::default() };
    let status = client.create(again).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, SUBSCRIPTION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_leaves_its_subscriptions_what_they_hold() {
    let (broker, mut client) = TestBroker::with_subscription().await;
    client.publish_texts(&["kept"]).await;
    client.publisher.delete_topic(pb::DeleteTopicRequest { topic: TOPIC.to_owned() }).await.unwrap();
    assert_eq!(topic(&broker, TOPIC).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(subscription(&broker).await.unwrap().topic, "_deleted-topic_");

    let broker = broker.restart().await;
    assert_eq!(subscription(&broker).await.unwrap().topic, "_deleted-topic_");
    let client = broker.client().await;
    assert_eq!(texts(&client.pull(10).await), ["kept"]);

    // A topic of the same name is another one.
    client.create_topic(TOPIC).await;
    client.publish_texts(&["new"]).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_subscription_is_gone_with_what_it_held() {
    let (broker, mut client) = TestBroker::with_subscription().await;
    client.publish_texts(&["lost"]).await;
    let request = pb::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.delete_subscription(request).await.unwrap();
    assert_eq!(subscription(&broker).await.unwrap_err().code(), Code::NotFound);

    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    client.publish_texts(&["seen"]).await;
    assert_eq!(texts(&client.pull(10).await), ["seen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_sorted_complete_and_paged_without_gap_or_repeat() {
    let broker = TestBroker::start().await;
    let mut client = broker.client().await;
    let topics: Vec<String> = (0..7).map(|number| format!("projects/p/topics/topic-{number}")).collect();
    for name in topics.iter().rev() {
        client.create_topic(name).await;
    }
    client.create_topic("projects/other/topics/topic-0").await;
    let subscriptions: Vec<String> = (0..7).map(|number| format!("projects/p/subscriptions/sub-{number}")).collect();
    for name in subscriptions.iter().rev() {
        client.create_subscription(name, &topics[0]).await;
    }

    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListTopicsRequest { project: "projects/p".to_owned(), page_size: 3, page_token };
        let page = client.publisher.list_topics(request).await.unwrap().into_inner();
        assert!(page.topics.len() <= 3);
        found.extend(page.topics.into_iter().map(|topic| topic.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, topics);

    let (mut found, mut of_topic) = (Vec::new(), Vec::new());
    let (mut page_token, mut topic_token) = (String::new(), String::new());
    for _ in 0..4 {
        let request = pb::ListSubscriptionsRequest { project: "projects/p".to_owned(), page_size: 2, page_token };
        let page = client.subscriber.list_subscriptions(request).await.unwrap().into_inner();
        found.extend(page.subscriptions.into_iter().map(|subscription| subscription.name));
        page_token = page.next_page_token;
        let topic = topics[0].clone();
        let request = pb::ListTopicSubscriptionsRequest { topic, page_size: 2, page_token: topic_token };
        let page = client.publisher.list_topic_subscriptions(request).await.unwrap().into_inner();
        of_topic.extend(page.subscriptions);
        topic_token = page.next_page_token;
    }
    assert_eq!((&found, &of_topic), (&subscriptions, &subscriptions));
    assert_eq!((page_token.as_str(), topic_token.as_str()), ("", ""));
}
