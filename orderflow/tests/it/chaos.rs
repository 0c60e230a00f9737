//! Chaos has to find the books in order in a sound build, and to notice every promise that a broken build breaks.

use std::process::Output;

use fail_points::Fault;
use serde_json::Value;

use crate::harness::{output, program};

/// The seeds of these runs. A schedule is always the same, and what it meets in the processes is not: on a slow day a
/// kill may fall between two messages instead of into one, so that a fault gets more than one chance to show.
const SEEDS: [&str; 3] = ["156", "157", "158"];

async fn run(seed: &str, sabotage: Option<Fault>) -> (Output, Value) {
    let mut command = program();
    command.args(["chaos", "--seed", seed, "--duration", "8s", "--rate", "30", "--output", "json"]);
    command.env_remove("SABOTAGE").env_remove("FAIL_POINTS");
    if let Some(fault) = sabotage {
        command.env("SABOTAGE", fault.name());
    }
    let output = output(&mut command).await;
    let account = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, account)
}

/// A sabotaged build must be caught, and for a reason that has to do with what it breaks.
async fn is_caught(fault: Fault, reasons: &[&str]) {
    let mut found = Vec::new();
    for seed in SEEDS {
        let (output, account) = run(seed, Some(fault)).await;
        if output.status.success() {
            continue;
        }
        removes_what_it_kept(seed, &account);
        let wrong: Vec<&str> = account["wrong"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        if wrong.iter().any(|wrong| reasons.iter().any(|reason| wrong.contains(reason))) {
            return;
        }
        found.extend(wrong.into_iter().map(str::to_owned));
    }
    panic!("{} is not noticed, but {found:#?}", fault.name());
}

/// A bad verdict leaves everything where it is, for whoever wants to find out.
fn removes_what_it_kept(seed: &str, account: &Value) {
    let folder = account["folder"].as_str().unwrap();
    let again = format!("--seed {seed}");
    assert!(std::fs::exists(folder).unwrap() && account["command"].as_str().unwrap().contains(&again));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_sound_build_keeps_its_promises_through_chaos() {
    let (output, account) = run(SEEDS[0], None).await;
    assert!(output.status.success(), "{account:#}");
    assert_eq!((&account["wrong"], &account["folder"]), (&Value::Array(Vec::new()), &Value::Null));
    let count = |name: &str| account[name].as_u64().unwrap();
    assert!(count("accepted") > 20 && count("kills") >= 6 && count("poison") > 0, "{account:#}");
    assert!(count("discarded") >= 2 * count("poison"));
    assert!(account["sums"]["paid"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn an_outbox_that_forgets_before_it_publishes_is_caught() {
    is_caught(Fault::OutboxMarkedFirst, &["still waits for its", "was told 0 times", "was never told"]).await;
}

#[tokio::test]
async fn a_service_without_an_inbox_is_caught() {
    is_caught(Fault::NoInbox, &["notification(s) of"]).await;
}

#[tokio::test]
async fn a_consumer_that_acks_before_it_works_is_caught() {
    is_caught(Fault::AckBeforeCommit, &["still waits for its", "notification(s) of", "was not set aside"]).await;
}

#[tokio::test]
async fn a_broker_that_replies_before_it_writes_is_caught() {
    is_caught(Fault::BrokerRepliesFirst, &["still waits for its", "was told 0 times", "was never told"]).await;
}

#[tokio::test]
async fn a_broker_that_forgets_acks_is_caught() {
    is_caught(Fault::BrokerForgetsAcks, &["came again after its ack"]).await;
}

#[tokio::test]
async fn a_broker_that_ignores_ordering_keys_is_caught() {
    is_caught(Fault::BrokerIgnoresOrder, &["which was sent back", "of the same key"]).await;
}

#[tokio::test]
async fn a_schedule_can_be_seen_before_anything_happens() {
    let print = async || {
        let output = program().args(["chaos", "--seed", "7", "--print-schedule"]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let schedule = print().await;
    assert!(schedule.contains("broker is killed") && schedule.contains("dies at"), "{schedule}");
    assert_eq!(schedule, print().await);
}

#[tokio::test]
async fn a_process_refuses_fail_points_and_faults_that_it_does_not_know() {
    for (variable, value, names) in [
        ("FAIL_POINTS", "payment.charge=kill@1", "payment.charged"),
        ("FAIL_POINTS", "payment.charged=kill", "kill@3"),
        ("SABOTAGE", "no-outbox", "outbox-marked-first"),
    ] {
        for arguments in [["broker", "serve"].as_slice(), &["order-service"], &["acquirer"]] {
            let output = program().args(arguments).env(variable, value).output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(variable) && said.contains(names), "{said}");
        }
    }
}
