//! The broker as a whole: recovery, the gRPC server, the graceful stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::middleware;
use orderflow_proto::DESCRIPTORS;
use orderflow_proto::google::iam::v1::iam_policy_server::IamPolicyServer;
use orderflow_proto::google::pubsub::v1::publisher_server::PublisherServer;
use orderflow_proto::google::pubsub::v1::schema_service_server::SchemaServiceServer;
use orderflow_proto::google::pubsub::v1::subscriber_server::SubscriberServer;
use orderflow_proto::orderflow::broker::v1::broker_service_server::BrokerServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use crate::connection::{CONNECTIONS_MAX, incoming};
use crate::edge::{Iam, Inspector, Publisher, REQUEST_BYTES_MAX, Schemas, Subscriber, with_rest};
use crate::engine::embedded::{self, Embedded, Failure, Running};
use crate::metrics::{self, Page, Requests};
use crate::topology::Topology;
use crate::{Config, Error, push};

/// How long a stop waits for open requests before it cuts them off.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A silent connection is asked this often whether its peer is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that does not answer that for so long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls that one connection may have open at a time. Clients put many streams and waiting pulls on one connection.
const CALLS_PER_CONNECTION_MAX: u32 = 1_000;

type PublisherService = PublisherServer<Publisher<Embedded>>;
type SubscriberService = SubscriberServer<Subscriber<Embedded>>;
type SchemasService = SchemaServiceServer<Schemas>;
type IamService = IamPolicyServer<Iam<Embedded>>;
type InspectorService = BrokerServiceServer<Inspector<Embedded>>;

/// What reflection lists and health answers for.
const SERVICES: [&str; 5] =
    [PublisherService::NAME, SubscriberService::NAME, SchemasService::NAME, IamService::NAME, InspectorService::NAME];

/// A broker that has recovered its data and bound its port, ready to [run](Self::run).
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    address: SocketAddr,
    /// Where metrics are served, if they are.
    metrics: Option<(TcpListener, SocketAddr)>,
    engine: Running,
}

impl Broker {
    /// Reads the topology file, recovers the data directory, applies the topology and binds the port, in this order.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let topology = config.topology.as_deref().map(Topology::read).transpose()?;
        let options = embedded::Options {
            checkpoint_bytes: config.checkpoint_bytes,
            segment_bytes: config.segment_bytes,
            verify: config.verify.into(),
            ..embedded::Options::new(config.data_dir)
        };
        let engine = embedded::open(options).await?;
        let prepared =
            prepare(&engine.engine, config.topology.zip(topology), config.listen, config.metrics_listen).await;
        match prepared {
            Ok(((listener, address), metrics)) => Ok(Self { listener, address, metrics, engine }),
            Err(error) => {
                engine.close().await?;
                Err(error)
            }
        }
    }

    /// Where the broker listens: the port that was taken when the configuration said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics are served, if they are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Serves until the token is cancelled, then ends what is open within a grace period and writes a checkpoint.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { listener, address, metrics, engine: running } = self;
        let Running { engine, stop: stop_engine, task: mut engine_task } = running;
        let (reporter, health) = tonic_health::server::health_reporter();
        set_serving(&reporter, true).await;
        let stop = CancellationToken::new();
        let mut routes = routes(&engine, &stop).add_service(health);
        if let Some((listener, address)) = metrics {
            let requests = Requests::default();
            let counts = middleware::from_fn_with_state(requests.clone(), metrics::count);
            routes = routes.into_axum_router().layer(counts).into();
            let page = Page { sync_seconds: engine.sync_seconds(), engine: engine.clone(), requests };
            tokio::spawn(page.serve(listener, stop.clone()));
            tracing::info!(%address, "Metrics are served at /metrics.");
        }
        let server = Server::builder()
            // For the REST face.
            .accept_http1(true)
            .max_concurrent_streams(Some(CALLS_PER_CONNECTION_MAX))
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming(listener, CONNECTIONS_MAX), stop.clone().cancelled_owned());
        let mut server: JoinHandle<_> = tokio::spawn(server);
        let mut pushes = tokio::spawn(push::run(engine, stop.clone()));
        tracing::info!(%address, "The broker serves.");

        tokio::select! {
            () = token.cancelled() => {}
            outcome = &mut engine_task => return Err(ended(outcome)),
            outcome = &mut server => return outcome.map_err(|_| Failure::Ended("the gRPC server"))?.map_err(Error::from),
        }
        tracing::info!("The broker stops.");
        set_serving(&reporter, false).await;
        stop.cancel();
        if tokio::time::timeout(STOP_GRACE, async { tokio::join!(&mut server, &mut pushes) }).await.is_err() {
            tracing::warn!(grace_s = STOP_GRACE.as_secs(), "Cut off requests that did not end in time.");
            server.abort();
            pushes.abort();
        }
        stop_engine.cancel();
        let outcome = engine_task.await;
        outcome.map_err(|_| Failure::Ended("the engine task"))??;
        tracing::info!("The broker has stopped.");
        Ok(())
    }
}

async fn prepare(
    engine: &Embedded,
    topology: Option<(PathBuf, Topology)>,
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
) -> Result<(Bound, Option<Bound>), Error> {
    if let Some((path, topology)) = topology {
        let applied = topology.apply(engine).await.map_err(|why| Error::Topology { path, why })?;
        tracing::info!(created = applied.created, found = applied.found, "Applied the topology.");
    }
    let bound = bind(listen).await.map_err(|source| Error::Listen { address: listen, source })?;
    let metrics = match metrics_listen {
        Some(address) => Some(bind(address).await.map_err(|source| Error::ListenMetrics { address, source })?),
        None => None,
    };
    Ok((bound, metrics))
}

type Bound = (TcpListener, SocketAddr);

async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn routes(engine: &Embedded, stop: &CancellationToken) -> Routes {
    let publisher = PublisherServer::new(Publisher::new(engine.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let subscriber = SubscriberServer::new(Subscriber::new(engine.clone(), stop.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let inspector = BrokerServiceServer::new(Inspector::new(engine.clone(), stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = || SERVICES.into_iter().fold(reflection(), |builder, service| builder.with_service_name(service));
    let mut routes = Routes::default()
        .add_service(publisher)
        .add_service(subscriber)
        .add_service(SchemaServiceServer::new(Schemas))
        .add_service(IamPolicyServer::new(Iam::new(engine.clone())))
        .add_service(inspector);
    match reflection().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(error) => tracing::error!(%error, "Server reflection is not available."),
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    let without_rest = routes.clone();
    with_rest(routes).unwrap_or_else(|error| {
        tracing::error!(%error, "The REST face is not available.");
        without_rest
    })
}

async fn set_serving(reporter: &HealthReporter, is_serving: bool) {
    let status =
        if is_serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}

/// The engine task ends by itself only when something is wrong.
fn ended(outcome: Result<Result<(), Failure>, tokio::task::JoinError>) -> Error {
    match outcome {
        Ok(Err(failure)) => failure.into(),
        Ok(Ok(())) | Err(_) => Failure::Ended("the engine task").into(),
    }
}
