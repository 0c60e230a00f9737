//! The HTTP client, and what an answer means.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_service::Service;

/// How long a connection may take to be made, with the look-up of its name and its TLS handshake. Shorter than any ack deadline, so that an endpoint which is not there is
/// told from one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next request. Common servers close theirs after five seconds, and a request
/// that meets the close is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// The largest body of an answer that is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long is waited for such a body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The message is acked.
    Acked,
    /// The message is refused, or there was no answer in time: a failed attempt.
    Refused,
    /// Nobody was there to refuse it: no attempt is counted.
    Unreached,
    /// The endpoint says that it takes nothing for this long: no attempt is counted.
    Later(Duration),
}

/// Posts messages. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
}

/// Makes connections, within [`CONNECT_TIMEOUT`] each.
#[derive(Clone)]
struct Connector(HttpsConnector<HttpConnector>);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Client {
    /// A client that trusts the certificates that the system trusts.
    pub(super) fn new() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> Self {
        let provider = Arc::new(ring::default_provider());
        // Which provider is said here, since nothing in the process may have chosen one.
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(Connector(connector.wrap_connector(tcp)));
        Self { http }
    }

    /// Posts a request and waits for its answer, at most for so long.
    pub(super) async fn post(&self, mut request: Request<Full<Bytes>>, patience: Duration) -> Answer {
        let processing = Arc::new(Notify::new());
        let heard = processing.clone();
        hyper::ext::on_informational(&mut request, move |answer| {
            if answer.status() == StatusCode::PROCESSING {
                heard.notify_one();
            }
        });
        tokio::select! {
            answer = self.http.request(request) => match answer {
                Ok(answer) => {
                    let meaning = meaning(answer.status(), answer.headers());
                    tokio::spawn(drain(answer.into_body()));
                    meaning
                }
                Err(error) if error.is_connect() => Answer::Unreached,
                // The request may have arrived, and may even be why there is no answer.
                Err(_) => Answer::Refused,
            },
            () = processing.notified() => Answer::Acked,
            () = tokio::time::sleep(patience) => Answer::Refused,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = self.0.call(uri);
        Box::pin(async { timeout(CONNECT_TIMEOUT, connected).await? })
    }
}

/// What the public service takes for an ack; 102 comes before the answer itself.
fn meaning(status: StatusCode, headers: &HeaderMap) -> Answer {
    match status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Answer::Acked,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            seconds.map_or(Answer::Refused, |seconds| Answer::Later(Duration::from_secs(seconds)))
        }
        _ => Answer::Refused,
    }
}

async fn drain(body: Incoming) {
    tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(body, ANSWER_BYTES_MAX).collect()).await.ok();
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_accepts_and_never_shakes_hands_was_not_reached() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", silent.local_addr().unwrap());
        let client = Client::trusting(RootCertStore::empty());
        let request = Request::post(url).body(Full::default()).unwrap();
        assert_eq!(client.post(request, CONNECT_TIMEOUT * 2).await, Answer::Unreached);
    }

    #[test]
    fn only_the_documented_codes_are_an_ack() {
        let acks: Vec<u16> = (200..600)
            .filter(|code| meaning(StatusCode::from_u16(*code).unwrap(), &HeaderMap::new()) == Answer::Acked)
            .collect();
        assert_eq!(acks, [200, 201, 202, 204]);
    }

    #[test]
    fn an_endpoint_that_says_when_it_will_be_back_has_not_refused_the_message() {
        let mut headers = HeaderMap::new();
        assert_eq!(meaning(StatusCode::SERVICE_UNAVAILABLE, &headers), Answer::Refused);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        let later = Answer::Later(Duration::from_secs(7));
        assert_eq!(meaning(StatusCode::SERVICE_UNAVAILABLE, &headers), later);
        assert_eq!(meaning(StatusCode::TOO_MANY_REQUESTS, &headers), later);
        assert_eq!(meaning(StatusCode::INTERNAL_SERVER_ERROR, &headers), Answer::Refused);
    }
}
