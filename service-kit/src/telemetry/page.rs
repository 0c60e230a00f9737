//! The page that Prometheus reads.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics;

/// The form of the page: <https://prometheus.io/docs/specs/om/open_metrics_spec/>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `GET /metrics` until the token is cancelled.
pub(crate) async fn serve(listener: TcpListener, token: CancellationToken) {
    let router = Router::new().route("/metrics", get(async || page()));
    let served = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::warn!(%error, "the figures are not served any more");
    }
}

fn page() -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics::encoded())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tonic::Code;

    use super::*;

    async fn read_page() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, token) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, token.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        token.cancel();
        serving.await.unwrap();
        page
    }

    #[tokio::test]
    async fn what_was_counted_is_on_the_page() {
        let took = Duration::from_millis(3);
        metrics::called("/test.v1.Page/Get", Code::NotFound, took);
        metrics::called("/made.up/Name", Code::Unimplemented, took);
        metrics::handled("page.queue", "done", took);
        metrics::breaker("page", true);
        let page = read_page().await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(page.contains(OPEN_METRICS) && page.contains("# EOF"), "{page}");
        for line in [
            r#"orderflow_rpc_requests_total{method="test.v1.Page/Get",code="NOT_FOUND"} 1"#,
            r#"orderflow_rpc_requests_total{method="unknown",code="UNIMPLEMENTED"} 1"#,
            r#"orderflow_rpc_duration_seconds_bucket{le="0.004",method="test.v1.Page/Get"} 1"#,
            r#"orderflow_messages_total{subscription="page.queue",outcome="done"} 1"#,
            r#"orderflow_message_duration_seconds_count{subscription="page.queue"} 1"#,
            r#"orderflow_breaker_open{of="page"} 1"#,
        ] {
            assert!(page.contains(line), "{line} is missing in {page}");
        }
        assert!(!page.contains("made.up"), "names that a caller makes up must not grow the page");
    }
}
