//! A service as a process: telemetry, signals, the grace period and the exit code.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Check;
use crate::status::chain;
use crate::telemetry::{self, LogFormat};

/// The longest grace period that can be set, in milliseconds.
const GRACE_MS_MAX: u64 = 600_000;

/// What every process of the suite can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessConfig {
    /// Which log lines are written, in the form of RUST_LOG
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// How long a stopping process may finish what it has begun, in milliseconds
    #[arg(long, env = "SHUTDOWN_GRACE_MS", default_value = "10000", value_parser = crate::config::named::<u64>("SHUTDOWN_GRACE_MS"))]
    pub grace_ms: u64,
    /// Where traces are sent by OTLP over gRPC, such as http://127.0.0.1:4317; by default nowhere
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Address of the page with figures for Prometheus, at /metrics; by default there is none
    #[arg(long, env = "METRICS_LISTEN", value_name = "ADDRESS", value_parser = crate::config::named::<SocketAddr>("METRICS_LISTEN"))]
    pub metrics_listen: Option<SocketAddr>,
}

impl ProcessConfig {
    /// Checks these settings as a part of a whole configuration.
    pub fn check(&self, check: &mut Check) {
        check.range("--grace-ms", "SHUTDOWN_GRACE_MS", self.grace_ms, 0, GRACE_MS_MAX);
        if let Some(endpoint) = &self.otlp_endpoint {
            check.http_url("--otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        }
    }
}

/// Runs a service until it ends by itself or is told to stop (SIGTERM or ctrl-c), and says how it ended.
///
/// The service stops when its token is cancelled. It has the grace period to finish what it has begun; a second
/// signal ends it at once. Zero means that it was stopped and drained; anything else that it failed.
pub async fn run<S, F, E>(name: &'static str, config: &ProcessConfig, service: S) -> ExitCode
where
    S: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    if let Err(error) = fail_points::check() {
        eprintln!("{name}: {error}");
        return ExitCode::FAILURE;
    }
    let mut check = Check::new();
    config.check(&mut check);
    let export = match telemetry::start(name, &config.log, config.log_format, config.otlp_endpoint.as_deref()) {
        Ok(export) => Some(export),
        Err(error) => {
            let (flag, variable) = match error {
                telemetry::Error::Filter(_) => ("--log", "RUST_LOG"),
                telemetry::Error::Export(_) => ("--otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
            };
            check.problem(flag, variable, error);
            None
        }
    };
    let figures = match config.metrics_listen {
        Some(address) => TcpListener::bind(address).await.map(Some),
        None => Ok(None),
    };
    if let (Err(error), Some(address)) = (&figures, config.metrics_listen) {
        check.problem("--metrics-listen", "METRICS_LISTEN", format_args!("{address} cannot be listened on: {error}"));
    }
    if let Err(error) = check.finish() {
        eprintln!("{name}: {error}");
        return ExitCode::FAILURE;
    }
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!(service = name, %error, "the process cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    let ended = CancellationToken::new();
    if let Ok(Some(listener)) = figures {
        tokio::spawn(telemetry::serve(listener, ended.clone()));
    }
    let code = supervise(name, Duration::from_millis(config.grace_ms), async || signals.next().await, service).await;
    ended.cancel();
    if let Some(export) = export {
        export.finish().await;
    }
    code
}

async fn supervise<S, F, E>(name: &'static str, grace: Duration, mut signal: impl AsyncFnMut(), service: S) -> ExitCode
where
    S: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    let token = CancellationToken::new();
    let mut running = std::pin::pin!(service(token.clone()));
    let result = tokio::select! {
        result = &mut running => result,
        () = signal() => {
            info!(service = name, grace_ms = grace.as_millis(), "the service is stopping");
            token.cancel();
            tokio::select! {
                result = &mut running => result,
                () = tokio::time::sleep(grace) => {
                    warn!(service = name, "the grace period is over; what was not finished comes back at the next start");
                    return ExitCode::FAILURE;
                }
                () = signal() => {
                    warn!(service = name, "a second signal ends the service at once");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    match result {
        Ok(()) => {
            info!(service = name, "the service has stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(service = name, error = chain(&error), "the service has failed");
            ExitCode::FAILURE
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    /// Signals at these seconds, and then none.
    fn signals(at_seconds: &'static [u64]) -> impl AsyncFnMut() {
        let began = Instant::now();
        let mut at_seconds = at_seconds.iter();
        async move || match at_seconds.next() {
            Some(at) => tokio::time::sleep_until(began + Duration::from_secs(*at)).await,
            None => std::future::pending().await,
        }
    }

    /// Drains for so long once it is told to stop.
    async fn service(token: CancellationToken, drain_seconds: u64) -> io::Result<()> {
        token.cancelled().await;
        tokio::time::sleep(Duration::from_secs(drain_seconds)).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_drains_in_time_ends_well() {
        let began = Instant::now();
        let code = supervise("test", GRACE, signals(&[5]), |token| service(token, 9)).await;
        assert_eq!((code, began.elapsed()), (ExitCode::SUCCESS, Duration::from_secs(14)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_ends_a_service_that_does_not_drain() {
        let began = Instant::now();
        let code = supervise("test", GRACE, signals(&[5]), |token| service(token, 11)).await;
        assert_eq!((code, began.elapsed()), (ExitCode::FAILURE, Duration::from_secs(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_a_service_at_once() {
        let began = Instant::now();
        let code = supervise("test", GRACE, signals(&[5, 7]), |token| service(token, 9)).await;
        assert_eq!((code, began.elapsed()), (ExitCode::FAILURE, Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_ends_badly() {
        let code = supervise("test", GRACE, signals(&[]), |_| async { Err(io::Error::other("no database")) }).await;
        assert_eq!(code, ExitCode::FAILURE);
    }
}
