//! The gRPC server, its health, its reflection and its end.

use std::net::SocketAddr;
use std::process::ExitCode;

use orderflow_proto::DESCRIPTORS;
use service_kit::grpc::{Error, Server};
use service_kit::{CancellationToken, health_check};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn serve() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let server = Server::bind(anywhere(), "--listen", "TEST_LISTEN").await.unwrap();
    let (address, token) = (server.local_addr(), CancellationToken::new());
    let serving = server.serve(Routes::default(), &["test.v1.Test"], DESCRIPTORS, token.clone());
    (address, token, tokio::spawn(async move { serving.await.unwrap() }))
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_is_told_while_it_serves_and_not_after() {
    let (address, token, serving) = serve().await;
    assert_eq!(health_check(address).await, ExitCode::SUCCESS);
    let mut health = HealthClient::new(channel(address).await);
    let request = HealthCheckRequest { service: "test.v1.Test".into() };
    // 1 is SERVING.
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    drop(health);
    token.cancel();
    crate::in_time("the server ends", serving).await.unwrap();
    assert_eq!(health_check(address).await, ExitCode::FAILURE);
}

#[tokio::test]
async fn a_stopping_server_says_so_to_who_watches() {
    let (address, token, serving) = serve().await;
    let mut health = HealthClient::new(channel(address).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    token.cancel();
    // 2 is NOT_SERVING.
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    drop((watch, health));
    crate::in_time("the server ends", serving).await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_cannot_hold_up_the_stop() {
    let (address, token, serving) = serve().await;
    let mut health = HealthClient::new(channel(address).await);
    let watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    token.cancel();
    crate::in_time("the server ends", serving).await.unwrap();
    drop(watch);
}

#[tokio::test]
async fn reflection_lists_the_services_of_this_server_alone() {
    let (address, token, serving) = serve().await;
    let mut reflection = ServerReflectionClient::new(channel(address).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["test.v1.Test", "grpc.health.v1.Health"], "not all that the descriptors know");
    drop((answers, reflection));
    token.cancel();
    crate::in_time("the server ends", serving).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told_with_flag_and_variable() {
    let taken = TcpListener::bind(anywhere()).await.unwrap();
    let error = Server::bind(taken.local_addr().unwrap(), "--listen", "TEST_LISTEN").await.unwrap_err();
    assert!(matches!(error, Error::Listen { .. }));
    let message = error.to_string();
    assert!(message.contains("--listen (TEST_LISTEN)"), "{message}");
}

#[tokio::test]
async fn who_does_not_answer_is_not_well() {
    let silent = TcpListener::bind(anywhere()).await.unwrap();
    let address = silent.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut held: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    assert_eq!(health_check(address).await, ExitCode::FAILURE);
    accepting.abort();
}
