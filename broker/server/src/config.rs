//! What a broker is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::engine::replicated::NAME_DEFAULT;
pub use crate::engine::replicated::{AdvertiseAddress, EngineAddress, EngineName, Replicas};
use broker_log::{AHEAD_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// Journal bytes after which a checkpoint is written, unless the configuration says otherwise.
pub const CHECKPOINT_BYTES_DEFAULT: u64 = 64 << 20;
/// The least journal bytes between checkpoints.
pub const CHECKPOINT_BYTES_MIN: u64 = 4 << 10;

/// What a broker is told at its start: by flags, or by the environment variables that the help names.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address to serve gRPC on; port 0 takes any free one.
    #[arg(long, env = "BROKER_LISTEN", default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,

    /// Directory that holds the journal; made when it is missing. One broker at a time.
    #[arg(long, env = "BROKER_DATA_DIR", default_value = "broker-data")]
    pub data_dir: PathBuf,

    /// NATS servers whose JetStream keeps the journal, as `nats://host1:4222,host2:4222`. Without it the data directory does.
    #[arg(long, env = "BROKER_ENGINE", value_name = "URL", hide_env_values = true)]
    pub engine: Option<EngineAddress>,

    /// Name of the journal in the NATS cluster; brokers with the same name share it.
    #[arg(long, env = "BROKER_ENGINE_NAME", default_value = NAME_DEFAULT, requires = "engine")]
    pub engine_name: EngineName,

    /// Servers of the NATS cluster that keep the journal: 1, 3 or 5. Three unless it is said, one if there is no cluster.
    #[arg(long, env = "BROKER_ENGINE_REPLICAS", requires = "engine")]
    pub engine_replicas: Option<Replicas>,

    /// Host and port at which the other brokers on the same journal reach this one; where it listens, if they can, unless it is said.
    #[arg(long, env = "BROKER_ADVERTISE", value_name = "HOST:PORT", requires = "engine")]
    pub advertise: Option<AdvertiseAddress>,

    /// JSON file with the topics and subscriptions to create at the start.
    #[arg(long, env = "BROKER_TOPOLOGY")]
    pub topology: Option<PathBuf>,

    /// Address to serve metrics for Prometheus on, at `/metrics`; port 0 takes any free one. Off unless it is set.
    #[arg(long, env = "BROKER_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,

    /// Journal bytes after which a checkpoint is written; it bounds how long a recovery takes.
    #[arg(long, env = "BROKER_CHECKPOINT_BYTES", default_value_t = CHECKPOINT_BYTES_DEFAULT, hide = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(CHECKPOINT_BYTES_MIN..))]
    pub checkpoint_bytes: u64,

    /// Bytes at which a segment of the journal is closed; space is given back by whole segments.
    #[arg(long, env = "BROKER_SEGMENT_BYTES", default_value_t = SEGMENT_BYTES_DEFAULT, hide = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX))]
    pub segment_bytes: u64,

    /// Bytes of zeros that a small write puts ahead of the journal's end, so that the syncs after it are cheap; 0 for none.
    #[arg(long, env = "BROKER_AHEAD_BYTES", default_value_t = AHEAD_BYTES_DEFAULT, hide = true)]
    pub ahead_bytes: u64,

    /// How much of the journal is read before anybody is served.
    #[arg(long, env = "BROKER_VERIFY", value_enum, default_value_t)]
    pub verify: Verify,
}

/// How much of the journal is read before anybody is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// What came since the last checkpoint; the rest is read while the broker serves, which damage then ends.
    #[default]
    SinceCheckpoint,
    /// All of it, so that damage anywhere refuses the start.
    All,
}

impl From<Verify> for broker_log::Verify {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::SinceCheckpoint => Self::SinceCheckpoint,
            Verify::All => Self::All,
        }
    }
}

impl Config {
    /// A broker on a directory and an address, with everything else at its default.
    #[must_use]
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            listen,
            data_dir,
            engine: None,
            engine_name: EngineName::default(),
            engine_replicas: None,
            advertise: None,
            topology: None,
            metrics_listen: None,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            ahead_bytes: AHEAD_BYTES_DEFAULT,
            verify: Verify::default(),
        }
    }
}
