//! The simulated acquirer over HTTP.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use orderflow::acquirer::{Acquirer, AcquirerClient, Answer, ChargeStatus, ClientError, Config, Mode};
use serde_json::{Value, json};
use service_kit::{CancellationToken, LogFormat, ProcessConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const CALL_WITHIN: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) client: AcquirerClient,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(folder: &TempDir) -> Self {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            database_url: format!("sqlite://{}/acquirer.db", folder.path().display()),
            process: ProcessConfig {
                log: "error".into(),
                log_format: LogFormat::Text,
                grace_ms: 1_000,
                otlp_endpoint: None,
                metrics_listen: None,
            },
        };
        let acquirer = Acquirer::open(config).await.unwrap();
        let url = format!("http://{}", acquirer.address());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { acquirer.run(token).await.unwrap() });
        Self { client: AcquirerClient::new(&url, CALL_WITHIN), url, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    pub(crate) async fn charge(&self, key: &str, body: &Value) -> Result<Answer, ClientError> {
        self.client.call(Method::POST, "/v1/charges", &[("Idempotency-Key", key)], body.to_string()).await
    }

    pub(crate) async fn code(&self, method: Method, path: &str, body: &str) -> StatusCode {
        self.client.call(method, path, &[], body.to_owned()).await.unwrap().status
    }

    async fn ledger_len(&self) -> usize {
        self.client.ledger().await.unwrap().len()
    }
}

pub(crate) fn body(card: &str) -> Value {
    json!({"amount_minor": 1299, "currency": "EUR", "card": card, "reference": "order-1"})
}

pub(crate) fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

pub(crate) fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_charge_is_made_once_and_its_answer_survives_a_restart() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let first = acquirer.charge("key-1", &body("tok_visa")).await.unwrap();
    assert_eq!((first.status, replayed(&first)), (StatusCode::OK, false));
    let first = json_of(&first);
    assert_eq!(first["status"], "captured");
    assert!(first["id"].as_str().unwrap().starts_with("ch_"), "{first}");
    acquirer.stop().await;

    let acquirer = Running::start(&folder).await;
    let again = acquirer.charge("key-1", &body("tok_visa")).await.unwrap();
    assert_eq!((again.status, replayed(&again)), (StatusCode::OK, true));
    assert_eq!(json_of(&again), first);
    assert_eq!(acquirer.ledger_len().await, 1);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_decline_is_an_answer_that_is_kept() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let cards = [
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_stolen_card", "stolen_card"),
        ("tok_of_nobody", "unknown_card"),
    ];
    for (card, reason) in cards {
        for expect_replay in [false, true] {
            let reply = acquirer.charge(card, &body(card)).await.unwrap();
            assert_eq!((reply.status, replayed(&reply)), (StatusCode::PAYMENT_REQUIRED, expect_replay), "{card}");
            let reply = json_of(&reply);
            assert_eq!((&reply["status"], &reply["reason"]), (&json!("declined"), &json!(reason)));
        }
    }
    assert_eq!(acquirer.ledger_len().await, cards.len());
    acquirer.stop().await;
}

#[tokio::test]
async fn a_key_that_comes_with_another_body_is_refused_and_charges_nothing() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    acquirer.charge("key-1", &body("tok_visa")).await.unwrap();
    for (field, value) in [
        ("amount_minor", json!(1300)),
        ("currency", json!("USD")),
        ("card", json!("tok_slow")),
        ("reference", json!("order-2")),
    ] {
        let mut other = body("tok_visa");
        other[field] = value;
        let reply = acquirer.charge("key-1", &other).await.unwrap();
        assert_eq!(reply.status, StatusCode::CONFLICT, "{field}");
    }
    assert_eq!(acquirer.ledger_len().await, 1);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_malformed_charge_is_refused_and_charges_nothing() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    for (field, value) in [
        ("amount_minor", json!(0)),
        ("amount_minor", json!(-1)),
        ("amount_minor", json!("1299")),
        ("amount_minor", json!(i128::from(i64::MAX) + 1)),
        ("currency", json!("eur")),
        ("currency", json!("EURO")),
        ("card", json!("")),
        ("card", json!("x".repeat(65))),
        ("reference", json!("")),
        ("reference", json!("x".repeat(65))),
        ("reference", json!(null)),
        ("unknown", json!(1)),
    ] {
        let mut bad = body("tok_visa");
        bad[field] = value.clone();
        let reply = acquirer.charge("key-1", &bad).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{field}: {value}");
        assert!(json_of(&reply)["error"].is_string(), "{field}: {value}");
    }
    for key in ["", &"k".repeat(256)] {
        let reply = acquirer.charge(key, &body("tok_visa")).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "a key of {} bytes", key.len());
    }
    let good = body("tok_visa").to_string();
    assert_eq!(acquirer.code(Method::POST, "/v1/charges", &good).await, StatusCode::BAD_REQUEST, "without a key");
    let large = json!({"card": "x".repeat(20_000)});
    assert_eq!(acquirer.charge("key-1", &large).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(acquirer.ledger_len().await, 0);

    let at_the_limits =
        json!({"amount_minor": i64::MAX, "currency": "EUR", "card": "x".repeat(64), "reference": "r".repeat(64)});
    let reply = acquirer.charge(&"k".repeat(255), &at_the_limits).await.unwrap();
    assert_eq!(reply.status, StatusCode::PAYMENT_REQUIRED);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_lost_reply_is_found_again_under_its_key() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    // The connection is fresh, so the client has no reason to try again by itself.
    let lost = acquirer.charge("key-1", &body("tok_lost_reply")).await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(acquirer.ledger_len().await, 1, "it was charged all the same");
    let again = acquirer.charge("key-1", &body("tok_lost_reply")).await.unwrap();
    assert_eq!((again.status, replayed(&again)), (StatusCode::OK, true));
    assert_eq!(acquirer.ledger_len().await, 1);
    acquirer.stop().await;
}

#[tokio::test]
async fn many_requests_with_one_key_make_one_charge() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let acquirer = std::sync::Arc::new(acquirer);
    let mut charges = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let acquirer = std::sync::Arc::clone(&acquirer);
        charges.spawn(async move { acquirer.charge("key-1", &body("tok_visa")).await.unwrap() });
    }
    let mut ids = Vec::new();
    while let Some(reply) = charges.join_next().await {
        ids.push(json_of(&reply.unwrap())["id"].clone());
    }
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(acquirer.ledger_len().await, 1);
}

#[tokio::test]
async fn an_unavailable_acquirer_charges_nothing_and_recovers() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    acquirer.client.behave(Mode::Unavailable).await.unwrap();
    let reply = acquirer.charge("key-1", &body("tok_visa")).await.unwrap();
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(acquirer.ledger_len().await, 0);
    acquirer.client.behave(Mode::Normal).await.unwrap();
    let reply = acquirer.charge("key-1", &body("tok_visa")).await.unwrap();
    assert_eq!((reply.status, replayed(&reply)), (StatusCode::OK, false));
    assert_eq!(acquirer.code(Method::PUT, "/v1/behaviour", r#"{"mode":"wild"}"#).await, StatusCode::BAD_REQUEST);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_slow_card_is_answered_after_its_charge_is_in_the_ledger() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let impatient = AcquirerClient::new(&acquirer.url, Duration::from_millis(500));
    let headers = [("Idempotency-Key", "key-1")];
    let reply = impatient.call(Method::POST, "/v1/charges", &headers, body("tok_slow").to_string()).await;
    assert!(matches!(reply, Err(ClientError::TimedOut(_))), "{reply:?}");
    let again = acquirer.charge("key-1", &body("tok_slow")).await.unwrap();
    assert_eq!((again.status, replayed(&again)), (StatusCode::OK, true));
    acquirer.stop().await;
}

#[tokio::test]
async fn the_ledger_comes_in_pages_without_a_gap() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    for number in 1..=5 {
        acquirer.charge(&format!("key-{number}"), &body("tok_visa")).await.unwrap();
    }
    let mut numbers = Vec::new();
    loop {
        let after = numbers.last().copied().unwrap_or(0);
        let path = format!("/v1/charges?after={after}&limit=2");
        let page = json_of(&acquirer.client.call(Method::GET, &path, &[], String::new()).await.unwrap());
        let entries = page["entries"].as_array().unwrap();
        if entries.is_empty() {
            break;
        }
        assert!(entries.len() <= 2);
        numbers.extend(entries.iter().map(|entry| entry["number"].as_i64().unwrap()));
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    for query in ["limit=0", "limit=x", "after=x", "unknown=1"] {
        let code = acquirer.code(Method::GET, &format!("/v1/charges?{query}"), "").await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{query}");
    }
    let ledger = acquirer.client.ledger().await.unwrap();
    assert!(ledger.iter().all(|entry| entry.charge.status == ChargeStatus::Captured));
    acquirer.stop().await;
}
