//! `orderflow compare`: the lesson of the project, in a few seconds.

use serde_json::Value;
use tempfile::tempdir;

use crate::harness::{output, program};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_sales_without_a_queue_and_none_with_it() {
    let folder = tempdir().unwrap();
    let report = folder.path().join("compare.html");
    let flags = ["--before", "1s", "--outage", "2s", "--after", "1s", "--rate", "20", "--output", "json", "--report"];
    let ended = output(program().arg("compare").args(flags).arg(&report)).await;
    assert!(ended.status.success(), "{ended:?}");
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let [synchronous, asynchronous] = [&told["outcomes"][0], &told["outcomes"][1]];
    assert_eq!((&synchronous["mode"], &asynchronous["mode"]), (&"synchronous".into(), &"asynchronous".into()));

    let refused = synchronous["phases"][1]["refused"].as_u64().unwrap();
    assert!(refused > 0, "without a queue nobody can buy while payment is away: {told:#}");
    assert!(synchronous["lost"]["orders"].as_u64().unwrap() >= refused);
    assert!(synchronous["lost"]["eur_minor"].as_i64().unwrap() > 0);
    for phase in asynchronous["phases"].as_array().unwrap() {
        assert_eq!(phase["accepted"], phase["offered"], "{told:#}");
    }
    assert_eq!(asynchronous["lost"]["orders"], 0);
    assert!(asynchronous["waited"].as_u64().unwrap() > 0, "{told:#}");
    let offered = |outcome: &Value| -> u64 {
        outcome["phases"].as_array().unwrap().iter().map(|phase| phase["offered"].as_u64().unwrap()).sum()
    };
    assert_eq!(offered(synchronous), offered(asynchronous), "both runs get the same orders");
    assert_eq!(asynchronous["sums"]["paid"], offered(asynchronous));
    assert!(told["balanced"].as_bool().unwrap() && told["sentences"].as_array().unwrap().len() == 3);

    let page = std::fs::read_to_string(&report).unwrap();
    for sentence in told["sentences"].as_array().unwrap() {
        assert!(page.contains(sentence.as_str().unwrap()), "{sentence}");
    }
}
