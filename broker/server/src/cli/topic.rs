//! `broker topic`.

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use prost_types::FieldMask;
use tonic::transport::Channel;

use super::error::Error;
use super::output::{self, to_json};
use super::remote::Remote;
use super::table::{Column, Table, pairs};
use super::units;

const TOPIC: &str = "google.pubsub.v1.Topic";

/// What can be done with topics.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Topic {
    /// Create a topic
    Create(Create),
    /// List the topics of the project
    List(List),
    /// Show the settings of a topic, and its subscriptions
    Describe(Named),
    /// Change the settings of a topic
    Update(Update),
    /// Delete a topic; its subscriptions keep what they hold
    Delete(Named),
}

/// A topic to create.
#[derive(Clone, Debug, clap::Args)]
pub struct Create {
    /// Its name, such as `orders` or `projects/orderflow/topics/orders`
    topic: String,
    /// Keep messages this long, also those that every subscription has acked: 10m to 31d
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    retention: Option<prost_types::Duration>,
    /// Labels
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = units::key_value)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

/// Which topics to list.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
}

/// Which topic is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// Its name
    topic: String,
    #[command(flatten)]
    remote: Remote,
}

/// What to change about a topic.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub struct Update {
    /// Its name
    topic: String,
    /// Keep messages this long, also those that every subscription has acked: 10m to 31d
    #[arg(long, value_name = "DURATION", value_parser = units::duration, group = "change")]
    retention: Option<prost_types::Duration>,
    /// Keep acked messages no longer
    #[arg(long, conflicts_with = "retention", group = "change")]
    clear_retention: bool,
    /// Labels, instead of all that there are
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = units::key_value, group = "change")]
    labels: Vec<(String, String)>,
    /// Take all labels off
    #[arg(long, conflicts_with = "labels", group = "change")]
    clear_labels: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Topic {
    pub(super) async fn execute(self) -> Result<(), Error> {
        match self {
            Self::Create(create) => create.execute().await,
            Self::List(list) => list.execute().await,
            Self::Describe(named) => named.describe().await,
            Self::Update(update) => update.execute().await,
            Self::Delete(named) => named.delete().await,
        }
    }
}

impl Create {
    async fn execute(self) -> Result<(), Error> {
        let Self { topic, retention, labels, remote } = self;
        let topic = pb::Topic {
            name: remote.topic(&topic),
            labels: labels.into_iter().collect(),
            message_retention_duration: retention,
            ..Default::default()
        };
        let created = remote.publisher().await?.create_topic(topic).await?.into_inner();
        tell(&remote, "created", &created)
    }
}

impl List {
    async fn execute(self) -> Result<(), Error> {
        let Self { remote } = self;
        let topics = all(&mut remote.publisher().await?, &remote.project()).await?;
        if remote.is_json() {
            let topics: Vec<_> = topics.iter().map(|topic| to_json(TOPIC, topic)).collect::<Result<_, _>>()?;
            return output::document(&topics.into());
        }
        if topics.is_empty() {
            return output::none("topics", &remote.project(), "topic create NAME");
        }
        let mut table = Table::new([Column::Left("TOPIC"), Column::Left("RETENTION"), Column::Left("LABELS")]);
        for topic in &topics {
            let retention = units::span(topic.message_retention_duration.as_ref());
            table.row([remote.shown(&topic.name), retention, units::labels(&topic.labels)]);
        }
        output::line(&table.to_string())
    }
}

impl Named {
    async fn describe(self) -> Result<(), Error> {
        let Self { topic, remote } = self;
        let mut publisher = remote.publisher().await?;
        let name = remote.topic(&topic);
        let topic = publisher.get_topic(pb::GetTopicRequest { topic: name.clone() }).await?.into_inner();
        if remote.is_json() {
            return output::document(&to_json(TOPIC, &topic)?);
        }
        let subscriptions = subscriptions(&mut publisher, &name).await?;
        let subscriptions: Vec<_> = subscriptions.iter().map(|name| remote.shown(name)).collect();
        output::line(&pairs([
            ("name", topic.name),
            ("retention", units::span(topic.message_retention_duration.as_ref())),
            ("labels", units::labels(&topic.labels)),
            ("subscriptions", if subscriptions.is_empty() { "none".to_owned() } else { subscriptions.join(", ") }),
        ]))
    }

    async fn delete(self) -> Result<(), Error> {
        let Self { topic, remote } = self;
        let topic = remote.topic(&topic);
        remote.publisher().await?.delete_topic(pb::DeleteTopicRequest { topic: topic.clone() }).await?;
        output::done(remote.is_json(), &format!("deleted {topic}"))
    }
}

impl Update {
    async fn execute(self) -> Result<(), Error> {
        let Self { topic, retention, clear_retention, labels, clear_labels, remote } = self;
        let mut paths = Vec::new();
        if retention.is_some() || clear_retention {
            paths.push("message_retention_duration".to_owned());
        }
        if !labels.is_empty() || clear_labels {
            paths.push("labels".to_owned());
        }
        let topic = pb::Topic {
            name: remote.topic(&topic),
            labels: labels.into_iter().collect(),
            message_retention_duration: retention,
            ..Default::default()
        };
        let request = pb::UpdateTopicRequest { topic: Some(topic), update_mask: Some(FieldMask { paths }) };
        let updated = remote.publisher().await?.update_topic(request).await?.into_inner();
        tell(&remote, "updated", &updated)
    }
}

fn tell(remote: &Remote, what: &str, topic: &pb::Topic) -> Result<(), Error> {
    if remote.is_json() {
        return output::document(&to_json(TOPIC, topic)?);
    }
    output::line(&format!("{what} {}", topic.name))
}

async fn all(publisher: &mut PublisherClient<Channel>, project: &str) -> Result<Vec<pb::Topic>, Error> {
    let mut request = pb::ListTopicsRequest { project: project.to_owned(), ..Default::default() };
    let mut topics = Vec::new();
    loop {
        let page = publisher.list_topics(request.clone()).await?.into_inner();
        topics.extend(page.topics);
        if page.next_page_token.is_empty() {
            return Ok(topics);
        }
        request.page_token = page.next_page_token;
    }
}

async fn subscriptions(publisher: &mut PublisherClient<Channel>, topic: &str) -> Result<Vec<String>, Error> {
    let mut request = pb::ListTopicSubscriptionsRequest { topic: topic.to_owned(), ..Default::default() };
    let mut subscriptions = Vec::new();
    loop {
        let page = publisher.list_topic_subscriptions(request.clone()).await?.into_inner();
        subscriptions.extend(page.subscriptions);
        if page.next_page_token.is_empty() {
            return Ok(subscriptions);
        }
        request.page_token = page.next_page_token;
    }
}
