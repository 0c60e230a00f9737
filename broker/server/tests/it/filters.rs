use orderflow_proto::google::pubsub::v1 as pb;

use crate::harness::{Client, SUBSCRIPTION, TOPIC, TestBroker, ack_ids, message, texts};

const DEAD: &str = "projects/p/topics/dead";

fn of_type(text: &str, kind: &str) -> pb::PubsubMessage {
    pb::PubsubMessage { attributes: [("type".to_owned(), kind.to_owned())].into(), ..message(text) }
}

async fn filtered(client: &Client, name: &str, topic: &str, filter: &str) {
    let (name, topic, filter) = (name.to_owned(), topic.to_owned(), filter.to_owned());
    client.create(pb::Subscription { name, topic, filter, ..Default::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_sees_only_what_matches_its_filter_also_after_a_restart() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let filter = "hasPrefix(attributes.type, \"paid\") AND NOT attributes.type = \"paid-late\"";
    filtered(&client, SUBSCRIPTION, TOPIC, filter).await;
    client.create_subscription("projects/p/subscriptions/all", TOPIC).await;
    let batch = vec![of_type("1", "paid"), of_type("2", "open"), of_type("3", "paid-late"), message("4")];
    client.publish(batch).await.unwrap();
    client.publish(vec![of_type("5", "paid-now")]).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 2);
    assert_eq!(client.stats("projects/p/subscriptions/all").await.backlog_messages, 5);

    let broker = broker.restart().await;
    let client = broker.client().await;
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 2);
    client.publish(vec![of_type("6", "open"), of_type("7", "paid")]).await.unwrap();
    let received = client.pull_all(3).await;
    assert_eq!(texts(&received), ["1", "5", "7"]);
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_of_a_dead_letter_subscription_sees_why_a_message_is_there() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create_topic(DEAD).await;
    let (seen, unseen) = ("projects/p/subscriptions/seen", "projects/p/subscriptions/unseen");
    filtered(&client, seen, DEAD, "attributes.BrokerDeadLetterReason = \"nacked\"").await;
    filtered(&client, unseen, DEAD, "attributes.BrokerDeadLetterReason = \"expired\"").await;
    let zero = Some(prost_types::Duration::default());
    let subscription = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: zero, maximum_backoff: zero }),
        dead_letter_policy: Some(pb::DeadLetterPolicy { dead_letter_topic: DEAD.to_owned(), max_delivery_attempts: 5 }),
        ..Default::default()
    };
    client.create(subscription).await.unwrap();
    client.publish_texts(&["bad"]).await;
    for _ in 0..5 {
        let received = client.pull_all(1).await;
        client.modify(ack_ids(&received), 0).await.unwrap();
    }
    client.until(SUBSCRIPTION, |stats| stats.dead_lettered_messages == 1).await;
    assert_eq!(client.stats(seen).await.backlog_messages, 1);
    assert_eq!(client.stats(unseen).await.backlog_messages, 0);
}
