//! Who is measured, and what the acknowledgement of each promises.

mod fronts;
mod nats;
mod noop;
mod pubsub;
mod rabbitmq;
mod raw;
mod redis;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::cases::{BYTES_DEFAULT, Case};
use crate::chart::Kind;
use crate::error::{Error, Outcome};
use crate::process::Server;

pub(crate) use noop::{Answer, serve};

/// One that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Our broker.
    Broker,
    /// Our broker with its journal in one NATS server.
    Front,
    /// Two of our brokers with their journal in three NATS servers.
    Fronts,
    /// A server of the same protocol that does nothing: no broker that speaks it can be faster.
    Noop,
    /// The same, but it answers with an id for each message, as the protocol asks for.
    NoopIds,
    /// A file, appended to and synced.
    Raw,
    /// NATS JetStream as it is.
    Nats,
    /// NATS JetStream that syncs each message.
    NatsAlways,
    /// RabbitMQ quorum queues.
    Rabbitmq,
    /// Redis Streams that sync before the reply.
    RedisAlways,
    /// Redis Streams that sync every second.
    RedisEverysec,
}

/// All sides, in the order in which they take turns.
pub(crate) const SIDES: [Side; 11] = [
    Side::Broker,
    Side::Front,
    Side::Fronts,
    Side::Noop,
    Side::NoopIds,
    Side::Raw,
    Side::Nats,
    Side::NatsAlways,
    Side::Rabbitmq,
    Side::RedisAlways,
    Side::RedisEverysec,
];

/// A side at work: its servers, if it has any, and a connected client.
pub(crate) struct Running {
    pub(crate) servers: Vec<Server>,
    pub(crate) client: Arc<dyn Client>,
}

/// What is published at once.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) body: Bytes,
    pub(crate) messages: usize,
}

/// A connected client, used by many tasks at a time.
#[tonic::async_trait]
pub(crate) trait Client: Send + Sync {
    /// Makes topics, and for each of them so many subscriptions.
    async fn prepare(&self, topics: usize, subscriptions: usize) -> Outcome;

    /// Publishes a batch, and waits until the server has acknowledged all of it.
    async fn publish(&self, topic: usize, batch: &Batch) -> Outcome;

    /// Takes and acks messages of a subscription of topic 0 until it is told to stop, and counts them.
    async fn consume(&self, subscription: usize, received: &AtomicU64, stop: CancellationToken) -> Outcome;
}

impl Side {
    /// Starts the side and connects to it.
    pub(crate) async fn start(self) -> Outcome<Running> {
        let server = match self {
            Self::Broker => pubsub::start_broker().await?,
            Self::Front => return self.start_fronts(1, 1).await,
            Self::Fronts => return self.start_fronts(3, 2).await,
            Self::Noop => pubsub::start_noop(Answer::Nothing).await?,
            Self::NoopIds => pubsub::start_noop(Answer::Ids).await?,
            Self::Raw => return Ok(Running { servers: Vec::new(), client: raw::start()? }),
            Self::Nats => nats::start(None).await?,
            Self::NatsAlways => nats::start(Some("always")).await?,
            Self::Rabbitmq => rabbitmq::start().await?,
            Self::RedisAlways => redis::start("always").await?,
            Self::RedisEverysec => redis::start("everysec").await?,
        };
        let client = self.connect(server.address()).await?;
        Ok(Running { servers: vec![server], client })
    }

    async fn start_fronts(self, nodes: usize, fronts: usize) -> Outcome<Running> {
        let (servers, entrances) = fronts::start(nodes, fronts).await?;
        Ok(Running { servers, client: pubsub::connect(&entrances, Answer::Ids).await? })
    }

    /// Connects to a server of this side.
    pub(crate) async fn connect(self, address: SocketAddr) -> Outcome<Arc<dyn Client>> {
        match self {
            Self::Broker | Self::Front | Self::Fronts | Self::NoopIds => pubsub::connect(&[address], Answer::Ids).await,
            Self::Noop => pubsub::connect(&[address], Answer::Nothing).await,
            Self::Raw => Err(Error::NotApplicable("a file has no server")),
            Self::Nats | Self::NatsAlways => nats::connect(address).await,
            Self::Rabbitmq => rabbitmq::connect(address).await,
            Self::RedisAlways | Self::RedisEverysec => redis::connect(address).await,
        }
    }

    /// Whether it is put through a case. Those with a journal in NATS are there for what that costs, which few cases show.
    pub(crate) fn is_for(self, case: Case) -> bool {
        match self {
            Self::Front | Self::Fronts => match case {
                Case::Publish { bytes, .. } => bytes == BYTES_DEFAULT,
                Case::Deliver | Case::Together | Case::Latency { per_s: 1_000 } => true,
                Case::FanOut | Case::Topics | Case::Latency { .. } | Case::Backlog => false,
            },
            _ => true,
        }
    }

    /// Whether it keeps messages that are delivered later.
    pub(crate) fn keeps_messages(self) -> bool {
        !matches!(self, Self::Noop | Self::NoopIds | Self::Raw)
    }

    /// Whom it stands for in the chart.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Broker | Self::Front | Self::Fronts => Kind::Ours,
            Self::Noop | Self::NoopIds | Self::Raw => Kind::Floor,
            _ => Kind::Peer,
        }
    }

    /// What an acknowledged message has survived.
    pub(crate) fn promise(self) -> &'static str {
        match self {
            Self::Broker => "on disk (fdatasync) before the reply",
            Self::Front => "on disk of one NATS server (sync_interval: always)",
            Self::Fronts => "on disk of two of three NATS servers (sync_interval: always), here on one machine",
            Self::Noop => "nothing: the request was decoded",
            Self::NoopIds => "nothing: the request was decoded and each message was given an id",
            Self::Raw => "on disk (fdatasync); a file in this process, no server",
            Self::Nats => {
                "written to the system's cache; synced every 2 minutes, so a loss of power takes what came since"
            }
            Self::NatsAlways => "on disk (sync_interval: always)",
            Self::Rabbitmq => "on disk of a majority (here one node), with fsync; acks of consumers are not waited for",
            Self::RedisAlways => "on disk (appendfsync always)",
            Self::RedisEverysec => "written to the system's cache; synced every second by another thread",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Broker => "broker",
            Self::Front => "front",
            Self::Fronts => "fronts",
            Self::Noop => "noop",
            Self::NoopIds => "noop-ids",
            Self::Raw => "raw",
            Self::Nats => "nats",
            Self::NatsAlways => "nats-always",
            Self::Rabbitmq => "rabbitmq",
            Self::RedisAlways => "redis-always",
            Self::RedisEverysec => "redis-everysec",
        })
    }
}
