//! Chaos below the services: the books balance although what keeps them dies.

use serde_json::Value;

use crate::harness::{output, program};

#[tokio::test]
async fn the_books_balance_although_nats_servers_brokers_replicas_and_postgresql_die() {
    let mut command = program();
    command.args(["chaos", "--scale", "--seed", "3", "--duration", "8s", "--rate", "10", "--output", "json"]);
    let output = output(command.env_remove("SABOTAGE").env_remove("FAIL_POINTS")).await;
    let account: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(output.status.success(), "{account:#}");
    let history = account["history"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap());
    let history: Vec<&str> = history.collect();
    for what in
        ["the NATS server that leads", "the broker that owns", "postgres is killed", "order-service-2 is killed"]
    {
        assert!(history.iter().any(|entry| entry.contains(what)), "{what} in {history:#?}");
    }
    assert!(account["kills"].as_u64().unwrap() >= 10, "{account:#}");
    assert!(account["command"].as_str().unwrap().ends_with("--scale"), "{account:#}");
    assert!(account["sums"]["paid"].as_u64().unwrap() > 0, "{account:#}");
}
