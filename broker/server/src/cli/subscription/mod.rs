//! `broker subscription`.

mod settings;

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use prost_types::FieldMask;
use tonic::transport::Channel;

use self::settings::{Clear, Settings};
use super::error::Error;
use super::output::{self, to_json};
use super::remote::Remote;
use super::table::{Column, Table, pairs};
use super::units::{self, span};

const SUBSCRIPTION: &str = "google.pubsub.v1.Subscription";
/// The flags that change something: one of them is wanted at least.
const CHANGES: [&str; 14] = [
    "ack_deadline",
    "exactly_once",
    "retention",
    "retain_acked",
    "dead_letter_topic",
    "max_delivery_attempts",
    "min_backoff",
    "max_backoff",
    "expiration",
    "push_endpoint",
    "labels",
    "clear_dead_letter_policy",
    "clear_retry_policy",
    "clear_labels",
];

/// What can be done with subscriptions.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Subscription {
    /// Create a subscription; it sees what is published from then on
    Create(Box<Create>),
    /// List the subscriptions of the project
    List(List),
    /// Show the settings of a subscription
    Describe(Named),
    /// Change the settings of a subscription
    Update(Box<Update>),
    /// Cut a subscription off its topic for good; it loses what it holds
    Detach(Named),
    /// Delete a subscription with all that it holds
    Delete(Named),
}

/// A subscription to create.
#[derive(Clone, Debug, clap::Args)]
pub struct Create {
    /// Its name, such as `payment` or `projects/orderflow/subscriptions/payment`
    subscription: String,
    /// The topic that its messages come from
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Deliver messages with the same ordering key in order; it can't be changed later
    #[arg(long)]
    ordering: bool,
    /// Deliver only messages with these attributes, such as `attributes.type = "paid"`; it can't be changed later
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    remote: Remote,
}

/// Which subscriptions to list.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// Only those of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Which subscription is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// Its name
    subscription: String,
    #[command(flatten)]
    remote: Remote,
}

/// What to change about a subscription.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(CHANGES)))]
pub struct Update {
    /// Its name
    subscription: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    clear: Clear,
    #[command(flatten)]
    remote: Remote,
}

impl Subscription {
    pub(super) async fn execute(self) -> Result<(), Error> {
        match self {
            Self::Create(create) => create.execute().await,
            Self::List(list) => list.execute().await,
            Self::Describe(named) => named.describe().await,
            Self::Update(update) => update.execute().await,
            Self::Detach(named) => named.detach().await,
            Self::Delete(named) => named.delete().await,
        }
    }
}

impl Create {
    async fn execute(self) -> Result<(), Error> {
        let Self { subscription, topic, ordering, filter, settings, remote } = self;
        let mut subscription = pb::Subscription {
            name: remote.subscription(&subscription),
            topic: remote.topic(&topic),
            enable_message_ordering: ordering,
            filter: filter.unwrap_or_default(),
            ..Default::default()
        };
        settings.apply(&remote, &mut subscription);
        let created = remote.subscriber().await?.create_subscription(subscription).await?.into_inner();
        tell(&remote, "created", &created)
    }
}

impl List {
    async fn execute(self) -> Result<(), Error> {
        let Self { topic, remote } = self;
        let mut subscriptions = all(&mut remote.subscriber().await?, &remote.project()).await?;
        if let Some(topic) = topic.map(|topic| remote.topic(&topic)) {
            subscriptions.retain(|subscription| subscription.topic == topic);
        }
        if remote.is_json() {
            let shown: Vec<_> = subscriptions.iter().map(|one| to_json(SUBSCRIPTION, one)).collect::<Result<_, _>>()?;
            return output::document(&shown.into());
        }
        if subscriptions.is_empty() {
            return output::none("subscriptions", &remote.project(), "subscription create NAME --topic TOPIC");
        }
        let mut table = Table::new([
            Column::Left("SUBSCRIPTION"),
            Column::Left("TOPIC"),
            Column::Left("KIND"),
            Column::Left("ACK-DEADLINE"),
            Column::Left("DELIVERY"),
            Column::Left("DEAD-LETTER-TOPIC"),
        ]);
        for subscription in &subscriptions {
            let dead_letter = subscription.dead_letter_policy.as_ref();
            table.row([
                remote.shown(&subscription.name),
                remote.shown(&subscription.topic),
                kind(subscription).to_owned(),
                ack_deadline(subscription),
                delivery(subscription),
                dead_letter.map(|policy| remote.shown(&policy.dead_letter_topic)).unwrap_or_default(),
            ]);
        }
        output::line(&table.to_string())
    }
}

impl Named {
    async fn describe(self) -> Result<(), Error> {
        let Self { subscription, remote } = self;
        let request = pb::GetSubscriptionRequest { subscription: remote.subscription(&subscription) };
        let subscription = remote.subscriber().await?.get_subscription(request).await?.into_inner();
        if remote.is_json() {
            return output::document(&to_json(SUBSCRIPTION, &subscription)?);
        }
        output::line(&description(&subscription))
    }

    async fn detach(self) -> Result<(), Error> {
        let Self { subscription, remote } = self;
        let subscription = remote.subscription(&subscription);
        let request = pb::DetachSubscriptionRequest { subscription: subscription.clone() };
        remote.publisher().await?.detach_subscription(request).await?;
        output::done(remote.is_json(), &format!("detached {subscription}"))
    }

    async fn delete(self) -> Result<(), Error> {
        let Self { subscription, remote } = self;
        let subscription = remote.subscription(&subscription);
        let request = pb::DeleteSubscriptionRequest { subscription: subscription.clone() };
        remote.subscriber().await?.delete_subscription(request).await?;
        output::done(remote.is_json(), &format!("deleted {subscription}"))
    }
}

impl Update {
    async fn execute(self) -> Result<(), Error> {
        let Self { subscription, settings, clear, remote } = self;
        let mut subscription = pb::Subscription { name: remote.subscription(&subscription), ..Default::default() };
        let mut paths = settings.apply(&remote, &mut subscription);
        paths.extend(clear.paths());
        let paths = paths.into_iter().map(str::to_owned).collect();
        let update_mask = Some(FieldMask { paths });
        let request = pb::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask };
        let updated = remote.subscriber().await?.update_subscription(request).await?.into_inner();
        tell(&remote, "updated", &updated)
    }
}

fn tell(remote: &Remote, what: &str, subscription: &pb::Subscription) -> Result<(), Error> {
    if remote.is_json() {
        return output::document(&to_json(SUBSCRIPTION, subscription)?);
    }
    output::line(&format!("{what} {}", subscription.name))
}

fn description(subscription: &pb::Subscription) -> String {
    let yes = |is_set: bool| if is_set { "yes".to_owned() } else { "no".to_owned() };
    let dead_letter = subscription.dead_letter_policy.as_ref();
    let retry = subscription.retry_policy.as_ref();
    let backoff = |policy: &pb::RetryPolicy| {
        format!("{} to {}", span(policy.minimum_backoff.as_ref()), span(policy.maximum_backoff.as_ref()))
    };
    let expiration = subscription.expiration_policy.and_then(|policy| policy.ttl);
    let push = subscription.push_config.as_ref().map(|config| config.push_endpoint.clone());
    pairs([
        ("name", subscription.name.clone()),
        ("topic", subscription.topic.clone()),
        ("kind", kind(subscription).to_owned()),
        ("push endpoint", push.unwrap_or_default()),
        ("ack deadline", ack_deadline(subscription)),
        ("ordering", yes(subscription.enable_message_ordering)),
        ("exactly once", yes(subscription.enable_exactly_once_delivery)),
        ("filter", subscription.filter.clone()),
        ("retention", span(subscription.message_retention_duration.as_ref())),
        ("topic retention", span(subscription.topic_message_retention_duration.as_ref())),
        ("retain acked", yes(subscription.retain_acked_messages)),
        ("backoff", retry.map_or_else(|| "none".to_owned(), backoff)),
        ("dead-letter topic", dead_letter.map(|policy| policy.dead_letter_topic.clone()).unwrap_or_default()),
        ("delivery attempts", dead_letter.map(|policy| policy.max_delivery_attempts.to_string()).unwrap_or_default()),
        ("expires after", expiration.map_or_else(|| "never".to_owned(), |ttl| span(Some(&ttl)))),
        ("labels", units::labels(&subscription.labels)),
    ])
}

fn kind(subscription: &pb::Subscription) -> &'static str {
    let is_push = subscription.push_config.as_ref().is_some_and(|config| !config.push_endpoint.is_empty());
    match (subscription.detached, is_push) {
        (true, _) => "detached",
        (false, true) => "push",
        (false, false) => "pull",
    }
}

fn ack_deadline(subscription: &pb::Subscription) -> String {
    span(Some(&prost_types::Duration { seconds: subscription.ack_deadline_seconds.into(), nanos: 0 }))
}

fn delivery(subscription: &pb::Subscription) -> String {
    let settings = [
        ("ordered", subscription.enable_message_ordering),
        ("exactly-once", subscription.enable_exactly_once_delivery),
        ("filtered", !subscription.filter.is_empty()),
    ];
    let set: Vec<_> = settings.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
    if set.is_empty() { "-".to_owned() } else { set.join(",") }
}

async fn all(subscriber: &mut SubscriberClient<Channel>, project: &str) -> Result<Vec<pb::Subscription>, Error> {
    let mut request = pb::ListSubscriptionsRequest { project: project.to_owned(), ..Default::default() };
    let mut subscriptions = Vec::new();
    loop {
        let page = subscriber.list_subscriptions(request.clone()).await?.into_inner();
        subscriptions.extend(page.subscriptions);
        if page.next_page_token.is_empty() {
            return Ok(subscriptions);
        }
        request.page_token = page.next_page_token;
    }
}
