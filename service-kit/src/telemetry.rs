//! Structured logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object for machines.
    Json,
}

/// Starts logging with a filter as `RUST_LOG` has it. Whoever comes second in a process keeps the first one's setting.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A file or a pipe gets no colours; a terminal does unless NO_COLOR is set.
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let logs = logs.with_ansi(is_coloured);
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    // In the runner's process or in a test another part may have started logging already.
    drop(started);
    Ok(())
}
