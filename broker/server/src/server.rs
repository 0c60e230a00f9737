//! The broker as a whole: recovery, the gRPC server, the graceful stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::embedded::{self, Embedded, Failure, Running};
use crate::engine::replicated::{self, Candidate};
use crate::house::House;
use crate::topology::Topology;
use crate::{Config, Error};

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
pub(crate) type Declared = (PathBuf, Topology);

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
            ahead_bytes: config.ahead_bytes,
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
            // On servers elsewhere it would be every broker's, and each would take the others for itself.
            None if address.ip().is_unspecified() || address.ip().is_loopback() && !servers.is_local() => {
                return Err(replicated::Failure::Advertise(address.to_string()).into());
            }
            None => address.into(),
        };
        let target = replicated::Target { servers, name, replicas };
        let options = replicated::Options { target, advertise, engine };
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
        let house = House::open(address, metrics).await;
        match engine {
            Start::Embedded(running) => house.serve(listener, running, &token).await,
            Start::Replicated(candidate, declared) => house.share(listener, *candidate, declared, &token).await,
        }
    }
}

async fn prepare(
    engine: &Embedded,
    declared: Option<Declared>,
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
) -> Result<(Bound, Option<Bound>), Error> {
    if let Some(declared) = &declared {
        apply(engine, declared).await?;
    }
    bind_all(listen, metrics_listen).await
}

pub(crate) async fn apply(engine: &Embedded, (path, topology): &Declared) -> Result<(), Error> {
    let applied = topology.apply(engine).await.map_err(|why| Error::Topology { path: path.clone(), why })?;
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

/// A port that was taken, and where.
pub(crate) type Bound = (TcpListener, SocketAddr);

async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
