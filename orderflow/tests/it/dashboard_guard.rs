//! `orderflow dashboard`: the page of a stack that others run, or of none; and who is kept out of it.

use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode};
use orderflow::Part;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::dashboard::{Events, Page, subscriptions};
use crate::harness::{DEADLINE, Stack, collect, eventually, free_ports, output, program, signal_process, up};

/// A dashboard that runs no processes of its own.
struct Dashboard {
    child: Child,
    page: Page,
}

impl Dashboard {
    /// Shows the stack of a folder.
    async fn start(flags: &[&str]) -> Self {
        let mut command = program();
        command.args(["dashboard", "--listen", "127.0.0.1:0"]).args(flags).env("NO_COLOR", "1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        let mut address = None;
        eventually("the page says where it is", || {
            let said = output.lock().unwrap();
            address = said.iter().find_map(|line: &String| line.split_once("address=")?.1.trim().parse().ok());
            address.is_some()
        })
        .await;
        Self { child, page: Page::new(address.unwrap()) }
    }

    /// Asks it to end, and waits.
    async fn stop(mut self) {
        signal_process(self.child.id().unwrap(), Signal::TERM);
        let status = time::timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Addresses at which nobody is.
fn nobody() -> Vec<String> {
    let url = |(flag, port)| [format!("--{flag}"), format!("http://127.0.0.1:{port}")];
    let flags = ["broker", "acquirer", "order-service", "payment-service", "notification-service", "invoice-worker"];
    flags.into_iter().zip(free_ports()).flat_map(url).collect()
}

async fn alone() -> Dashboard {
    with_parts(nobody()).await
}

async fn with_parts(mut flags: Vec<String>) -> Dashboard {
    let folder = TempDir::new().unwrap();
    flags.extend(["--data-dir".into(), folder.path().display().to_string(), "--commands".into(), "compose".into()]);
    Dashboard::start(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_somebody_elses_stack_gives_commands_and_does_the_rest() {
    let stack = Stack::start().await;
    let dashboard = Dashboard::start(&["--data-dir", stack.folder().to_str().unwrap(), "--commands", "compose"]).await;
    let page = &dashboard.page;
    let state = page.state("the broker is reached", |state| state["broker"]["reached"] == true).await;
    assert_eq!(state["owns_processes"], false);
    let (status, refused) = page.send(Method::POST, "/api/parts/payment-service/kill", json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(refused["error"].as_str().unwrap().contains("docker-compose kill payment-service"), "{refused}");

    let behaviour = json!({ "mode": "slow", "percent": 5 });
    assert_eq!(page.send(Method::PUT, "/api/acquirer", behaviour.clone()).await, (StatusCode::OK, behaviour.clone()));
    // What was asked for before may still come in behind the answer, and is corrected by the next look.
    page.state("the acquirer is slow", |state| state["acquirer"] == behaviour).await;
    page.send(Method::PUT, "/api/acquirer", json!({ "mode": "normal" })).await;

    a_declined_order_is_tried_again_and_cancelled(page).await;
    a_load_runs_until_it_is_ended(page).await;
    a_poisoned_message_is_seen_and_discarded(page).await;

    assert!(subscriptions(&stack).await.iter().any(|name| name.contains("/dashboard-")), "the page listens");
    dashboard.stop().await;
    let left = subscriptions(&stack).await;
    assert!(left.iter().all(|name| !name.contains("/dashboard-")), "{left:?}");
}

async fn a_declined_order_is_tried_again_and_cancelled(page: &Page) {
    let bad_card = json!({ "customer": "dave", "card": "tok_insufficient_funds" });
    let (status, placed) = page.send(Method::POST, "/api/orders", bad_card).await;
    assert_eq!(status, StatusCode::OK, "{placed}");
    let id = placed["order_ids"][0].as_str().unwrap();
    is_soon(page, id, "ORDER_STATUS_PAYMENT_DECLINED").await;
    let (status, order) =
        page.send(Method::POST, &format!("/api/orders/{id}/retry"), json!({ "card": "tok_visa" })).await;
    assert_eq!((status, &order["order"]["paymentAttempt"]), (StatusCode::OK, &json!(2)), "{order}");
    is_soon(page, id, "ORDER_STATUS_PAID").await;
    let (status, refused) = page.send(Method::POST, &format!("/api/orders/{id}/retry"), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    let (status, order) = page.send(Method::POST, &format!("/api/orders/{id}/cancel"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{order}");
    is_soon(page, id, "ORDER_STATUS_REFUNDED").await;
    let (status, refused) = page.send(Method::POST, "/api/orders", json!({ "count": 3, "customer": "" })).await;
    assert_eq!((status, &refused["refused"]), (StatusCode::OK, &json!(3)));
    assert!(refused["error"].as_str().unwrap().contains("customer_id"), "{refused}");
}

async fn is_soon(page: &Page, order: &str, wanted: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let order = page.get(&format!("/api/orders/{order}")).await;
        if order["order"]["status"] == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted}: {order:#}");
        time::sleep(time::Duration::from_millis(50)).await;
    }
}

async fn a_load_runs_until_it_is_ended(page: &Page) {
    let (status, load) = page.send(Method::PUT, "/api/load", json!({ "rate_per_s": 50, "mix": "paid=1" })).await;
    assert_eq!((status, &load["load"]["mix"]), (StatusCode::OK, &json!("paid=1")), "{load}");
    let state = page.state("ten are accepted", |state| state["load"]["accepted"].as_u64() >= Some(10)).await;
    let started = state["load"]["started_ms"].clone();
    let (_, changed) = page.send(Method::PUT, "/api/load", json!({ "rate_per_s": 20, "mix": null })).await;
    assert!(changed["load"]["accepted"].as_u64() >= Some(10) && changed["load"]["started_ms"] == started, "{changed}");
    let (status, _) = page.send(Method::DELETE, "/api/load", json!({})).await;
    assert_eq!((status, &page.get("/api/state").await["load"]), (StatusCode::OK, &Value::Null));
    page.state("all reach their end", |state| state["books"]["status"] == "balanced").await;
}

async fn a_poisoned_message_is_seen_and_discarded(page: &Page) {
    let (status, poison) = page.send(Method::POST, "/api/poison", json!({})).await;
    assert!(status == StatusCode::OK && poison["message_id"].is_string(), "{poison}");
    // Both consumers of the topic set it aside.
    page.state("two letters", |state| state["dead_letters"] == 2).await;
    page.state("the books are wrong", |state| state["books"]["status"] == "wrong").await;
    let letters = page.get("/api/dead-letters").await;
    let of_payment = |letter: &&Value| letter["source_subscription"] == "payment-service.order-events";
    let letter = letters["letters"].as_array().unwrap().iter().find(of_payment).unwrap();
    assert_eq!(
        (&letter["payload"], &letter["kind"]),
        (&json!("not an event"), &json!("orderflow.events.v1.OrderPlaced"))
    );
    assert!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()) && letter["published_ms"].is_i64());
    let (status, sent) = page.send(Method::POST, "/api/dead-letters/redrive", json!({ "ids": [letter["id"]] })).await;
    assert_eq!((status, &sent["redriven"]), (StatusCode::OK, &json!(1)), "{sent}");
    // It is as bad as it was, and comes back under another id.
    let deadline = Instant::now() + DEADLINE;
    let ids = loop {
        let letters = page.get("/api/dead-letters").await;
        let ids: Vec<_> = letters["letters"].as_array().unwrap().iter().map(|letter| letter["id"].clone()).collect();
        if ids.len() == 2 && !ids.contains(&letter["id"]) {
            break ids;
        }
        assert!(Instant::now() < deadline, "{letters:#}");
    };
    let (status, discarded) = page.send(Method::POST, "/api/dead-letters/discard", json!({ "ids": ids })).await;
    assert_eq!((status, &discarded["discarded"]), (StatusCode::OK, &json!(2)), "{discarded}");
    page.state("nothing is left to mend", |state| state["dead_letters"] == 0 && state["books"]["status"] == "balanced")
        .await;
    let (status, gone) = page.send(Method::POST, "/api/dead-letters/discard", json!({ "ids": [letter["id"]] })).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_and_bad_requests_are_refused() {
    let dashboard = alone().await;
    let page = &dashboard.page;
    let ours = ("x-orderflow", "page");
    let host = page.address.to_string();
    for (headers, status) in [
        (vec![], StatusCode::FORBIDDEN),
        (vec![ours, ("host", "evil.example")], StatusCode::FORBIDDEN),
        (vec![ours, ("origin", "http://evil.example")], StatusCode::FORBIDDEN),
        (vec![ours, ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (vec![ours, ("origin", &*format!("http://{host}"))], StatusCode::OK),
    ] {
        let answer = page.answer(Method::DELETE, "/api/load", &headers, "").await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    let named = page.answer(Method::GET, "/api/state", &[("host", "evil.example")], "").await;
    assert_eq!(named.status, StatusCode::FORBIDDEN);
    for (method, path, body, status) in [
        (Method::POST, "/api/orders", "{", StatusCode::BAD_REQUEST),
        (Method::POST, "/api/orders", r#"{"count":0}"#, StatusCode::BAD_REQUEST),
        (Method::POST, "/api/orders", r#"{"count":1001}"#, StatusCode::BAD_REQUEST),
        (Method::POST, "/api/orders", r#"{"cuont":1}"#, StatusCode::BAD_REQUEST),
        (Method::POST, "/api/orders", r#"{"count":2}"#, StatusCode::OK),
        (Method::PUT, "/api/load", r#"{"rate_per_s":0}"#, StatusCode::BAD_REQUEST),
        (Method::PUT, "/api/load", r#"{"rate_per_s":1,"mix":"good=1"}"#, StatusCode::BAD_REQUEST),
        (Method::PUT, "/api/acquirer", r#"{"mode":"angry"}"#, StatusCode::BAD_REQUEST),
        (Method::PUT, "/api/acquirer", r#"{"mode":"slow","percent":101}"#, StatusCode::BAD_REQUEST),
        (Method::PUT, "/api/acquirer", r#"{"mode":"slow"}"#, StatusCode::BAD_GATEWAY),
        (Method::POST, "/api/parts/nobody/kill", "{}", StatusCode::NOT_FOUND),
        (Method::POST, "/api/parts/broker/praise", "{}", StatusCode::NOT_FOUND),
        (Method::POST, "/api/dead-letters/redrive", r#"{"ids":[]}"#, StatusCode::BAD_REQUEST),
        (Method::POST, "/api/poison", "{}", StatusCode::BAD_GATEWAY),
        (Method::GET, "/api/orders/1", "", StatusCode::BAD_GATEWAY),
        (Method::GET, "/api/orders?status=lost", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/api/nothing", "", StatusCode::NOT_FOUND),
        (Method::GET, "/assets/nothing.js", "", StatusCode::NOT_FOUND),
        (Method::DELETE, "/api/state", "", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/api/orders", &*"x".repeat(66_000), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = page.answer(method, path, &[ours], body).await;
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        let path = format!("{path} {}: {told}", body.get(..40).unwrap_or(body));
        assert_eq!(
            (answer.status, told["error"].is_string()),
            (status, status != StatusCode::OK || told["refused"] == 2),
            "{path}"
        );
    }
    let index = page.answer(Method::GET, "/", &[], "").await;
    let policy = index.headers["content-security-policy"].to_str().unwrap();
    assert!(index.status == StatusCode::OK && policy.starts_with("default-src 'none'"), "{policy}");
    dashboard.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_never_answers_is_given_up_and_too_many_requests_are_refused() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut parts = nobody();
    let order_service = parts.iter().position(|flag| flag == "--order-service").unwrap();
    parts[order_service + 1] = url;
    let dashboard = with_parts(parts).await;
    let page = Arc::new(Page::new(dashboard.page.address));
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let page = Arc::clone(&page);
        requests.spawn(async move { page.answer(Method::GET, "/api/orders", &[], "").await.status });
    }
    let answers = requests.join_all().await;
    let count = |status: StatusCode| answers.iter().filter(|answer| **answer == status).count();
    let (given_up, refused) = (count(StatusCode::BAD_GATEWAY), count(StatusCode::SERVICE_UNAVAILABLE));
    assert!(given_up >= 64 && refused > 0 && given_up + refused == answers.len(), "{answers:?}");
    dashboard.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_leave_the_page_standing() {
    const CONNECTIONS_MAX: usize = 256;
    let dashboard = alone().await;
    // They are accepted in the order in which they come.
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(TcpStream::connect(dashboard.page.address).await.unwrap());
    }
    let mut beyond = TcpStream::connect(dashboard.page.address).await.unwrap();
    let mut said = [0; 12];
    time::timeout(DEADLINE, beyond.read_exact(&mut said)).await.expect("it is refused at once").unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 503");
    drop(open);
    let deadline = Instant::now() + DEADLINE;
    let page = &dashboard.page;
    while page.answer(Method::GET, "/healthz", &[], "").await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "the page is served again");
    }
    dashboard.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_a_stack_shows_what_it_does_not_know_and_replays_what_was_missed() {
    let dashboard = alone().await;
    let page = &dashboard.page;
    let (mut events, status) = Events::open(page, "").await;
    assert!(status.contains("200"), "{status}");
    let state = events.next("state").await.unwrap();
    assert_eq!((&state["broker"]["reached"], &state["dead_letters"]), (&json!(false), &Value::Null), "{state:#}");
    assert_eq!((&state["books"]["status"], &state["acquirer"]), (&json!("unknown"), &Value::Null));
    assert!(state["parts"].as_array().unwrap().iter().all(|part| part["alive"] == false), "{state:#}");
    let first = events.next("sample").await.unwrap()["time_ms"].as_i64().unwrap();
    let second = events.next("sample").await.unwrap()["time_ms"].as_i64().unwrap();
    assert_eq!(second, first + 1_000, "one for each second");

    let missed = page.get("/api/history").await["samples"].as_array().unwrap().len();
    let oldest = page.get("/api/history").await["samples"][0]["time_ms"].as_i64().unwrap();
    let (mut again, _) = Events::open(page, &format!("Last-Event-ID: {oldest}\r\n")).await;
    for number in 1..missed {
        let time_ms = again.next("sample").await.unwrap()["time_ms"].as_i64().unwrap();
        assert_eq!(time_ms, oldest + 1_000 * i64::try_from(number).unwrap());
    }

    let mut open = vec![events, again];
    let refused = loop {
        let (events, status) = Events::open(page, "").await;
        open.push(events);
        if !status.contains("200") || open.len() > 100 {
            break status;
        }
    };
    assert!(refused.contains("503") && open.len() == 33, "{refused} after {} streams", open.len());
    page.get("/api/state").await;
    // Whoever goes away makes room, as soon as the server has noticed it.
    open.truncate(31);
    let deadline = Instant::now() + DEADLINE;
    while !Events::open(page, "").await.1.contains("200") {
        assert!(Instant::now() < deadline, "a place becomes free");
    }
    // Open streams do not keep it from ending.
    dashboard.stop().await;
}

#[tokio::test]
async fn a_page_that_can_kill_is_served_on_a_free_loopback_address_or_not_at_all() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for (listen, why) in [
        (taken.local_addr().unwrap().to_string(), "in use"),
        ("0.0.0.0:0".to_owned(), "loopback"),
        ("[::]:0".to_owned(), "loopback"),
        ("nowhere".to_owned(), "neither an address nor `off`"),
    ] {
        let folder = TempDir::new().unwrap();
        let ports = Part::ALL.into_iter().zip(free_ports()).collect();
        let Output { status, stderr, .. } =
            output(up(folder.path(), &ports).args(["--dashboard-listen", &listen])).await;
        let said = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && said.contains(why) && said.contains("--dashboard-listen"), "{listen}: {said}");
        let logs = folder.path().join("logs");
        assert!(!logs.exists() || logs.read_dir().unwrap().count() == 0, "nothing may have started");
    }
}
