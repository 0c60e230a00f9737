//! What a process tells of itself: logs on standard error, traces over OTLP, figures for Prometheus.

mod export;
mod fields;
pub(crate) mod metrics;
mod page;
pub(crate) mod trace;

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use fields::Readable;

pub(crate) use export::Export;
pub(crate) use page::serve;

/// The target of spans that belong to a trace. Whatever the libraries below us span stays out of it.
pub(crate) const TRACE: &str = "orderflow";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object for machines.
    Json,
}

/// Why a process cannot tell of itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The filter for logs is wrong.
    #[error(transparent)]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Starts logging with a filter as `RUST_LOG` has it, and tracing. Traces are made in any case, so that their ids are in
/// the logs and travel on; they are sent only to an OTLP endpoint that is named. Whoever comes second in a process keeps
/// the first one's setting.
pub(crate) fn start(
    name: &'static str,
    filter: &str,
    format: LogFormat,
    otlp_endpoint: Option<&str>,
) -> Result<Export, Error> {
    let filter = EnvFilter::builder().parse(filter)?;
    let logs = fmt::layer().with_writer(std::io::stderr);
    // A file or a pipe gets no colours; a terminal does unless NO_COLOR is set.
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let logs = match format {
        LogFormat::Text => logs.with_ansi(is_coloured).fmt_fields(Readable).with_filter(filter).boxed(),
        LogFormat::Json => logs.json().with_filter(filter).boxed(),
    };
    let export = Export::start(name, otlp_endpoint)?;
    // Each side has its own filter: fewer logs must not break a trace.
    let in_trace = filter_fn(|metadata| metadata.is_span() && metadata.target() == TRACE);
    let traces = tracing_opentelemetry::layer()
        .with_tracer(export.provider().tracer(TRACE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(in_trace.with_max_level_hint(LevelFilter::INFO));
    // In the runner's process or in a test another part may have started logging already.
    drop(tracing_subscriber::registry().with(logs).with(traces).try_init());
    Ok(export)
}
