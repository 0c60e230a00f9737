use std::path::PathBuf;

use broker::{Broker, Error};
use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::engine::is_replicated;
use crate::harness::{PATIENCE, TestBroker, config};

const DECLARED: &str = r#"{
  "project": "p",
  "topics": [{ "id": "orders", "labels": { "team": "sales" } }, { "id": "dead" }],
  "subscriptions": [{
    "id": "payment",
    "topic": "orders",
    "ack_deadline_seconds": 20,
    "enable_message_ordering": true,
    "retry_policy": { "minimum_backoff": "0.5s", "maximum_backoff": "60s" },
    "dead_letter_policy": { "dead_letter_topic": "dead", "max_delivery_attempts": 20 }
  }]
}"#;

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("topology.json");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_created_once_and_found_at_the_next_start() {
    let (dir, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let topology = file(&dir, DECLARED);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let broker = TestBroker::start_with(|config| {
            config.topology = Some(topology.clone());
            config.data_dir = data.path().to_owned();
        })
        .await;
        let mut client = broker.client().await;
        let request = pb::GetSubscriptionRequest { subscription: "projects/p/subscriptions/payment".to_owned() };
        let subscription = client.subscriber.get_subscription(request).await.unwrap().into_inner();
        assert!(subscription.enable_message_ordering);
        assert_eq!(subscription.ack_deadline_seconds, 20);
        assert_eq!(subscription.retry_policy.unwrap().minimum_backoff.unwrap().nanos, 500_000_000);
        assert_eq!(subscription.dead_letter_policy.as_ref().unwrap().dead_letter_topic, "projects/p/topics/dead");
        let request = pb::ListTopicsRequest { project: "projects/p".to_owned(), ..Default::default() };
        seen.push(client.publisher.list_topics(request).await.unwrap().into_inner().topics);
        broker.stop();
        broker.stopped().await;
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_with_other_settings_refuses_the_start_by_its_name() {
    let (dir, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let broker = TestBroker::start_with(|config| {
        config.topology = Some(file(&dir, DECLARED));
        config.data_dir = data.path().to_owned();
    })
    .await;
    broker.stop();
    broker.stopped().await;
    let refusal = async |text: &str| {
        let mut config = config(data.path());
        config.topology = Some(file(&dir, text));
        match Broker::open(config).await {
            // A topology is applied by whoever owns the journal, and that is found out behind the open.
            Ok(broker) if is_replicated() => broker.run(CancellationToken::new()).await.unwrap_err(),
            other => other.unwrap_err(),
        }
    };
    let cases = [
        (DECLARED.replace("\"ack_deadline_seconds\": 20", "\"ack_deadline_seconds\": 21"), "subscriptions/payment"),
        (DECLARED.replace("sales", "marketing"), "topics/orders"),
    ];
    for (text, named) in cases {
        let error = tokio::time::timeout(PATIENCE, refusal(&text)).await.unwrap();
        assert!(matches!(error, Error::Topology { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
