use serde_json::{Value, json};

use super::{Cli, shop, texts};
use crate::harness::TestBroker;

/// A shop whose `payment` sets messages aside after five attempts: `operator` holds them. There is one, and one before
/// it that nobody failed on.
async fn with_a_dead_letter() -> (TestBroker, Cli, String) {
    let (broker, cli) = shop().await;
    cli.ok(&["topic", "create", "dead"]);
    cli.ok(&["subscription", "create", "operator", "--topic", "dead"]);
    cli.ok(&["publish", "dead", "no dead letter"]);
    cli.ok(&["subscription", "update", "payment", "--dead-letter-topic", "dead", "--max-delivery-attempts", "5"]);
    cli.ok(&["publish", "orders", "poison", "-k", "alice", "-a", "type=placed"]);
    for attempt in 1..=5 {
        let received = cli.json(&["pull", "payment", "--wait"]);
        assert_eq!(received[0]["deliveryAttempt"], attempt);
        cli.ok(&["nack", "payment", received[0]["ackId"].as_str().unwrap()]);
    }
    let client = broker.client().await;
    client.until("projects/p/subscriptions/operator", |stats| stats.backlog_messages == 2).await;
    let letters = cli.json(&["dead-letter", "list", "operator"]);
    let id = letters[1]["message"]["messageId"].as_str().unwrap().to_owned();
    (broker, cli, id)
}

fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_tell_how_topics_and_subscriptions_stand() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "a", "b", "c"]);
    cli.ok(&["pull", "payment", "--wait", "--limit", "1"]);
    let stats = cli.json(&["stats"]);
    let payment = &stats["subscriptions"][0];
    assert_eq!(payment["subscription"], "projects/p/subscriptions/payment");
    assert_eq!((&payment["backlogMessages"], &payment["outstandingMessages"]), (&json!("3"), &json!("1")));
    assert_eq!(stats["topics"][0]["publishedMessages"], "3");
    assert_eq!(cli.json(&["stats", "--project", "q"])["subscriptions"], json!([]));
    let everything = cli.json(&["stats", "--project", "q", "--all-projects"]);
    assert_eq!(everything["subscriptions"].as_array().unwrap().len(), 1);

    let table = cli.ok(&["stats"]);
    let rows = rows(&table);
    assert!(table.starts_with("broker "), "{table}");
    assert_eq!((rows[2][0], &rows[3][..3]), ("TOPIC", &["orders", "1", "3"][..]));
    assert_eq!((rows[5][0], &rows[6][..2]), ("SUBSCRIPTION", &["payment", "3"][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_are_watched_as_a_stream() {
    let (_broker, cli) = shop().await;
    let out = cli.ok(&["stats", "--watch", "--count", "2", "--output", "json"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|stats| stats["subscriptions"][0]["backlogMessages"] == "0"), "{out}");
    let out = cli.ok(&["stats", "--watch", "--count", "1"]);
    assert!(out.contains("payment") && !out.contains('\x1b'), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peek_shows_the_queue_and_takes_nothing() {
    let (_broker, cli) = shop().await;
    let none = cli.run(&["peek", "payment"]);
    assert_eq!((none.code, none.out.as_str(), none.errors.as_str()), (Some(0), "", "no messages\n"));
    let lines: Vec<String> = (0..250).map(|number| number.to_string()).collect();
    let input = lines.join("\n");
    cli.ok(&["publish", "orders", "--lines", &input]);
    assert_eq!(texts(&cli.json(&["peek", "payment", "--limit", "201"])), lines[..201]);
    cli.ok(&["pull", "payment", "--wait", "--limit", "1"]);
    let table = cli.ok(&["peek", "payment", "--limit", "2"]);
    let rows = rows(&table);
    assert_eq!((rows.len(), rows[1][2], rows[2][2]), (3, "outstanding", "waiting"));
    assert_eq!(texts(&cli.json(&["peek", "payment"])), lines[..10]);
    assert!(cli.fails(&["peek", "none"]).contains("broker subscription list"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_is_cut_in_a_table_and_whole_in_json() {
    let (_broker, cli) = shop().await;
    let long = "ü".repeat(1_000);
    cli.ok(&["publish", "orders", &long]);
    assert!(cli.ok(&["peek", "payment"]).contains("üüü…"));
    assert!(cli.ok(&["peek", "payment", "--full"]).contains(&long));
    assert_eq!(texts(&cli.json(&["peek", "payment"])), [long]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_with_its_cause_and_shown_whole() {
    let (_broker, cli, id) = with_a_dead_letter().await;
    let table = cli.ok(&["dead-letter", "list", "operator"]);
    let row = rows(&table)[2].clone();
    assert_eq!((row[0], &row[2..]), (id.as_str(), &["payment", "5", "nacked", "alice", "poison"][..]));
    let shown = cli.ok(&["dead-letter", "show", "operator", &id]);
    for line in ["source:         payment", "reason:         nacked", "attributes:     type=placed"] {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }
    assert_eq!(cli.json(&["dead-letter", "show", "operator", &id])["message"]["text"], "poison");
    let errors = cli.fails(&["dead-letter", "show", "operator", "1"]);
    assert!(errors.contains("message `1` is not in the backlog") && errors.contains("broker peek"), "{errors}");
    assert!(cli.fails(&["dead-letter", "list", "none"]).contains("broker subscription list"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_back_to_where_it_came_from() {
    let (_broker, cli, id) = with_a_dead_letter().await;
    assert_eq!(cli.ok(&["dead-letter", "redrive", "operator", &id]), "took back 1\n");
    let received = cli.json(&["pull", "payment", "--wait", "--auto-ack"]);
    let message = &received[0]["message"];
    assert_eq!((texts(&received), &message["attributes"]), (vec!["poison"], &json!({ "type": "placed" })));
    assert_eq!(texts(&cli.json(&["peek", "operator"])), ["no dead letter"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_redriven_is_named_and_is_a_failure() {
    let (_broker, cli, id) = with_a_dead_letter().await;
    let answer = cli.run(&["dead-letter", "redrive", "operator", "--all"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.out.starts_with("took back 1\n") && answer.out.contains("do not say where"), "{answer:?}");
    assert!(answer.errors.contains("1 dead letters stay"), "{answer:?}");
    let answer = cli.run(&["dead-letter", "redrive", "operator", &id, "--output", "json"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let told: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(told["skipped"][0]["reason"], "REDRIVE_SKIP_REASON_NOT_IN_BACKLOG");
    assert_eq!(cli.run(&["dead-letter", "redrive", "operator"]).code, Some(2));
}
