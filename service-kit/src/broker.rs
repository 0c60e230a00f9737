//! How a service reaches the broker: the settings and the names of things there.

use std::time::Duration;

use google_cloud_auth::credentials::{Credentials, anonymous};
use google_cloud_gax::error::rpc;
use google_cloud_gax::retry_policy::{NeverRetry, RetryPolicyExt as _};
use google_cloud_pubsub::client::{BasePublisher, Subscriber};
use google_cloud_pubsub::error::PublishError;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

use crate::config::Check;
use crate::status::root;

/// How long the broker may take to answer a publication, in milliseconds.
const PUBLISH_MS_MAX: u64 = 5_000;

/// How long connecting may take until the broker counts as unreachable, in milliseconds.
const CONNECT_MS_MAX: u64 = 2_000;

/// How often an unreachable broker is looked for, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// How often a silent broker is asked for a sign of life, in milliseconds.
const ALIVE_MS: u64 = 10_000;

/// Where the broker is. The same for every service.
#[derive(Clone, Debug, clap::Args)]
pub struct BrokerConfig {
    /// The broker's endpoint. With https:// it is Google Cloud's: credentials are those that its libraries find
    #[arg(long = "broker", env = "BROKER_URL", default_value = "http://127.0.0.1:8085", value_name = "URL")]
    pub broker_url: String,
    /// The project that topics and subscriptions are in
    #[arg(long, env = "BROKER_PROJECT", default_value = "orderflow")]
    pub project: String,
}

impl BrokerConfig {
    /// Checks these settings as a part of a whole configuration.
    pub fn check(&self, check: &mut Check) {
        check.endpoint("--broker", "BROKER_URL", &self.broker_url);
        let right = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if self.project.is_empty() || !self.project.chars().all(right) {
            check.problem("--project", "BROKER_PROJECT", format_args!("`{}` is not a project's name", self.project));
        }
    }

    /// The full name of a topic: `projects/orderflow/topics/order-events`.
    pub fn topic(&self, id: &str) -> String {
        format!("projects/{}/topics/{id}", self.project)
    }

    /// The full name of a subscription: `projects/orderflow/subscriptions/payment-service.order-events`.
    pub fn subscription(&self, id: &str) -> String {
        format!("projects/{}/subscriptions/{id}", self.project)
    }

    /// Tells the log when the broker becomes unreachable and when it is back, once each, until the token is cancelled.
    pub async fn watch(&self, token: CancellationToken) {
        let url = &self.broker_url;
        if self.is_in_cloud() {
            // It has no health service that could be followed, and nobody asks it anything without credentials.
            return token.cancelled().await;
        }
        let tell = |turn| match turn {
            Turn::Down(reason) => warn!(broker = url, reason, "the broker is unreachable; what it is needed for waits"),
            Turn::Up => info!(broker = url, "the broker is reachable again"),
        };
        token.run_until_cancelled(watch(url, tell)).await;
    }

    /// A client that publishes. It connects when it is first used, and again after every loss.
    pub(crate) async fn publisher(&self) -> Result<BasePublisher, Error> {
        BasePublisher::builder()
            .with_endpoint(&self.broker_url)
            .with_credentials(self.credentials()?)
            // The outbox is the retry: it knows the order and outlives the process, which the client does not.
            .with_retry_policy(NeverRetry.with_time_limit(Duration::from_millis(PUBLISH_MS_MAX)))
            .build()
            .await
            .map_err(|error| self.error(&error))
    }

    /// A client that subscribes. It connects when it is first used, and again after every loss.
    pub(crate) async fn subscriber(&self) -> Result<Subscriber, Error> {
        Subscriber::builder()
            .with_endpoint(&self.broker_url)
            .with_credentials(self.credentials()?)
            .build()
            .await
            .map_err(|error| self.error(&error))
    }

    /// Whether this is Google Cloud's own service, which is reached with TLS; our broker has none.
    fn is_in_cloud(&self) -> bool {
        self.broker_url.starts_with("https://")
    }

    /// Who this is: nobody in particular to a broker of ours; in the cloud whom Application Default Credentials name.
    fn credentials(&self) -> Result<Credentials, Error> {
        if !self.is_in_cloud() {
            return Ok(anonymous::Builder::new().build());
        }
        // The libraries of the cloud leave the choice to the program. It is made once; a second one is refused, and right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        google_cloud_auth::credentials::Builder::default().build().map_err(|error| self.error(&error))
    }

    fn error(&self, cause: &dyn std::fmt::Display) -> Error {
        Error { url: self.broker_url.clone(), cause: cause.to_string() }
    }
}

/// A client for the broker could not be made at all. A broker that is down is not an error.
#[derive(Debug, thiserror::Error)]
#[error("no client can be made for the broker at `{url}`: {cause}")]
pub struct Error {
    url: String,
    cause: String,
}

/// The broker came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn {
    Down(String),
    Up,
}

/// Follows the broker's health on a connection of its own; the clients do not say what they try again.
async fn watch(url: &str, tell: impl Fn(Turn)) {
    let mut is_up = true;
    loop {
        let reason = follow(url, || {
            if !is_up {
                tell(Turn::Up);
            }
            is_up = true;
        })
        .await;
        if is_up {
            tell(Turn::Down(reason));
        }
        is_up = false;
        tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
    }
}

/// Says `up` whenever the broker serves, and returns with the reason when it does not any more.
async fn follow(url: &str, mut up: impl FnMut()) -> String {
    let connect = async {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(Duration::from_millis(CONNECT_MS_MAX));
        let alive = Duration::from_millis(ALIVE_MS);
        endpoint.http2_keep_alive_interval(alive).keep_alive_while_idle(true).connect().await
    };
    let mut client = match connect.await {
        Ok(channel) => HealthClient::new(channel),
        Err(error) => return reason(&error),
    };
    loop {
        match client.watch(HealthCheckRequest::default()).await {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                return loop {
                    match answers.message().await {
                        Ok(Some(answer)) if answer.status() == ServingStatus::Serving => up(),
                        Ok(Some(_)) => break "it says that it does not serve".to_owned(),
                        Ok(None) => break "the connection ended".to_owned(),
                        Err(status) => break reason(&status),
                    }
                };
            }
            // Other brokers have no health service; an answer is all there is to know.
            Err(status) if status.code() == Code::Unimplemented => up(),
            Err(status) => return reason(&status),
        }
        tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
    }
}

/// Why something that concerns the broker failed, in its own words: the innermost cause, without what the client and
/// the transport say around it.
pub(crate) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let cause = root(error);
    match cause.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

/// The code with which the broker answered a publication, or nothing if that never came to an answer.
pub(crate) fn code(error: &PublishError) -> Option<rpc::Code> {
    match error {
        PublishError::Rpc(error) => error.status().map(|status| status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::net::TcpSocket;
    use tokio::runtime::Runtime;
    use tokio::sync::mpsc;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    use super::*;

    /// Longer than anything here takes, in milliseconds; it only bounds a failure.
    const DEADLINE_MS: u64 = 20_000;

    fn socket(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    }

    /// A broker that has nothing but its health, or not even that. Its runtime is its life.
    fn serve(address: SocketAddr, has_health: bool) -> Runtime {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure().build_v1().unwrap();
        let server = Server::builder().add_service(reflection).add_optional_service(has_health.then_some(health));
        let incoming = TcpIncoming::from(socket(address).listen(16).unwrap());
        runtime.spawn(server.serve_with_incoming(incoming));
        runtime
    }

    async fn an_outage(has_health: bool) {
        let place = socket(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = place.local_addr().unwrap();
        let (turns, mut told) = mpsc::unbounded_channel();
        tokio::spawn(async move { watch(&format!("http://{address}"), |turn| drop(turns.send(turn))).await });
        let mut next = async || {
            let turn = tokio::time::timeout(Duration::from_millis(DEADLINE_MS), told.recv());
            turn.await.expect("nothing was told").unwrap()
        };
        assert!(matches!(next().await, Turn::Down(_)), "it is down from the start");
        for _ in 0..2 {
            let broker = serve(address, has_health);
            assert_eq!(next().await, Turn::Up);
            broker.shutdown_background();
            let Turn::Down(reason) = next().await else { panic!("it came back twice") };
            assert!(!reason.is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_tells_once_that_the_broker_went_and_once_that_it_is_back() {
        tokio::join!(an_outage(true), an_outage(false));
    }

    #[test]
    fn a_publication_has_a_code_when_the_broker_has_answered() {
        let status = rpc::Status::default().set_code(rpc::Code::InvalidArgument).set_message("the key is too long");
        let answered = PublishError::Rpc(Arc::new(google_cloud_gax::error::Error::service(status)));
        assert_eq!(code(&answered), Some(rpc::Code::InvalidArgument));
        let unanswered = PublishError::Rpc(Arc::new(google_cloud_gax::error::Error::timeout("nobody answers")));
        assert_eq!(code(&unanswered), None);
        assert_eq!(code(&PublishError::OrderingKeyPaused), None);
    }

    #[test]
    fn a_reason_is_what_the_broker_said() {
        #[derive(Debug, thiserror::Error)]
        #[error("publishing failed: {source}")]
        struct Outer {
            source: tonic::Status,
        }
        let source = tonic::Status::not_found("topic `t` does not exist");
        assert_eq!(reason(&Outer { source }), "topic `t` does not exist");
    }
}
