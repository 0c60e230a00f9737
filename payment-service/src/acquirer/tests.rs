use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use service_kit::CancellationToken;
use tokio::net::TcpListener;

use super::*;
use crate::domain::{CardToken, CustomerId, Money};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// Long enough for an answer on a busy machine.
const AMPLE: Duration = Duration::from_secs(10);

const ORDER_ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

/// What the acquirer does with one request.
#[derive(Clone, Debug)]
enum Does {
    Answer(u16, String),
    /// Never answers.
    Hang,
    /// Promises a body and breaks off in the middle.
    BreakOff,
}

/// An acquirer that does what its script says, request by request; after its end it repeats the last line.
struct Scripted {
    url: String,
    seen: Seen,
}

/// Idempotency key and body of each request.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

type Shared = (Arc<Mutex<Vec<Does>>>, Seen);

impl Scripted {
    async fn start(script: Vec<Does>) -> Self {
        let (script, seen) = (Arc::new(Mutex::new(script)), Seen::default());
        let router = Router::new()
            .route("/v1/charges", post(charge))
            .route("/v1/cancellations", post(charge))
            .with_state((script, seen.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap().clone()
    }
}

async fn charge(State((script, seen)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let key = headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
    assert_eq!(headers["content-type"], "application/json");
    seen.lock().unwrap().push((key, serde_json::from_slice(&body).unwrap()));
    let does = {
        let mut script = script.lock().unwrap();
        if script.len() > 1 { script.remove(0) } else { script[0].clone() }
    };
    match does {
        Does::Answer(status, body) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Does::Hang => std::future::pending().await,
        Does::BreakOff => {
            let chunks = [Ok(Bytes::from_static(b"{\"id\"")), Err(std::io::Error::other("broken"))];
            Response::new(Body::from_stream(tokio_stream::iter(chunks)))
        }
    }
}

fn a_charge() -> Charge {
    Charge {
        order_id: ORDER_ID.parse().unwrap(),
        customer_id: CustomerId::parse("ada").unwrap(),
        amount: Money::new("EUR".parse().unwrap(), 1_299).unwrap(),
        card: CardToken::parse("tok_visa").unwrap(),
        attempt: 1,
    }
}

fn captured_body() -> Value {
    let amount = json!({"amount_minor": 1_299, "currency": "EUR", "reference": ORDER_ID});
    let mut body = json!({"id": "ch_1", "status": "captured"});
    body.as_object_mut().unwrap().extend(amount.as_object().unwrap().clone());
    body
}

fn with(field: &str, value: Value) -> String {
    let mut body = captured_body();
    body[field] = value;
    body.to_string()
}

fn captured() -> Does {
    Does::Answer(200, captured_body().to_string())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened in time")
}

#[tokio::test]
async fn a_charge_is_asked_for_as_the_protocol_says() {
    let acquirer = Scripted::start(vec![captured()]).await;
    // A slash at the end of the configured URL makes no difference.
    let http = HttpAcquirer::new(&format!("{}/", acquirer.url), AMPLE).unwrap();
    assert_eq!(http.charge(&a_charge()).await, Ok(Answer::Captured { charge_id: "ch_1".to_owned() }));
    let body = json!({"amount_minor": 1_299, "currency": "EUR", "card": "tok_visa", "reference": ORDER_ID});
    assert_eq!(acquirer.seen(), [(ORDER_ID.to_owned(), body)]);
}

#[tokio::test]
async fn answers_outages_and_refusals_are_told_apart() {
    #[derive(Debug, PartialEq)]
    enum Is {
        Captured,
        Declined(&'static str),
        Cancelled,
        Unavailable,
        Refused,
    }
    let declined = |reason: &str| Does::Answer(402, json!({"status": "declined", "reason": reason}).to_string());
    let table = [
        (captured(), Is::Captured),
        (declined("insufficient_funds"), Is::Declined("insufficient_funds")),
        (declined("cancelled"), Is::Cancelled),
        (Does::Answer(200, with("status", json!("refunded"))), Is::Cancelled),
        (Does::Answer(200, with("status", json!("voided"))), Is::Cancelled),
        (Does::Answer(200, with("status", json!("authorised"))), Is::Refused),
        (Does::Answer(200, with("status", json!("eaten"))), Is::Refused),
        (declined("a\nb"), Is::Declined("ab")),
        (declined(""), Is::Declined("declined")),
        (Does::Answer(429, String::new()), Is::Unavailable),
        (Does::Answer(408, String::new()), Is::Unavailable),
        (Does::Answer(500, "<html>".to_owned()), Is::Unavailable),
        (Does::Answer(503, String::new()), Is::Unavailable),
        (Does::BreakOff, Is::Unavailable),
        (Does::Answer(400, r#"{"error":"malformed"}"#.to_owned()), Is::Refused),
        (Does::Answer(404, String::new()), Is::Refused),
        (Does::Answer(409, String::new()), Is::Refused),
        (Does::Answer(307, String::new()), Is::Refused),
        (Does::Answer(200, String::new()), Is::Refused),
        (Does::Answer(200, "{}".to_owned()), Is::Refused),
        (Does::Answer(402, "{}".to_owned()), Is::Refused),
        (Does::Answer(200, with("amount_minor", json!(1_298))), Is::Refused),
        (Does::Answer(200, with("currency", json!("USD"))), Is::Refused),
        (Does::Answer(200, with("reference", json!("another order"))), Is::Refused),
        (Does::Answer(200, with("id", json!(""))), Is::Refused),
        (Does::Answer(200, with("id", json!("c".repeat(257)))), Is::Refused),
        (Does::Answer(200, with("padding", json!("p".repeat(64 * 1024)))), Is::Refused),
    ];
    for (does, expected) in table {
        let acquirer = Scripted::start(vec![does.clone()]).await;
        let http = HttpAcquirer::new(&acquirer.url, AMPLE).unwrap();
        let result = within(http.charge(&a_charge())).await;
        let is = match &result {
            Ok(Answer::Captured { .. }) => Is::Captured,
            Ok(Answer::Cancelled) => Is::Cancelled,
            Ok(Answer::Declined { reason }) => Is::Declined(reason.clone().leak()),
            Err(Failure::Unavailable(_)) => Is::Unavailable,
            Err(Failure::Refused(_)) => Is::Refused,
        };
        assert_eq!(is, expected, "{does:?} gave {result:?}");
        assert_eq!(acquirer.seen().len(), 1);
    }
}

#[tokio::test]
async fn nobody_there_and_no_answer_in_time_are_outages() {
    let hanging = Scripted::start(vec![Does::Hang]).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, limit) in [(hanging.url, Duration::from_millis(50)), (format!("http://{free}"), AMPLE)] {
        let http = HttpAcquirer::new(&url, limit).unwrap();
        let result = within(http.charge(&a_charge())).await;
        assert!(matches!(result, Err(Failure::Unavailable(_))), "{result:?}");
    }
}

fn refunded(field: &str, value: Value) -> Does {
    let mut charge = captured_body();
    charge["refund_id"] = json!("re_1");
    charge[field] = value;
    Does::Answer(200, json!({"outcome": "refunded", "charge": charge}).to_string())
}

#[tokio::test]
async fn the_answers_to_a_cancellation_are_told_apart() {
    let outcome = |outcome: &str| Does::Answer(200, json!({"outcome": outcome}).to_string());
    let back = CancelAnswer::Refunded {
        charge_id: "ch_1".to_owned(),
        refund_id: "re_1".to_owned(),
        amount: a_charge().amount,
    };
    let table = [
        (outcome("blocked"), Ok(Some(CancelAnswer::NothingTaken))),
        (outcome("declined"), Ok(Some(CancelAnswer::NothingTaken))),
        (outcome("voided"), Ok(Some(CancelAnswer::NothingTaken))),
        (refunded("status", json!("refunded")), Ok(Some(back))),
        (outcome("refunded"), Err("refused")),
        (outcome("eaten"), Err("refused")),
        (refunded("reference", json!("another order")), Err("refused")),
        (refunded("refund_id", json!("")), Err("refused")),
        (refunded("amount_minor", json!(0)), Err("refused")),
        (Does::Answer(404, String::new()), Err("refused")),
        (Does::Answer(503, String::new()), Err("unavailable")),
        (Does::BreakOff, Err("unavailable")),
    ];
    for (does, expected) in table {
        let acquirer = Scripted::start(vec![does.clone()]).await;
        let http = HttpAcquirer::new(&acquirer.url, AMPLE).unwrap();
        let key = ChargeKey { attempt: 2, ..a_charge().key() };
        let result = within(http.cancel(key)).await.map(Some).map_err(|failure| match failure {
            Failure::Refused(_) => "refused",
            Failure::Unavailable(_) => "unavailable",
        });
        assert_eq!(result, expected, "{does:?}");
        assert_eq!(acquirer.seen(), [(String::new(), json!({"idempotency_key": format!("{ORDER_ID}/2")}))]);
    }
}

fn patiently(stopping: &CancellationToken) -> Asking<'_> {
    Asking { stopping: Some(stopping), failures: 0 }
}

#[tokio::test]
async fn a_charge_outlasts_an_outage_with_one_and_the_same_key() {
    let down = || Does::Answer(503, String::new());
    let acquirer = Scripted::start(vec![down(), Does::BreakOff, down(), captured()]).await;
    let patient = PatientAcquirer::new(&acquirer.url, AMPLE).unwrap();
    let (stopping, charge) = (CancellationToken::new(), a_charge());
    for _ in 0..3 {
        let answer = within(patient.charge(&charge, patiently(&stopping))).await;
        assert!(matches!(answer, Err(NoAnswer::Unavailable { asked: true, .. })), "{answer:?}");
    }
    let answer = within(patient.charge(&charge, patiently(&stopping))).await;
    assert_eq!(answer, Ok(Answer::Captured { charge_id: "ch_1".to_owned() }));
    let seen = acquirer.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|request| request == &seen[0]));
}

#[tokio::test]
async fn who_cannot_wait_is_not_kept_waiting_by_an_outage() {
    let acquirer = Scripted::start(vec![Does::Answer(503, String::new())]).await;
    let patient = PatientAcquirer::new(&acquirer.url, AMPLE).unwrap();
    let at_once = Asking { stopping: None, failures: 0 };
    let mut asked = 0;
    // The breaker opens, and then nobody is asked.
    while patient.charge(&a_charge(), at_once).await != not_asked() {
        asked += 1;
        assert!(asked <= Settings::default().failures_to_open);
    }
    assert!(!patient.answers());
    assert_eq!(patient.cancel(a_charge().key(), at_once).await.err(), not_asked().err());
}

fn not_asked() -> Result<Answer, NoAnswer> {
    Err(NoAnswer::Unavailable { reason: "it did not answer before".to_owned(), asked: false })
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_keeps_the_breaker_closed() {
    let acquirer = Scripted::start(vec![Does::Answer(409, String::new())]).await;
    let patient = PatientAcquirer::new(&acquirer.url, AMPLE).unwrap();
    for _ in 0..=Settings::default().failures_to_open {
        let answer = within(patient.charge(&a_charge(), patiently(&CancellationToken::new()))).await;
        assert!(matches!(answer, Err(NoAnswer::Refused(reason)) if reason.contains("409")));
    }
    assert!(patient.answers());
}

#[tokio::test]
async fn a_stopping_service_waits_for_no_outage() {
    let acquirer = Scripted::start(vec![Does::Answer(503, String::new())]).await;
    let patient = PatientAcquirer::new(&acquirer.url, AMPLE).unwrap();
    let stopping = CancellationToken::new();
    stopping.cancel();
    let answer = within(patient.charge(&a_charge(), patiently(&stopping))).await;
    assert_eq!(answer, Err(NoAnswer::Interrupted));
    assert_eq!(acquirer.seen().len(), 0);
}
