use std::time::Instant;

use orderflow_proto::google::pubsub::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{PATIENCE, TestBroker, first_request};

const SERVICES: [&str; 5] = [
    "google.pubsub.v1.Publisher",
    "google.pubsub.v1.Subscriber",
    "google.pubsub.v1.SchemaService",
    "google.iam.v1.IAMPolicy",
    "orderflow.broker.v1.BrokerService",
];

#[tokio::test(flavor = "multi_thread")]
async fn health_is_serving_for_the_whole_and_for_each_service_and_not_serving_once_it_stops() {
    let (broker, client) = TestBroker::with_subscription().await;
    let channel = Endpoint::from_shared(broker.url.clone()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for service in [&[""], &SERVICES[..]].concat() {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status(), ServingStatus::Serving, "{service}");
    }
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    broker.stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, client));
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions() {
    let broker = TestBroker::start().await;
    let channel = Endpoint::from_shared(broker.url.clone()).unwrap().connect().await.unwrap();

    let (requests, stream) = mpsc::channel(1);
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    requests.send(v1::ServerReflectionRequest { message_request: Some(list), ..Default::default() }).await.unwrap();
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(SERVICES.iter().all(|service| names.iter().any(|name| name == service)), "{names:?}");

    let (requests, stream) = mpsc::channel(1);
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    requests.send(request).await.unwrap();
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    assert!(list.service.iter().any(|service| service.name == SERVICES[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_neither_reads_nor_ends_its_stream_does_not_keep_the_broker_from_stopping() {
    let (broker, client) = TestBroker::with_subscription().await;
    let stream = client.open(pb::StreamingPullRequest { max_outstanding_messages: 0, ..first_request() }).await;
    let big = "x".repeat(100_000);
    for _ in 0..20 {
        client.publish(vec![crate::harness::message(&big); 10]).await.unwrap();
    }
    let begun = Instant::now();
    broker.stop();
    tokio::time::timeout(PATIENCE, broker.stopped()).await.expect("the broker stops");
    assert!(begun.elapsed() < PATIENCE);
    drop(stream);
}
