//! A gRPC server with health and reflection that drains, and the question whether such a server is well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server as TonicServer};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info, info_span, warn};

use crate::telemetry::{TRACE, metrics, trace};

/// How many requests a connection has under way at most; further ones wait in the client.
pub const CONNECTION_STREAMS_MAX: u32 = 1_024;

/// How long a stopping server waits for requests that are under way, in milliseconds. Streams that follow a state
/// end by themselves when the service's token is cancelled.
pub const DRAIN_MS_MAX: u64 = 5_000;

/// How long [`health_check`] waits for its answer, in milliseconds.
pub const HEALTH_CHECK_MS_MAX: u64 = 2_000;

/// How often an idle connection is asked for a sign of life, in milliseconds.
const KEEPALIVE_MS: u64 = 30_000;

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("{flag} ({variable}): the address {address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// The environment variable that sets it.
        variable: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The descriptors for reflection are broken.
    #[error("server reflection cannot be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
}

/// A server that has its address, and serves when it gets its services.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one. An error names the `flag` and the `variable` that set it.
    pub async fn bind(address: SocketAddr, flag: &'static str, variable: &'static str) -> Result<Self, Error> {
        let fail = |source| Error::Listen { address, flag, variable, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` until the token is cancelled: then says NOT_SERVING, takes no new connections, and gives
    /// requests that are under way [`DRAIN_MS_MAX`]. What is under way after that ends with the process.
    ///
    /// `names` are the full names of the services, for the health service and reflection; `descriptors` is the encoded file
    /// descriptor set, for reflection (v1 and v1alpha).
    pub async fn serve(
        self,
        routes: Routes,
        names: &[&str],
        descriptors: &[u8],
        token: CancellationToken,
    ) -> Result<(), Error> {
        let (health, health_service) = health_reporter();
        report(&health, names, true).await;
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            // The descriptors may know more services than this server has; those would only mislead.
            names
                .iter()
                .chain(&[tonic_health::pb::health_server::SERVICE_NAME])
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let routes = routes
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let routes = Routes::from(routes.into_axum_router().layer(from_fn(observed)));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let stopping = CancellationToken::new();
        let server = TonicServer::builder()
            .max_concurrent_streams(CONNECTION_STREAMS_MAX)
            .http2_keepalive_interval(Some(Duration::from_millis(KEEPALIVE_MS)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
        let mut server = std::pin::pin!(server);
        info!(address = %self.address, "the gRPC server is ready");
        tokio::select! {
            result = &mut server => return Ok(result?),
            () = token.cancelled() => {}
        }
        report(&health, names, false).await;
        stopping.cancel();
        match tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), server).await {
            Ok(result) => Ok(result?),
            Err(_) => {
                warn!(drain_ms = DRAIN_MS_MAX, "requests that are still under way end with the process");
                Ok(())
            }
        }
    }
}

/// One call, with its span and its figures. A stream counts when it opens.
async fn observed(request: Request, next: Next) -> Response {
    let (path, started) = (request.uri().path().to_owned(), Instant::now());
    // Health checks and reflection come all the time and belong to nobody's trace.
    let span = if path.starts_with("/grpc.") {
        Span::none()
    } else {
        let method = path.trim_start_matches('/');
        info_span!(target: TRACE, "rpc", otel.name = method, otel.kind = "server", method, trace_id = Empty)
    };
    trace::follow(&span, &trace::Incoming(request.headers()));
    let response = next.run(request).instrument(span).await;
    metrics::called(&path, code(&response), started.elapsed());
    response
}

/// The code of a call: an error has it in the head of the answer.
fn code(response: &Response) -> tonic::Code {
    let status = response.headers().get("grpc-status");
    status.map_or(tonic::Code::Ok, |status| tonic::Code::from_bytes(status.as_bytes()))
}

async fn report(health: &HealthReporter, names: &[&str], serving: bool) {
    let status = if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    // The empty name stands for the server as a whole.
    for name in names.iter().copied().chain([""]) {
        health.set_service_status(name, status).await;
    }
}

/// Asks the server that listens on `address` whether it serves; the exit code of a `health` subcommand.
pub async fn health_check(address: SocketAddr) -> ExitCode {
    match tokio::time::timeout(Duration::from_millis(HEALTH_CHECK_MS_MAX), ask(reachable(address))).await {
        Ok(Ok(ServingStatus::Serving)) => ExitCode::SUCCESS,
        Ok(Ok(status)) => complain(address, status.as_str_name()),
        Ok(Err(status)) => complain(address, status.message()),
        Err(_) => complain(address, "no answer in time"),
    }
}

fn complain(address: SocketAddr, problem: &str) -> ExitCode {
    eprintln!("{address}: {problem}");
    ExitCode::FAILURE
}

async fn ask(address: SocketAddr) -> Result<ServingStatus, tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|error| tonic::Status::unavailable(crate::status::chain(&error)))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status())
}

/// Who listens on every address is asked on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
