//! One trace from a call through the outbox and the queue to who handles the message, and out to a collector.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use service_kit::consumer::{Consumer, ConsumerConfig, Handler, Outcome};
use service_kit::db::{self, Database};
use service_kit::event::Event;
use service_kit::grpc::Server;
use service_kit::outbox::{self, NewEvent, Relay};
use service_kit::{CancellationToken, LogFormat, ProcessConfig};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::fake::Fake;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SUBSCRIPTION: &str = "test.order-events";

/// Keeps every span that it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The collector, and where it listens.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, url)
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.0.lock().unwrap();
        let found = spans.iter().find(|span| span.name == name && hex(&span.trace_id) == TRACE_ID);
        found.unwrap_or_else(|| panic!("no span `{name}` among {spans:?}")).clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives on what it handles.
struct Teller(tokio::sync::mpsc::UnboundedSender<(Event, String)>);

impl Handler for Teller {
    async fn handle(&self, event: &Event, _: &CancellationToken) -> Outcome {
        let outgoing = service_kit::trace::headers().remove("traceparent").unwrap_or_default();
        self.0.send((event.clone(), outgoing)).unwrap();
        Outcome::Done
    }
}

async fn place(database: Database) -> String {
    let event = || NewEvent {
        topic: "order-events",
        ordering_key: "key".into(),
        kind: "test.Happened",
        payload: b"data".to_vec(),
    };
    let written = database
        .write(move |connection| Box::pin(async move { outbox::enqueue(connection, "test-service", event()).await }));
    written.await.map_err(|error: db::Error| error.to_string()).unwrap()
}

/// A service that writes an event when it is called, and consumes what its broker delivers.
async fn serve_and_consume(database: Database, fake: &Fake, token: CancellationToken) -> (Event, String) {
    let writing = database.clone();
    let route = post(move || place(writing.clone()));
    let routes = Routes::from(Router::new().route("/test.v1.Test/Place", route));
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), "--listen", "TEST_LISTEN").await.unwrap();
    let url = format!("http://{}", server.local_addr());
    let serving = tokio::spawn({
        let token = token.clone();
        async move { server.serve(routes, &[], orderflow_proto::DESCRIPTORS, token).await }
    });
    let relay = Relay::open(database, &crate::broker(fake)).await.unwrap();
    let relaying = tokio::spawn(relay.run(token.clone()));
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let config = ConsumerConfig { subscription: SUBSCRIPTION, dead_letters: "dead-letters", concurrency: 1 };
    let consumer = Consumer::open(&crate::broker(fake), config, Teller(told)).await.unwrap();
    let consuming = tokio::spawn(consumer.run(token.clone()));

    let mut channel = Channel::from_shared(url).unwrap().connect_lazy();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let call = http::Request::post("/test.v1.Test/Place").header("traceparent", CALLER);
    assert_eq!(channel.call(call.body(tonic::body::Body::empty()).unwrap()).await.unwrap().status(), 200);
    // The fake broker has topics and queues, but nothing leads from one to the other.
    crate::until("the event is published", async || !fake.published("order-events").is_empty()).await;
    let message = fake.published("order-events").remove(0);
    let attributes: Vec<(&str, &str)> = message.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
    fake.put(SUBSCRIPTION, &message.ordering_key, &attributes, "data");
    let handled = crate::in_time("the event is handled", heard.recv()).await.unwrap();
    drop(channel);
    token.cancel();
    crate::in_time("the serving ends", serving).await.unwrap().unwrap();
    crate::in_time("the relaying ends", relaying).await.unwrap().unwrap();
    crate::in_time("the consuming ends", consuming).await.unwrap().unwrap();
    handled
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_a_call_through_the_queue_to_who_handles_the_message() {
    let (collector, otlp_endpoint) = Collector::start().await;
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    fake.subscription(SUBSCRIPTION);
    let config = ProcessConfig {
        log: "warn".into(),
        log_format: LogFormat::Text,
        grace_ms: 10_000,
        otlp_endpoint: Some(otlp_endpoint),
        metrics_listen: None,
    };
    let handled = Mutex::new(None);
    let code = service_kit::run("test-service", &config, async |token| {
        *handled.lock().unwrap() = Some(serve_and_consume(database, &fake, token).await);
        Ok::<_, std::io::Error>(())
    });
    assert_eq!(code.await, ExitCode::SUCCESS);

    let (event, outgoing) = handled.into_inner().unwrap().unwrap();
    let traceparent = &event.attributes["traceparent"];
    assert!(traceparent.contains(TRACE_ID), "the message carries the caller's trace: {traceparent}");
    assert!(outgoing.contains(TRACE_ID) && outgoing != *traceparent, "what the handler sends goes on: {outgoing}");
    // The process has ended, so all of its spans were sent.
    let rpc = collector.span("test.v1.Test/Place");
    assert_eq!(hex(&rpc.parent_span_id), "00f067aa0ba902b7");
    let message = collector.span("test.order-events process");
    assert_eq!(message.parent_span_id, rpc.span_id, "the message follows the call that caused it");
}
