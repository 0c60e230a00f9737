//! The broker as a whole: recovery, the gRPC server, the graceful stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::Request;
use axum::{Router, middleware};
use orderflow_proto::DESCRIPTORS;
use orderflow_proto::google::iam::v1::iam_policy_server::IamPolicyServer;
use orderflow_proto::google::pubsub::v1::publisher_server::PublisherServer;
use orderflow_proto::google::pubsub::v1::schema_service_server::SchemaServiceServer;
use orderflow_proto::google::pubsub::v1::subscriber_server::SubscriberServer;
use orderflow_proto::orderflow::broker::v1::broker_service_server::BrokerServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::connection::{CONNECTIONS_MAX, incoming};
use crate::edge::{Iam, Inspector, Publisher, REQUEST_BYTES_MAX, Schemas, Subscriber, with_rest};
use crate::engine::embedded::{self, Embedded, Failure, Running};
use crate::engine::replicated::{self, Candidate, Claim, Seat};
use crate::front::{Front, Role};
use crate::metrics::{self, Page, Requests};
use crate::topology::Topology;
use crate::{Config, Error, push};

/// How long a stop waits for open requests before it cuts them off.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A silent connection is asked this often whether its peer is still there.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that does not answer that for so long is gone.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A broker that has recovered its data, or joined its cluster, and bound its port, ready to [run](Self::run).
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    address: SocketAddr,
    /// Where metrics are served, if they are.
    metrics: Option<(TcpListener, SocketAddr)>,
    engine: Start,
}

/// How a broker comes to its engine.
#[derive(Debug)]
enum Start {
    /// It runs.
    Embedded(Running),
    /// It runs once this broker owns the journal; then the topology is applied.
    Replicated(Box<Candidate>, Option<Declared>),
}

/// A topology and the file that it was read from.
type Declared = (PathBuf, Topology);

impl Broker {
    /// Reads the topology file, recovers the data directory, applies the topology and binds the port, in this order.
    ///
    /// With a journal in a NATS cluster it binds the port and joins the cluster; the rest is done when this broker owns the
    /// journal.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let topology = config.topology.as_deref().map(Topology::read).transpose()?;
        let declared = config.topology.clone().zip(topology);
        let options = embedded::Options {
            checkpoint_bytes: config.checkpoint_bytes,
            segment_bytes: config.segment_bytes,
            verify: config.verify.into(),
            ..embedded::Options::new(config.data_dir.clone())
        };
        if config.engine.is_some() {
            return Self::join(config, options, declared).await;
        }
        let engine = embedded::open(options).await?;
        let prepared = prepare(&engine.engine, declared, config.listen, config.metrics_listen).await;
        match prepared {
            Ok(((listener, address), metrics)) => {
                Ok(Self { listener, address, metrics, engine: Start::Embedded(engine) })
            }
            Err(error) => {
                engine.close().await?;
                Err(error)
            }
        }
    }

    async fn join(config: Config, engine: embedded::Options, declared: Option<Declared>) -> Result<Self, Error> {
        let Config { engine: servers, engine_name: name, engine_replicas: replicas, .. } = config;
        let Some(servers) = servers else { return Err(Failure::Ended("the configuration").into()) };
        let ((listener, address), metrics) = bind_all(config.listen, config.metrics_listen).await?;
        let advertise = match config.advertise {
            Some(advertise) => advertise,
            None if address.ip().is_unspecified() => {
                return Err(replicated::Failure::Advertise(address.to_string()).into());
            }
            None => address.to_string(),
        };
        let options = replicated::Options { servers, name, replicas, advertise, engine };
        let candidate = replicated::join(options).await?;
        Ok(Self { listener, address, metrics, engine: Start::Replicated(Box::new(candidate), declared) })
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
        let Self { listener, address, metrics, engine } = self;
        let house = House::new(metrics);
        set_serving(&house.reporter, true).await;
        match engine {
            Start::Embedded(running) => {
                let server = house.serve(listener, house.routes(&running.engine));
                tracing::info!(%address, "The broker serves.");
                house.work(running, None, server, &token).await
            }
            Start::Replicated(candidate, declared) => {
                let (role, roles) = watch::channel(Role::Nobody);
                let front = Front::new(roles);
                let router = Router::new().fallback(move |request: Request| front.clone().answer(request));
                let mut server = house.serve(listener, router.into());
                tracing::info!(%address, "The broker has joined its cluster.");
                let tell = |owner: Option<String>| drop(role.send_replace(owner.map_or(Role::Nobody, Role::Forward)));
                let seat = tokio::select! {
                    seat = candidate.elected(&tell) => seat?,
                    () = token.cancelled() => { house.stop.cancel(); return stopped(server.await) },
                    outcome = &mut server => return stopped(outcome),
                };
                let Seat { running, claim } = seat;
                if let Some((path, topology)) = declared {
                    let applied = apply(&running.engine, path, &topology).await;
                    if let Err(error) = applied {
                        running.close().await?;
                        claim.release().await;
                        return Err(error);
                    }
                }
                role.send_replace(Role::Serve(house.routes(&running.engine)));
                tracing::info!(%address, "The broker serves.");
                house.work(running, Some(claim), server, &token).await
            }
        }
    }
}

/// What stands around an engine that serves.
struct House {
    stop: CancellationToken,
    /// Lets go of the port however this ends.
    stop_at_end: DropGuard,
    reporter: HealthReporter,
    requests: Requests,
    metrics: Option<Bound>,
}

/// The gRPC server at work.
type Serving = JoinHandle<Result<(), tonic::transport::Error>>;

impl House {
    fn new(metrics: Option<Bound>) -> Self {
        let (reporter, _) = tonic_health::server::health_reporter();
        let stop = CancellationToken::new();
        let stop_at_end = stop.clone().drop_guard();
        Self { stop, stop_at_end, reporter, requests: Requests::default(), metrics }
    }

    /// Everything that is served of an engine.
    fn routes(&self, engine: &Embedded) -> Routes {
        let health = HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()));
        let routes = routes(engine, &self.stop).add_service(health);
        if self.metrics.is_none() {
            return routes;
        }
        let counts = middleware::from_fn_with_state(self.requests.clone(), metrics::count);
        routes.into_axum_router().layer(counts).into()
    }

    fn serve(&self, listener: TcpListener, routes: Routes) -> Serving {
        let server = Server::builder()
            // For the REST face.
            .accept_http1(true)
            .max_concurrent_streams(Some(CALLS_PER_CONNECTION_MAX))
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming(listener, CONNECTIONS_MAX), self.stop.clone().cancelled_owned());
        tokio::spawn(server)
    }

    /// Works until the token is cancelled or something fails.
    async fn work(
        self,
        running: Running,
        mut claim: Option<Claim>,
        mut server: Serving,
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let Self { stop, stop_at_end: _stop_at_end, reporter, requests, metrics } = self;
        let Running { engine, stop: stop_engine, task: mut engine_task } = running;
        if let Some((listener, address)) = metrics {
            let page = Page { sync_seconds: engine.sync_seconds(), engine: engine.clone(), requests };
            tokio::spawn(page.serve(listener, stop.clone()));
            tracing::info!(%address, "Metrics are served at /metrics.");
        }
        let mut pushes = tokio::spawn(push::run(engine, stop.clone()));
        tokio::select! {
            () = token.cancelled() => {}
            outcome = &mut engine_task => return Err(ended(outcome)),
            outcome = &mut server => return stopped(outcome),
            failure = kept(&mut claim) => return Err(failure.into()),
        }
        tracing::info!("The broker stops.");
        set_serving(&reporter, false).await;
        if let Some(claim) = &mut claim {
            claim.drain().await;
        }
        stop.cancel();
        let drained = tokio::time::timeout(STOP_GRACE, async { tokio::join!(&mut server, &mut pushes) });
        let drained = tokio::select! {
            drained = drained => drained.is_ok(),
            failure = kept(&mut claim) => return Err(failure.into()),
        };
        if !drained {
            tracing::warn!(grace_s = STOP_GRACE.as_secs(), "Cut off requests that did not end in time.");
            server.abort();
            pushes.abort();
        }
        stop_engine.cancel();
        let outcome = engine_task.await;
        outcome.map_err(|_| Failure::Ended("the engine task"))??;
        if let Some(claim) = claim {
            claim.release().await;
        }
        tracing::info!("The broker has stopped.");
        Ok(())
    }
}

/// Keeps the claim, if there is one; ends only when that fails.
async fn kept(claim: &mut Option<Claim>) -> replicated::Failure {
    match claim {
        Some(claim) => claim.keep().await,
        None => std::future::pending().await,
    }
}

/// The gRPC server ends by itself only when something is wrong.
fn stopped(outcome: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> Result<(), Error> {
    outcome.map_err(|_| Failure::Ended("the gRPC server"))?.map_err(Error::from)
}

async fn prepare(
    engine: &Embedded,
    declared: Option<Declared>,
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
) -> Result<(Bound, Option<Bound>), Error> {
    if let Some((path, topology)) = declared {
        apply(engine, path, &topology).await?;
    }
    bind_all(listen, metrics_listen).await
}

async fn apply(engine: &Embedded, path: PathBuf, topology: &Topology) -> Result<(), Error> {
    let applied = topology.apply(engine).await.map_err(|why| Error::Topology { path, why })?;
    tracing::info!(created = applied.created, found = applied.found, "Applied the topology.");
    Ok(())
}

async fn bind_all(listen: SocketAddr, metrics_listen: Option<SocketAddr>) -> Result<(Bound, Option<Bound>), Error> {
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
