use serde_json::{Value, json};

use super::{Cli, shop};
use crate::harness::TestBroker;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_listed_described_updated_and_deleted() {
    let broker = TestBroker::start().await;
    let cli = Cli::of(&broker);
    let none = cli.run(&["topic", "list"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    assert!(none.errors.contains("no topics in projects/p") && none.errors.contains("topic create"), "{none:?}");
    assert_eq!(cli.json(&["topic", "list"]), json!([]));

    let out = cli.ok(&["topic", "create", "orders", "--retention", "1h 30m", "--labels", "team=shop,tier=1"]);
    assert_eq!(out, "created projects/p/topics/orders\n");
    let listed = cli.ok(&["topic", "list"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["TOPIC", "RETENTION", "LABELS"], vec!["orders", "1h", "30m", "team=shop,tier=1"]]);

    cli.ok(&["topic", "update", "projects/p/topics/orders", "--retention", "7d", "--clear-labels"]);
    let topic = cli.json(&["topic", "describe", "orders"]);
    assert_eq!(topic["name"], "projects/p/topics/orders");
    assert_eq!((&topic["messageRetentionDuration"], &topic["labels"]), (&json!("604800s"), &json!({})));
    cli.ok(&["topic", "update", "orders", "--clear-retention", "--labels", "a=b"]);
    cli.ok(&["subscription", "create", "payment", "--topic", "orders"]);
    let described = cli.ok(&["topic", "describe", "orders"]);
    let described: Vec<&str> = described.lines().collect();
    assert_eq!(
        described,
        ["name:           projects/p/topics/orders", "labels:         a=b", "subscriptions:  payment"]
    );

    assert_eq!(cli.ok(&["topic", "delete", "orders"]), "deleted projects/p/topics/orders\n");
    assert_eq!(cli.json(&["topic", "list"]), json!([]));
    cli.ok(&["topic", "create", "orders"]);
    assert_eq!(cli.json(&["topic", "delete", "orders"]), json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_of_a_subscription_has_a_flag() {
    let broker = TestBroker::start().await;
    let cli = Cli::of(&broker);
    cli.ok(&["topic", "create", "orders"]);
    cli.ok(&["topic", "create", "dead"]);
    let settings = "--topic orders --ack-deadline 20s --ordering --exactly-once --retention 1d --retain-acked \
                    --dead-letter-topic dead --max-delivery-attempts 7 --min-backoff 500ms --max-backoff 1m \
                    --expiration 2d --labels a=b --filter attributes:x";
    let arguments: Vec<&str> = ["subscription", "create", "payment"].into_iter().chain(settings.split(' ')).collect();
    let arguments: Vec<&str> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
    let created = cli.json(&arguments);
    let expected = json!({
        "name": "projects/p/subscriptions/payment",
        "topic": "projects/p/topics/orders",
        "ackDeadlineSeconds": 20,
        "enableMessageOrdering": true,
        "enableExactlyOnceDelivery": true,
        "messageRetentionDuration": "86400s",
        "retainAckedMessages": true,
        "deadLetterPolicy": { "deadLetterTopic": "projects/p/topics/dead", "maxDeliveryAttempts": 7 },
        "retryPolicy": { "minimumBackoff": "0.500s", "maximumBackoff": "60s" },
        "expirationPolicy": { "ttl": "172800s" },
        "labels": { "a": "b" },
        "filter": "attributes:x",
        "detached": false,
    });
    assert_contains(&created, &expected);
    assert_eq!(cli.json(&["subscription", "describe", "payment"]), created);
    let described = cli.ok(&["subscription", "describe", "payment"]);
    for line in ["ack deadline:       20s", "backoff:            500ms to 1m", "exactly once:       yes"] {
        assert!(described.lines().any(|found| found == line), "{line}: {described}");
    }
    let listed = cli.ok(&["subscription", "list"]);
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["payment", "orders", "pull", "20s", "ordered,exactly-once,filtered", "dead"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let (_broker, cli) = shop().await;
    cli.ok(&["topic", "create", "dead"]);
    let before = cli.json(&["subscription", "describe", "payment"]);
    let updated = cli.json(&["subscription", "update", "payment", "--ack-deadline", "1m", "--min-backoff", "1s"]);
    let retry = json!({ "minimumBackoff": "1s", "maximumBackoff": "600s" });
    assert_eq!(updated, with(&before, &[("ackDeadlineSeconds", json!(60)), ("retryPolicy", retry)]));
    let more = ["--dead-letter-topic", "dead", "--exactly-once", "--expiration", "never", "--labels", "a=b"];
    let updated = cli.json(&[&["subscription", "update", "payment"][..], &more].concat());
    assert_eq!(updated["deadLetterPolicy"]["maxDeliveryAttempts"], 5);
    assert_eq!((&updated["enableExactlyOnceDelivery"], &updated["expirationPolicy"]), (&json!(true), &json!({})));
    let away = ["--clear-dead-letter-policy", "--clear-retry-policy", "--clear-labels", "--exactly-once=false"];
    cli.ok(&[&["subscription", "update", "payment", "--ack-deadline", "10s"][..], &away].concat());
    let updated = cli.json(&["subscription", "update", "payment", "--expiration", "31d"]);
    assert_eq!(updated, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_listed_by_topic_detached_and_deleted() {
    let (_broker, cli) = shop().await;
    cli.ok(&["topic", "create", "other"]);
    cli.ok(&["subscription", "create", "audit", "--topic", "other"]);
    let names = |listed: Value| -> Vec<String> {
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(cli.json(&["subscription", "list"])).len(), 2);
    let of_other = names(cli.json(&["subscription", "list", "--topic", "other"]));
    assert_eq!(of_other, ["projects/p/subscriptions/audit"]);
    assert_eq!(cli.json(&["subscription", "list", "--project", "empty"]), json!([]));
    assert_eq!(cli.ok(&["subscription", "detach", "audit"]), "detached projects/p/subscriptions/audit\n");
    assert!(cli.ok(&["subscription", "describe", "audit"]).contains("detached"));
    assert_eq!(cli.ok(&["subscription", "delete", "audit"]), "deleted projects/p/subscriptions/audit\n");
    assert_eq!(names(cli.json(&["subscription", "list"])), ["projects/p/subscriptions/payment"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_is_listed() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    for number in 0..150 {
        client.create_topic(&format!("projects/p/topics/topic-{number}")).await;
    }
    assert_eq!(Cli::of(&broker).json(&["topic", "list"]).as_array().unwrap().len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_created_listed_and_deleted() {
    let (_broker, cli) = shop().await;
    let out = cli.ok(&["snapshot", "create", "before", "--subscription", "payment", "--labels", "a=b"]);
    assert!(out.starts_with("created projects/p/snapshots/before, until 20"), "{out}");
    let listed = cli.json(&["snapshot", "list"]);
    assert_contains(
        &listed[0],
        &json!({ "name": "projects/p/snapshots/before", "topic": "projects/p/topics/orders", "labels": { "a": "b" } }),
    );
    assert!(cli.ok(&["snapshot", "list"]).lines().nth(1).unwrap().starts_with("before    orders  20"));
    assert_eq!(cli.ok(&["snapshot", "delete", "before"]), "deleted projects/p/snapshots/before\n");
    assert_eq!(cli.json(&["snapshot", "list"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_is_said_with_what_to_do_next() {
    let (_broker, cli) = shop().await;
    cli.ok(&["snapshot", "create", "before", "--subscription", "payment"]);
    let cases: [(&[&str], &[&str]); 12] = [
        (&["topic", "create", "orders"], &["already exists", "broker topic describe projects/p/topics/orders"]),
        (&["topic", "create", "x"], &["`name`"]),
        (&["topic", "create", "long", "--retention", "1m"], &["message_retention_duration"]),
        (&["topic", "describe", "none"], &["`projects/p/topics/none`", "broker topic list --project p", "create"]),
        (&["topic", "update", "none", "--clear-labels"], &["does not exist", "broker topic list"]),
        (&["topic", "delete", "projects/q/topics/none"], &["broker topic list --project q"]),
        (&["subscription", "create", "one", "--topic", "none"], &["broker topic create projects/p/topics/none"]),
        (&["subscription", "create", "one", "--topic", "orders", "--ack-deadline", "1s"], &["ack_deadline_seconds"]),
        (&["subscription", "create", "one", "--topic", "orders", "--filter", "x"], &["`filter`"]),
        (&["subscription", "delete", "none"], &["broker subscription list --project p", "--topic TOPIC"]),
        (&["snapshot", "create", "before", "--subscription", "payment"], &["exists", "broker snapshot list"]),
        (&["snapshot", "delete", "none"], &["does not exist", "broker snapshot list", "--subscription SUBSCRIPTION"]),
    ];
    for (arguments, expected) in cases {
        let errors = cli.fails(arguments);
        for text in expected {
            assert!(errors.contains(text), "{arguments:?}: {text}: {errors}");
        }
    }
    assert_eq!(cli.json(&["topic", "list"]).as_array().unwrap().len(), 1);
    cli.ok(&["subscription", "detach", "payment"]);
    let errors = cli.fails(&["pull", "payment"]);
    assert!(errors.contains("detached") && errors.contains("subscription delete"), "{errors}");
}

fn assert_contains(found: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}: {found}");
    }
}

fn with(value: &Value, changes: &[(&str, Value)]) -> Value {
    let mut value = value.clone();
    for (key, change) in changes {
        value[key] = change.clone();
    }
    value
}
