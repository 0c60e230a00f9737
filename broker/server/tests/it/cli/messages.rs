use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Cli, shop, texts};

fn pull(cli: &Cli, more: &[&str]) -> Value {
    cli.json(&[&["pull", "payment", "--wait"][..], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_pulled_with_attributes_and_key() {
    let (_broker, cli) = shop().await;
    let more = ["--attribute", "type=paid", "-a", "sum=1=2", "--ordering-key", "alice"];
    let ids = cli.json(&[&["publish", "orders", "tea"][..], &more].concat());
    let received = pull(&cli, &["--auto-ack"]);
    let message = &received[0]["message"];
    assert_eq!(message["messageId"], ids["messageIds"][0]);
    assert_eq!(message["attributes"], json!({ "type": "paid", "sum": "1=2" }));
    assert_eq!((&message["data"], &message["text"]), (&json!("dGVh"), &json!("tea")));
    assert_eq!(message["orderingKey"], "alice");
    assert!(message["publishTime"].as_str().unwrap().ends_with('Z'));

    let printed = cli.ok(&["publish", "orders", "one", "two"]);
    assert_eq!(printed.lines().count(), 2);
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["one", "two"]);
    cli.ok(&["publish", "orders", "--attribute", "only=this"]);
    assert_eq!(pull(&cli, &["--auto-ack"])[0]["message"]["attributes"], json!({ "only": "this" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_a_table_of_messages() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "black\ttea", "-a", "b=2", "-a", "a=1", "-k", "alice"]);
    let answer = cli.run_with_input(&["publish", "orders", "--file", "-"], &[0xff, 0x00]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let out = cli.ok(&["pull", "payment", "--wait", "--auto-ack", "--limit", "1"])
        + &cli.ok(&["pull", "payment", "--wait", "--auto-ack", "--limit", "1"]);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["MESSAGE-ID", "PUBLISHED", "ATTEMPT", "KEY", "ATTRIBUTES", "DATA"]);
    assert_eq!(rows[1][2..], ["-", "alice", "a=1,b=2", "black\\ttea"]);
    assert_eq!(rows[3][2..], ["-", "base64:/wA="]);
    let none = cli.run(&["pull", "payment"]);
    assert_eq!((none.code, none.out.as_str(), none.errors.as_str()), (Some(0), "", "no messages\n"));
    assert_eq!(cli.json(&["pull", "payment"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_read_whole_from_a_file_or_the_standard_input() {
    let (_broker, cli) = shop().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("order.txt");
    std::fs::write(&file, "from\na file\n").unwrap();
    cli.ok(&["publish", "orders", "--file", file.to_str().unwrap()]);
    for arguments in [["publish", "orders", "-"].as_slice(), &["publish", "orders", "--file", "-"]] {
        assert_eq!(cli.run_with_input(arguments, b"from\nstdin\n").code, Some(0));
    }
    let received = pull(&cli, &["--auto-ack"]);
    assert_eq!(texts(&received), ["from\na file\n", "from\nstdin\n", "from\nstdin\n"]);
    let errors = cli.fails(&["publish", "orders", "--file", "/none"]);
    assert!(errors.contains("`/none` can't be read"), "{errors}");
    let answer = cli.run_with_input(&["publish", "orders", "-"], &vec![b'x'; 10_000_001]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.errors.contains("more than 10000000 bytes"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_a_message_and_their_order_stays() {
    let (_broker, cli) = shop().await;
    let lines: Vec<String> = (0..2_500).map(|number| format!("line {number}")).collect();
    let input = lines.join("\n\r\n");
    let answer = cli.run_with_input(&["publish", "orders", "--lines", "--output", "json"], input.as_bytes());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let answers: Vec<Value> = answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: usize = answers.iter().map(|answer| answer["messageIds"].as_array().unwrap().len()).sum();
    assert_eq!(ids, lines.len());
    assert!(answers.len() < 1_000, "{} requests", answers.len());
    let received = pull(&cli, &["--auto-ack", "--limit", "2500"]);
    assert_eq!(texts(&received), lines);
    cli.ok(&["publish", "orders", "--lines", "a\n\nb\n"]);
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_be_published_is_named_with_what_went_before() {
    let (_broker, cli) = shop().await;
    let mut input = b"first\n\n".to_vec();
    input.extend(vec![b'x'; 10_000_001]);
    input.extend(b"\nlast\n");
    let answer = cli.run_with_input(&["publish", "orders", "--lines"], &input);
    assert_eq!(answer.code, Some(1));
    assert!(answer.errors.contains("1 messages are published; the first that is not: line 3"), "{answer:?}");
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_large_attributes_are_spread_over_requests() {
    let (_broker, cli) = shop().await;
    let value = format!("large={}", "x".repeat(1_000));
    let large: Vec<String> = (0..50).map(|number| format!("{number}{value}")).collect();
    let attributes = large.iter().flat_map(|attribute| ["-a", attribute.as_str()]);
    let arguments: Vec<&str> = ["publish", "orders", "--lines"].into_iter().chain(attributes).collect();
    let answer = cli.run_with_input(&arguments, "line\n".repeat(300).as_bytes());
    assert_eq!(answer.code, Some(0), "{}", answer.errors);
    assert_eq!(answer.out.lines().count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_message_is_acked_or_given_back_by_another_process() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "tea"]);
    let id = |received: &Value| received[0]["ackId"].as_str().unwrap().to_owned();
    let first = pull(&cli, &[]);
    assert_eq!(cli.json(&["pull", "payment"]), json!([]));
    assert_eq!(cli.ok(&["nack", "payment", &id(&first)]), "gave back 1\n");
    let again = pull(&cli, &[]);
    assert_eq!(again[0]["message"], first[0]["message"]);
    assert_eq!(cli.ok(&["ack", "payment", &id(&again)]), "acked 1\n");
    assert_eq!(cli.json(&["pull", "payment"]), json!([]));
    let errors = cli.fails(&["ack", "payment", "nonsense"]);
    assert!(errors.contains("nonsense"), "{errors}");

    cli.ok(&["publish", "orders", "pot"]);
    let table = cli.ok(&["pull", "payment", "--wait"]);
    let printed = table.lines().last().unwrap().trim();
    assert_eq!(cli.json(&["ack", "payment", printed]), json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_came_too_late_is_named_when_delivery_is_exactly_once() {
    let (_broker, cli) = shop().await;
    cli.ok(&["subscription", "update", "payment", "--exactly-once"]);
    cli.ok(&["publish", "orders", "tea"]);
    let received = pull(&cli, &[]);
    let id = received[0]["ackId"].as_str().unwrap();
    cli.ok(&["ack", "payment", id]);
    cli.ok(&["publish", "orders", "tea"]);
    let received = pull(&cli, &[]);
    let stale = received[0]["ackId"].as_str().unwrap();
    cli.ok(&["nack", "payment", stale]);
    let errors = cli.fails(&["ack", "payment", stale]);
    assert!(errors.contains(&format!("{stale}: PERMANENT_FAILURE_INVALID_ACK_ID")), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_seeks_to_its_start_its_end_a_time_and_a_snapshot() {
    let (_broker, cli) = shop().await;
    cli.ok(&["subscription", "update", "payment", "--retain-acked"]);
    cli.ok(&["publish", "orders", "a", "b"]);
    pull(&cli, &["--auto-ack"]);
    cli.ok(&["snapshot", "create", "before", "--subscription", "payment"]);
    cli.ok(&["publish", "orders", "c"]);
    assert_eq!(cli.ok(&["seek", "payment", "--to-start"]), "projects/p/subscriptions/payment is at its start\n");
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["a", "b", "c"]);
    cli.ok(&["seek", "payment", "--snapshot", "before"]);
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["c"]);
    assert_eq!(cli.json(&["seek", "payment", "--time", "1h"]), json!({}));
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["a", "b", "c"]);
    cli.ok(&["publish", "orders", "d"]);
    cli.ok(&["seek", "payment", "--to-end"]);
    assert_eq!(cli.json(&["pull", "payment"]), json!([]));
    cli.ok(&["publish", "orders", "e"]);
    assert_eq!(texts(&pull(&cli, &["--auto-ack"])), ["e"]);
    let errors = cli.fails(&["seek", "payment", "--snapshot", "none"]);
    assert!(errors.contains("broker snapshot list"), "{errors}");
}
