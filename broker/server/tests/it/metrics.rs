//! The page that Prometheus reads, held against the OpenMetrics text format.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use orderflow_proto::google::pubsub::v1 as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Client, SUBSCRIPTION, TOPIC, TestBroker, ack_ids};

type Page = BTreeMap<String, f64>;

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

async fn page(broker: &TestBroker) -> Page {
    let (head, body) = get(broker.metrics.unwrap(), "/metrics").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/openmetrics-text"), "{head}");
    // The page may come in chunks, whose sizes stand between them.
    assert!(!head.contains("transfer-encoding"), "{head}");
    parse(&body)
}

/// Reads a page strictly: each family is declared once, with help, before its samples; names end as their type wants it;
/// no series comes twice; buckets grow.
fn parse(text: &str) -> Page {
    let text = text.strip_suffix("# EOF\n").expect("the page ends with its mark");
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let (mut current, mut page) = ("", Page::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(helped.insert(help.split_once(' ').unwrap().0), "{line}");
        } else if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(helped.contains(name) && families.insert(name, kind).is_none(), "{line}");
            current = name;
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("`{line}` is not of {current}"));
            let fits = match families[current] {
                "counter" => suffix == "_total",
                "gauge" => suffix.is_empty(),
                "info" => suffix == "_info",
                "histogram" => ["_sum", "_count", "_bucket"].contains(&suffix),
                other => panic!("{other}"),
            };
            assert!(fits, "{line}");
            check_labels(&series[name.len()..]);
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(page.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
    }
    for (name, _) in families.iter().filter(|(_, kind)| **kind == "histogram") {
        check_histogram(name, text, &page);
    }
    page
}

/// `{name="value",…}` or nothing; values of the tests have nothing to escape.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inside = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).unwrap();
    let mut names = BTreeSet::new();
    for label in inside.split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && names.insert(name), "{labels}");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(!value.contains(['"', '\\', '\n']), "{labels}");
    }
}

/// The buckets of each series stand in order, grow, and end with all that was counted.
fn check_histogram(name: &str, text: &str, page: &Page) {
    let mut last = 0.0;
    let mut ends = 0;
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket"))) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value >= last, "{line}");
        last = value;
        if series.contains("le=\"+Inf\"") {
            let count = series.replace("_bucket", "_count").replace("le=\"+Inf\",", "").replace("{le=\"+Inf\"}", "");
            assert_eq!(page[&count], value, "{line}");
            last = 0.0;
            ends += 1;
        }
    }
    let counts = page.keys().filter(|series| series.starts_with(&format!("{name}_count"))).count();
    assert_eq!(ends, counts, "{name}");
}

async fn start() -> (TestBroker, Client) {
    let broker = TestBroker::start_with(|config| config.metrics_listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    (broker, client)
}

/// A series of the subscription.
fn of(name: &str) -> String {
    format!("broker_subscription_{name}{{subscription=\"{SUBSCRIPTION}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_of_backlogs_topics_requests_syncs_and_the_process() {
    let (broker, client) = start().await;
    client.publish_texts(&["one", "two", "three"]).await;
    let received = client.pull_all(3).await;
    client.ack(ack_ids(&received[..1])).await.unwrap();
    client.modify(ack_ids(&received[1..2]), 0).await.unwrap();
    let missing = pb::GetTopicRequest { topic: "projects/p/topics/none".to_owned() };
    client.publisher.clone().get_topic(missing).await.unwrap_err();
    let page = page(&broker).await;
    for (series, value) in [
        (of("backlog_messages"), 2.0),
        (of("outstanding_messages"), 1.0),
        (of("acked_messages_total"), 1.0),
        (of("delivered_messages_total"), 3.0),
        (
            format!("broker_subscription_failed_attempts_total{{subscription=\"{SUBSCRIPTION}\",reason=\"nacked\"}}"),
            1.0,
        ),
        (format!("broker_topic_published_messages_total{{topic=\"{TOPIC}\"}}"), 3.0),
        (format!("broker_topic_subscriptions{{topic=\"{TOPIC}\"}}"), 1.0),
        ("broker_rpc_requests_total{method=\"google.pubsub.v1.Publisher/Publish\",code=\"OK\"}".to_owned(), 1.0),
        (
            "broker_rpc_requests_total{method=\"google.pubsub.v1.Publisher/GetTopic\",code=\"NOT_FOUND\"}".to_owned(),
            1.0,
        ),
        ("broker_rpc_duration_seconds_count{method=\"google.pubsub.v1.Publisher/Publish\"}".to_owned(), 1.0),
        (format!("broker_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(page.get(&series), Some(&value), "{series} in {page:#?}");
    }
    for series in [
        &of("backlog_bytes"),
        "broker_journal_bytes",
        "broker_journal_sync_seconds_count",
        "process_start_time_seconds",
    ] {
        assert!(page[series] > 0.0, "{series}");
    }
    assert_eq!(get(broker.metrics.unwrap(), "/healthz").await.1, "ok\n");
    assert!(get(broker.metrics.unwrap(), "/").await.0.starts_with("http/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_of_what_is_deleted_go_and_unknown_methods_make_none() {
    let (broker, client) = start().await;
    assert!(page(&broker).await.keys().any(|series| series.contains(SUBSCRIPTION)));
    let request = pb::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.clone().delete_subscription(request).await.unwrap();
    client.publisher.clone().delete_topic(pb::DeleteTopicRequest { topic: TOPIC.to_owned() }).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(broker.url.clone()).unwrap().connect_lazy();
    let mut made_up = tonic::client::Grpc::new(channel);
    made_up.ready().await.unwrap();
    let path = "/made.up/Name".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    made_up.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    let page = page(&broker).await;
    let left: Vec<&String> =
        page.keys().filter(|series| series.contains(SUBSCRIPTION) || series.contains(TOPIC)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(page["broker_rpc_requests_total{method=\"unknown\",code=\"UNIMPLEMENTED\"}"], 1.0);
    assert!(page.keys().all(|series| !series.contains("made.up")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_counted_when_it_ends() {
    let (broker, client) = start().await;
    let ended = "broker_rpc_duration_seconds_count{method=\"google.pubsub.v1.Subscriber/StreamingPull\"}";
    let stream = client.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    assert_eq!(page(&broker).await.get(ended), None);
    drop(stream);
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    let begun = std::time::Instant::now();
    while page(&broker).await.get(ended) != Some(&1.0) {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "it is never counted");
        tokio::task::yield_now().await;
    }
}
