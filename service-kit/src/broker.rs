//! How a service reaches the broker: the settings and the names of things there.

use std::time::Duration;

use google_cloud_auth::credentials::{Credentials, anonymous};
use google_cloud_gax::retry_policy::{NeverRetry, RetryPolicyExt as _};
use google_cloud_pubsub::client::{BasePublisher, Subscriber};

use crate::config::Check;

/// How long the broker may take to answer a publication, in milliseconds.
const PUBLISH_MS_MAX: u64 = 5_000;

/// Where the broker is. The same for every service.
#[derive(Clone, Debug, clap::Args)]
pub struct BrokerConfig {
    /// The broker's endpoint
    #[arg(long = "broker", env = "BROKER_URL", default_value = "http://127.0.0.1:8085", value_name = "URL")]
    pub broker_url: String,
    /// The project that topics and subscriptions are in
    #[arg(long, env = "BROKER_PROJECT", default_value = "orderflow")]
    pub project: String,
}

impl BrokerConfig {
    /// Checks these settings as a part of a whole configuration.
    pub fn check(&self, check: &mut Check) {
        check.http_url("--broker", "BROKER_URL", &self.broker_url);
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

    /// A client that publishes. It connects when it is first used, and again after every loss.
    pub(crate) async fn publisher(&self) -> Result<BasePublisher, Error> {
        BasePublisher::builder()
            .with_endpoint(&self.broker_url)
            .with_credentials(credentials())
            // The outbox is the retry: it knows the order and outlives the process, which the client does not.
            .with_retry_policy(NeverRetry.with_time_limit(Duration::from_millis(PUBLISH_MS_MAX)))
            .build()
            .await
            .map_err(|error| Error { url: self.broker_url.clone(), cause: error.to_string() })
    }

    /// A client that subscribes. It connects when it is first used, and again after every loss.
    pub(crate) async fn subscriber(&self) -> Result<Subscriber, Error> {
        Subscriber::builder()
            .with_endpoint(&self.broker_url)
            .with_credentials(credentials())
            .build()
            .await
            .map_err(|error| Error { url: self.broker_url.clone(), cause: error.to_string() })
    }
}

/// A client for the broker could not be made at all. A broker that is down is not an error.
#[derive(Debug, thiserror::Error)]
#[error("no client can be made for the broker at `{url}`: {cause}")]
pub struct Error {
    url: String,
    cause: String,
}

fn credentials() -> Credentials {
    anonymous::Builder::new().build()
}
