//! Chaos below the services: the books balance although what keeps them dies.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{output_within, program};

/// The run has ended by then: a stack starts, is hurt, comes to rest, and stops.
const DEADLINE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_books_balance_although_nats_servers_brokers_replicas_and_postgresql_die() {
    let mut command = program();
    command.args(["chaos", "--scale", "--seed", "3", "--duration", "8s", "--rate", "10", "--output", "json"]);
    let command = command.env_remove("SABOTAGE").env_remove("FAIL_POINTS");
    let output = output_within(DEADLINE, command).await;
    let account: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(output.status.success(), "{account:#}");
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let history = account["history"].as_array().unwrap().iter();
    let history: Vec<(String, String)> = history.map(|entry| (text(entry, "what"), text(entry, "ended"))).collect();
    for wanted in [
        "the NATS server that leads the journal is killed",
        "the broker that owns the journal is killed",
        "postgres is killed",
        "order-service-2 is killed",
    ] {
        // A fault that came when nobody could be hurt stands in the history as well.
        let is_done = |(what, ended): &(String, String)| what == wanted && !ended.contains("nobody could be hurt");
        assert!(history.iter().any(is_done), "{wanted} in {history:#?}");
    }
    assert!(account["kills"].as_u64().unwrap() >= 10, "{account:#}");
    assert!(account["command"].as_str().unwrap().ends_with("--scale"), "{account:#}");
    assert!(account["sums"]["paid"].as_u64().unwrap() > 0, "{account:#}");
}
