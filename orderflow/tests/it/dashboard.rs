//! The page's server: what it shows of a real stack, and what it does to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use orderflow::Part;
use orderflow::acquirer::{AcquirerClient, Answer};
use orderflow_proto::google::pubsub::v1::ListSubscriptionsRequest;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{self, Instant};
use tonic::transport::Endpoint;

use crate::harness::{DEADLINE, Stack};

const POLL: Duration = Duration::from_millis(50);
const PAYMENT_QUEUE: &str = "payment-service.order-events";

/// A page, as its script asks for it.
pub(crate) struct Page {
    pub(crate) address: SocketAddr,
    client: AcquirerClient,
}

impl Page {
    pub(crate) fn new(address: SocketAddr) -> Self {
        // A client for any HTTP server, in truth.
        Self { address, client: AcquirerClient::new(&format!("http://{address}"), DEADLINE) }
    }

    /// The page of a stack that serves one.
    fn of(stack: &Stack) -> Self {
        let said = stack.output();
        let address = said.iter().find_map(|line| line.split_once("http://")?.1.trim().parse().ok());
        Self::new(address.unwrap_or_else(|| panic!("the welcome names the page: {said:#?}")))
    }

    pub(crate) async fn answer(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.client.call(method, path, headers, body.to_owned()).await.unwrap()
    }

    /// Reads something that must be there.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.answer(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Changes something, as the page's script does.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.answer(method, path, &[("x-orderflow", "page")], &body.to_string()).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// Changes something that can be changed.
    async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Waits until the state is as wanted, and gives it.
    pub(crate) async fn state(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let state = self.get("/api/state").await;
            if wanted(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "{what}: {state:#}");
            time::sleep(POLL).await;
        }
    }
}

/// An open stream of events.
pub(crate) struct Events {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _open: OwnedWriteHalf,
}

impl Events {
    /// Opens one, and gives the first line of the answer.
    pub(crate) async fn open(page: &Page, headers: &str) -> (Self, String) {
        let (reader, mut writer) = TcpStream::connect(page.address).await.unwrap().into_split();
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", page.address);
        writer.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { lines: BufReader::new(reader).lines(), _open: writer };
        let status = events.line().await.unwrap();
        (events, status)
    }

    async fn line(&mut self) -> Option<String> {
        time::timeout(DEADLINE, self.lines.next_line()).await.expect("a line in time").unwrap()
    }

    /// The data of the next event of this name; nothing when the stream has ended.
    pub(crate) async fn next(&mut self, name: &str) -> Option<Value> {
        while self.line().await? != format!("event: {name}") {}
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

fn part<'a>(state: &'a Value, name: &str) -> &'a Value {
    state["parts"].as_array().unwrap().iter().find(|part| part["part"] == name).unwrap()
}

fn queue<'a>(state: &'a Value, name: &str) -> &'a Value {
    let found = state["queues"].as_array().unwrap().iter().find(|queue| queue["id"] == name);
    found.unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_made_seen_and_mended_on_the_page() {
    let mut stack = Stack::start_with(&["--dashboard-listen", "127.0.0.1:0"]).await;
    let page = Page::of(&stack);
    let healthy = |state: &Value| state["parts"].as_array().unwrap().iter().all(|part| part["healthy"] == true);
    let state = page.state("everything is healthy", healthy).await;
    assert_eq!((&state["owns_processes"], &state["acquirer"]["mode"]), (&json!(true), &json!("normal")));
    let command = part(&state, "payment-service")["commands"]["kill"].as_str().unwrap();
    assert!(command.contains("kill payment-service --data-dir"), "{command}");

    // Its port is one that only the running stack can tell.
    stack.succeed(&["health", "dashboard"]).await;
    // Its subscription begins to remember when it is made: events before that are not told.
    the_page_listens(&stack).await;
    let placed = page.done(Method::POST, "/api/orders", json!({ "count": 5, "customer": "carol" })).await;
    assert_eq!((&placed["accepted"], &placed["refused"]), (&json!(5), &json!(0)), "{placed}");
    let state = page.state("five are paid", |state| state["orders"]["paid"] == 5).await;
    assert_eq!(state["orders"]["accepted"], 5, "{state:#}");

    let killed = page.done(Method::POST, "/api/parts/payment-service/kill", json!({})).await;
    assert!(killed["message"].as_str().unwrap().contains("was killed"), "{killed}");
    let (status, again) = page.send(Method::POST, "/api/parts/payment-service/kill", json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");
    page.done(Method::POST, "/api/orders", json!({ "count": 20, "customer": "carol" })).await;
    // Acks travel in batches: those of the first five may have died with the service.
    let waits =
        |state: &Value| (20..=25).contains(&queue(state, PAYMENT_QUEUE)["backlog"].as_u64().unwrap_or_default());
    let state = page.state("twenty wait", waits).await;
    let dead = part(&state, "payment-service");
    assert_eq!((&dead["alive"], &dead["healthy"], &dead["pid"]), (&json!(false), &json!(false), &Value::Null));
    let headline = &state["headline"];
    assert_eq!((&headline["tone"], &headline["target"]), (&json!("behind"), &json!("flow")), "{headline}");
    assert!(headline["words"].as_str().unwrap().starts_with("payment-service is down; 2"), "{headline}");
    let unknown = |state: &Value| state["books"]["status"] == "unknown" && state["books"]["error"].is_string();
    page.state("books that can't be read are unknown", unknown).await;

    page.done(Method::POST, "/api/parts/payment-service/start", json!({})).await;
    let balanced = |state: &Value| state["books"]["status"] == "balanced" && state["books"]["sums"]["paid"] == 25;
    let state = page.state("the books balance", balanced).await;
    assert_eq!(queue(&state, PAYMENT_QUEUE)["backlog"], 0, "{state:#}");
    page.state("the events of all have come", |state| state["orders"]["paid"] == 25).await;

    the_queues_are_those_of_the_suite(&stack, &state).await;
    the_history_tells_it(&page).await;
    an_order_tells_its_way(&page).await;

    // A browser that looks holds up nobody.
    let (mut events, _) = Events::open(&page, "").await;
    assert_eq!(events.next("state").await.unwrap()["owns_processes"], true);
    stack.signal(Signal::INT);
    while events.next("state").await.is_some() {}
    assert!(stack.ended().await.success(), "{:#?}", stack.output());
    let forced: Vec<_> = stack.output().into_iter().filter(|line| line.contains("did not stop")).collect();
    assert!(forced.is_empty(), "{forced:?}");
}

async fn the_page_listens(stack: &Stack) {
    let deadline = Instant::now() + DEADLINE;
    while !subscriptions(stack).await.iter().any(|name| name.contains("/dashboard-")) {
        assert!(Instant::now() < deadline, "the page listens");
        time::sleep(POLL).await;
    }
}

async fn the_queues_are_those_of_the_suite(stack: &Stack, state: &Value) {
    let shown: BTreeSet<&str> =
        state["queues"].as_array().unwrap().iter().filter_map(|queue| queue["id"].as_str()).collect();
    let wanted = [PAYMENT_QUEUE, "operator.dead-letters"];
    assert!(wanted.iter().all(|queue| shown.contains(queue)) && shown.len() == 7, "{shown:?}");
    let table = stack.succeed(&["queues"]).await;
    assert!(!table.contains("dashboard-") && table.contains(PAYMENT_QUEUE), "{table}");
}

async fn the_history_tells_it(page: &Page) {
    let deadline = Instant::now() + DEADLINE;
    let history = loop {
        let history = page.get("/api/history").await;
        let samples = history["samples"].as_array().unwrap();
        let sum = |field: &str| samples.iter().filter_map(|sample| sample[field].as_u64()).sum::<u64>();
        let outages = history["outages"].as_array().unwrap();
        let is_over = outages.iter().any(|outage| outage["part"] == "payment-service" && outage["to_ms"].is_i64());
        if (sum("accepted"), sum("paid")) == (25, 25) && is_over {
            break history;
        }
        assert!(Instant::now() < deadline, "{history:#}");
        time::sleep(POLL).await;
    };
    let outages = history["outages"].as_array().unwrap();
    let outage = outages.iter().find(|outage| outage["part"] == "payment-service").unwrap();
    assert!(outage["to_ms"].as_i64().unwrap() > outage["from_ms"].as_i64().unwrap(), "{outage}");
    let deepest = history["samples"].as_array().unwrap().iter().filter_map(|sample| sample["queued"].as_u64()).max();
    assert!(deepest >= Some(20), "{history:#}");
}

async fn an_order_tells_its_way(page: &Page) {
    let orders = page.get("/api/orders?customer=carol").await;
    assert_eq!(orders["orders"].as_array().unwrap().len(), 25);
    assert_eq!(page.get("/api/orders?status=PAYMENT_DECLINED").await["orders"], json!([]));
    let id = orders["orders"][0]["orderId"].as_str().unwrap();
    let order = page.get(&format!("/api/orders/{id}")).await;
    assert_eq!(order["order"]["status"], "ORDER_STATUS_PAID", "{order:#}");
    assert_eq!(order["payment"]["status"], "PAYMENT_STATUS_CAPTURED", "{order:#}");
    assert_eq!((&order["errors"], &order["timelineMissing"]), (&json!([]), &json!([])));
    let kinds: Vec<_> =
        order["timeline"].as_array().unwrap().iter().filter_map(|entry| entry["kind"].as_str()).collect();
    assert!(kinds.contains(&"TIMELINE_KIND_QUEUED") && kinds.contains(&"TIMELINE_KIND_CHARGED"), "{kinds:?}");
    assert_eq!(order["notifications"].as_array().unwrap().len(), 4, "{order:#}");
    assert_eq!(order["invoice"]["invoiceNumber"], order["order"]["invoiceNumber"]);
    let pdf = page.answer(Method::GET, &format!("/api/orders/{id}/invoice.pdf"), &[], "").await;
    assert!(pdf.body.starts_with(b"%PDF-") && pdf.headers["content-type"] == "application/pdf", "{:?}", pdf.headers);
}

/// Every subscription that the broker has.
pub(crate) async fn subscriptions(stack: &Stack) -> Vec<String> {
    let mut client = SubscriberClient::new(Endpoint::from_shared(stack.url(Part::Broker)).unwrap().connect_lazy());
    let request = ListSubscriptionsRequest { project: "projects/orderflow".into(), ..Default::default() };
    let listed = client.list_subscriptions(request).await.unwrap().into_inner().subscriptions;
    listed.into_iter().map(|subscription| subscription.name).collect()
}
