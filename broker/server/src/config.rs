//! What a broker is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What a broker is told at its start: by flags, or by the environment variables that the help names.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address to serve gRPC on; port 0 takes any free one.
    #[arg(long, env = "BROKER_LISTEN", default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,

    /// Directory that holds the journal; made when it is missing. One broker at a time.
    #[arg(long, env = "BROKER_DATA_DIR", default_value = "broker-data")]
    pub data_dir: PathBuf,

    /// JSON file with the topics and subscriptions to create at the start.
    #[arg(long, env = "BROKER_TOPOLOGY")]
    pub topology: Option<PathBuf>,
}
