use order_service::{Error, Service};
use orderflow_proto::orderflow::order::v1::{OrderStatus, WatchOrderRequest};
use test_database::TestDatabase;
use tokio::net::TcpListener;
use tonic::Code;

use crate::harness::{Running, config, request, within};

#[tokio::test]
async fn a_stopping_service_ends_its_streams_and_itself() {
    let mut service = Running::start().await;
    let placed = service.client.place_order(request("k")).await.unwrap().into_inner().order.unwrap();
    let watch = WatchOrderRequest { order_id: placed.order_id };
    let mut stream = service.client.watch_order(watch).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap().order.unwrap();
    assert_eq!(first.status(), OrderStatus::PendingPayment);
    service.token.cancel();
    assert_eq!(within(stream.message()).await.unwrap_err().code(), Code::Unavailable);
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn a_service_whose_tables_are_gone_ends_and_says_why() {
    let mut service = Running::start().await;
    service.sabotage("DROP TABLE orders").await;
    let status = service.client.place_order(request("k")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let error = service.stopped().await.unwrap_err();
    assert!(error.to_string().contains("orders"), "{error}");
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_names_its_variables() {
    let mut bad = config(&["--database-url", "postgres://here", "--project", "a b"]);
    bad.broker.broker_url = "broker:8085".to_owned();
    bad.payment_url = "https://payment:50052".to_owned();
    bad.notification_url.clear();
    bad.payment_timeout_ms = 60_001;
    bad.timeline_timeout_ms = 0;
    bad.payment_deadline = Some("999ms".parse().unwrap());
    let error = Service::open(bad).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    let names = ["--database-url", "ORDER_DATABASE_URL", "--broker", "BROKER_URL", "--project", "BROKER_PROJECT"];
    let own = ["ORDER_PAYMENT_URL", "ORDER_NOTIFICATION_URL", "ORDER_PAYMENT_TIMEOUT_MS", "ORDER_TIMELINE_TIMEOUT_MS"];
    for name in names.iter().chain(&own).chain(&["ORDER_PAYMENT_DEADLINE"]) {
        assert!(error.to_string().contains(name), "{name} is not in: {error}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_variable() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let test = TestDatabase::new();
    let mut config = config(&["--database-url", test.url()]);
    config.listen = address.parse().unwrap();
    let error = Service::open(config).await.unwrap_err().to_string();
    for name in ["--listen", "ORDER_LISTEN", &address] {
        assert!(error.contains(name), "{name} is not in: {error}");
    }
}
