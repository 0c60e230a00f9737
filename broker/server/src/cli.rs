//! The command line of the broker.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing_subscriber::EnvFilter;

use broker_log::Checked;

use crate::engine::embedded;
use crate::{Broker, Config, Error};

/// How long the health check waits for its answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the broker can be asked to do from the command line.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Serves until SIGTERM or ctrl-c.
    Serve {
        /// What to serve, and where.
        #[command(flatten)]
        config: Config,
        /// How log lines look.
        #[arg(long, env = "BROKER_LOG_FORMAT", value_enum, default_value_t)]
        log_format: LogFormat,
    },
    /// Reads a whole journal that no broker has open, and changes nothing; exits with 0 when it is sound.
    Check {
        /// Directory that holds the journal.
        #[arg(long, env = "BROKER_DATA_DIR", default_value = "broker-data")]
        data_dir: PathBuf,
    },
    /// Asks a running broker whether it is healthy; exits with 0 when it is.
    Health {
        /// Where the broker serves.
        #[arg(long, env = "BROKER_ADDRESS", default_value = "http://127.0.0.1:8085")]
        address: String,
    },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Command {
    /// Does what was asked: sets up logging, serves until a stop signal comes, or checks the health.
    pub async fn execute(self) -> Result<(), Error> {
        match self {
            Self::Serve { config, log_format } => {
                log_to_stderr(log_format);
                let stop = stop_at_signal()?;
                Broker::open(config).await?.run(stop).await
            }
            Self::Check { data_dir } => check_journal(&data_dir),
            Self::Health { address } => check_health(&address).await,
        }
    }
}

/// Sends log lines to stderr, unless the program that carries the broker has set up its own logging already.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let outcome = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // An error says that a logger is set already, and then that one is meant.
    drop(outcome);
}

fn stop_at_signal() -> Result<CancellationToken, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(token)
}

fn check_journal(dir: &Path) -> Result<(), Error> {
    let Checked { segments, bytes, checkpoint, checkpoints_damaged, torn_bytes } = embedded::check(dir)?;
    println!("{bytes} bytes in {segments} segments are sound.");
    match checkpoint {
        Some(number) => println!("The newest checkpoint is number {number}."),
        None => println!("There is no checkpoint."),
    }
    for file in checkpoints_damaged {
        println!("The checkpoint `{file}` is damaged; a start passes over it.");
    }
    if torn_bytes > 0 {
        println!("{torn_bytes} bytes at the end were never confirmed; a start cuts them off.");
    }
    Ok(())
}

async fn check_health(address: &str) -> Result<(), Error> {
    let unhealthy = |why: String| Error::Unhealthy { address: address.to_owned(), why };
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| unhealthy(error.to_string()))?
        .connect_timeout(HEALTH_TIMEOUT)
        .timeout(HEALTH_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|_| unhealthy("nobody answers there".to_owned()))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let status = answer.map_err(|status| unhealthy(status.message().to_owned()))?.into_inner().status();
    if status == ServingStatus::Serving { Ok(()) } else { Err(unhealthy(format!("it says {}", status.as_str_name()))) }
}
