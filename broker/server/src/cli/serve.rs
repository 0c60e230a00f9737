//! `broker serve`.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::names::program;
use crate::connection::raise_file_limit;
use crate::{Broker, Config, Error};

/// What to serve, and how to tell of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// What to serve, and where
    #[command(flatten)]
    config: Config,
    /// How log lines look
    #[arg(long, env = "BROKER_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, for machines
    Json,
}

impl Serve {
    pub(super) async fn execute(self) -> Result<(), Error> {
        fail_points::check()?;
        let Self { config, log_format } = self;
        log_to_stderr(log_format);
        raise_file_limit();
        let stop = stop_at_signal()?;
        let is_declared = config.topology.is_some();
        let broker = Broker::open(config).await?;
        if !is_declared {
            tracing::info!("No topology file is given; create topics with `{} topic create`.", program());
        }
        tracing::info!("Official clients find the broker with PUBSUB_EMULATOR_HOST={}.", broker.address());
        broker.run(stop).await
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

/// A token that SIGTERM and ctrl-c cancel.
pub(super) fn stop_at_signal() -> Result<CancellationToken, Error> {
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
