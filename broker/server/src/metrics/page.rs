//! The page that Prometheus reads.

use std::fmt;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::requests::Requests;
use super::series::Series;
use crate::engine::Engine;

/// The form of the page: <https://prometheus.io/docs/specs/om/open_metrics_spec/>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Page<E> {
    pub(crate) source: watch::Receiver<Source<E>>,
    pub(crate) requests: Requests,
}

/// Where the figures of the engine are.
#[derive(Clone, Debug)]
pub(crate) enum Source<E> {
    /// Nobody serves.
    Nobody,
    /// Another broker serves; this one forwards to it.
    Elsewhere,
    /// This broker serves.
    Here {
        engine: E,
        /// How long syncs of the journal took.
        sync_seconds: Histogram,
    },
}

impl<E: Engine> Page<E> {
    /// Serves `/metrics`, and `/healthz` beside it, until the token is cancelled.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let source = self.source.clone();
        let metrics = async move || match self.text().await {
            Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
            Err(response) => response,
        };
        let health = async move || match *source.borrow() {
            Source::Nobody => (StatusCode::SERVICE_UNAVAILABLE, "no broker owns the journal\n"),
            Source::Elsewhere | Source::Here { .. } => (StatusCode::OK, "ok\n"),
        };
        let router = Router::new().route("/metrics", get(metrics)).route("/healthz", get(health));
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(%error, "The metrics are not served any more.");
        }
    }

    /// A broker that doesn't own the journal has the figures of its own requests only.
    async fn text(&self) -> Result<String, Response> {
        let unavailable =
            |error: &dyn fmt::Display| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
        let mut registry = Registry::with_prefix("broker");
        self.requests.register(&mut registry);
        // Made anew for each page, so that what is deleted is on it no longer.
        let mut series = Registry::default();
        let source = self.source.borrow().clone();
        if let Source::Here { engine, sync_seconds } = source {
            let stats = engine.stats().await.map_err(|error| unavailable(&error))?;
            registry.register("journal_sync_seconds", "Time that syncs of the journal took", sync_seconds);
            series.register_collector(Box::new(Series { stats }));
        }
        let mut text = String::new();
        encode_registry(&mut text, &registry)
            .and_then(|()| encode_registry(&mut text, &series))
            .and_then(|()| encode_eof(&mut text))
            .map_err(|error| unavailable(&error))?;
        Ok(text)
    }
}
