//! Sends traces to an OTLP endpoint, if one is named.

use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::warn;

/// How long the last spans may take to leave when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the endpoint may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the traces of a process, and sends them if it is told where.
#[derive(Debug)]
pub(crate) struct Export {
    provider: SdkTracerProvider,
    is_sending: bool,
}

impl Export {
    pub(super) fn start(name: &'static str, endpoint: Option<&str>) -> Result<Self, ExporterBuildError> {
        // Who called decides whether a trace is worth keeping; without a caller it is.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(Resource::builder_empty().with_service_name(name).build());
        let provider = match endpoint {
            None => provider,
            Some(endpoint) => {
                let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
                provider.with_batch_exporter(exporter.with_timeout(EXPORT_TIMEOUT).build()?)
            }
        };
        Ok(Self { provider: provider.build(), is_sending: endpoint.is_some() })
    }

    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }

    /// Sends what has gathered. An endpoint that is away does not hold up the end of the process for long.
    pub(crate) async fn finish(self) {
        if !self.is_sending {
            return;
        }
        let flushed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            warn!(%error, "the last spans were not sent");
        }
    }
}
