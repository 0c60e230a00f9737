//! The running broker that a command talks to.

use std::time::Duration;

use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::error::Error;
use super::names;
use super::output::Format;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent broker is asked this often whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The largest answer that is taken, in bytes: a pull may bring a message of the largest size, and others with it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which broker is asked, and how its answers look.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Remote {
    /// Where the broker serves
    #[arg(long, value_name = "URL", env = "BROKER_ADDRESS", default_value = "http://127.0.0.1:8085")]
    #[arg(help_heading = "Broker", hide_env_values = true)]
    address: String,
    /// The project of names that are not full
    #[arg(long, value_name = "ID", env = "PUBSUB_PROJECT_ID", default_value = "orderflow", value_parser = project)]
    #[arg(help_heading = "Broker", hide_env_values = true)]
    project: String,
    /// A table for people, or JSON for scripts: one document, or one a line where there is no end
    #[arg(long, short, value_enum, default_value_t, help_heading = "Broker")]
    output: Format,
}

impl Remote {
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        let address = || self.address.clone();
        let endpoint =
            endpoint(&self.address).map_err(|why| Error::Address { address: address(), why: why.to_string() })?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(KEEPALIVE_INTERVAL);
        endpoint.connect().await.map_err(|_| Error::Unreachable { address: address() })
    }

    pub(super) async fn publisher(&self) -> Result<PublisherClient<Channel>, Error> {
        Ok(PublisherClient::new(self.channel().await?).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    pub(super) async fn subscriber(&self) -> Result<SubscriberClient<Channel>, Error> {
        Ok(SubscriberClient::new(self.channel().await?).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    pub(super) async fn inspector(&self) -> Result<BrokerServiceClient<Channel>, Error> {
        Ok(BrokerServiceClient::new(self.channel().await?).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    pub(super) fn is_json(&self) -> bool {
        self.output == Format::Json
    }

    pub(super) fn project(&self) -> String {
        format!("projects/{}", self.project)
    }

    pub(super) fn topic(&self, name: &str) -> String {
        names::full(&self.project, "topics", name)
    }

    pub(super) fn subscription(&self, name: &str) -> String {
        names::full(&self.project, "subscriptions", name)
    }

    pub(super) fn snapshot(&self, name: &str) -> String {
        names::full(&self.project, "snapshots", name)
    }

    /// A name as people are shown it.
    pub(super) fn shown(&self, name: &str) -> String {
        names::shown(&self.project, name)
    }
}

/// An address, with or without `http://`.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    if address.contains("://") {
        Endpoint::from_shared(address.to_owned())
    } else {
        Endpoint::from_shared(format!("http://{address}"))
    }
}

fn project(text: &str) -> Result<String, String> {
    let id = text.strip_prefix("projects/").unwrap_or(text);
    if id.is_empty() || id.contains('/') {
        return Err("it must be an id like `orderflow`".to_owned());
    }
    Ok(id.to_owned())
}
