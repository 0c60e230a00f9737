use serde_json::{Value, json};

use super::{Cli, shop};

/// The subscription that the shop has, and no other.
fn nothing_is_left_behind(cli: &Cli) {
    let listed = cli.json(&["subscription", "list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["projects/p/subscriptions/payment"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_a_topic_shows_what_comes_after_it_and_takes_nothing_from_anybody() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "before"]);
    let tail = cli.start(&["tail", "--topic", "orders", "--limit", "2", "--output", "json"]);
    tail.says("reading projects/p/topics/orders");
    cli.ok(&["publish", "orders", "after", "later", "not shown", "-k", "alice"]);
    let answer = tail.end();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let shown: Vec<Value> = answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&Value> = shown.iter().map(|received| &received["message"]["text"]).collect();
    assert_eq!(texts, ["after", "later"]);
    nothing_is_left_behind(&cli);
    let kept = cli.json(&["pull", "payment", "--wait", "--auto-ack"]);
    assert_eq!(super::texts(&kept), ["before", "after", "later", "not shown"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_a_topic_can_be_filtered() {
    let (_broker, cli) = shop().await;
    let tail = cli.start(&["tail", "--topic", "orders", "--filter", "attributes:paid", "--limit", "1"]);
    tail.says("reading");
    cli.ok(&["publish", "orders", "no"]);
    cli.ok(&["publish", "orders", "yes", "-a", "paid=1"]);
    let out = tail.end().out;
    assert!(out.ends_with("  {paid=1}  yes\n") && out.lines().count() == 1, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_a_subscription_acks_what_it_prints() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "a", "b", "c"]);
    let out = cli.ok(&["tail", "payment", "--limit", "2"]);
    let shown: Vec<&str> = out.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(shown, ["a", "b"]);
    assert_eq!(super::texts(&cli.json(&["pull", "payment", "--wait", "--auto-ack"])), ["c"]);
    assert_eq!(cli.json(&["pull", "payment"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_tail_with_success_and_leaves_nothing_behind() {
    let (_broker, cli) = shop().await;
    for signal in ["-INT", "-TERM"] {
        let tail = cli.start(&["tail", "--topic", "orders"]);
        tail.says("reading");
        assert_eq!(cli.json(&["subscription", "list"]).as_array().unwrap().len(), 2);
        tail.signal(signal);
        let answer = tail.end();
        assert_eq!(answer.code, Some(0), "{signal}: {answer:?}");
        nothing_is_left_behind(&cli);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_whose_reader_has_gone_ends_quietly_and_leaves_nothing_behind() {
    let (_broker, cli) = shop().await;
    let mut tail = cli.start(&["tail", "--topic", "orders"]);
    tail.says("reading");
    tail.stop_reading();
    cli.ok(&["publish", "orders", "tea"]);
    let answer = tail.end();
    assert_eq!((answer.code, answer.errors.as_str()), (Some(0), ""));
    nothing_is_left_behind(&cli);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_says_when_the_broker_goes() {
    let (broker, cli) = shop().await;
    let tail = cli.start(&["tail", "payment"]);
    tail.says("reading");
    broker.stop();
    broker.stopped().await;
    let answer = tail.end();
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.errors.contains("broker"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_what_is_not_there_fails() {
    let (_broker, cli) = shop().await;
    assert!(cli.fails(&["tail", "none"]).contains("subscription list"));
    assert!(cli.fails(&["tail", "--topic", "none"]).contains("topic list"));
    nothing_is_left_behind(&cli);
}
