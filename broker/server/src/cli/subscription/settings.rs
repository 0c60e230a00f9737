//! The settings of a subscription as flags.

use orderflow_proto::google::pubsub::v1 as pb;

use crate::cli::remote::Remote;
use crate::cli::units;

/// When a subscription that nobody uses is deleted by itself.
#[derive(Clone, Copy, Debug)]
enum Expiration {
    Never,
    After(prost_types::Duration),
}

/// Settings that can be changed at any time.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Settings {
    /// How long a consumer may keep a message before it is delivered again: 10s to 10m
    #[arg(long, value_name = "DURATION", value_parser = units::whole_seconds)]
    ack_deadline: Option<i32>,
    /// Deliver no message again whose ack was confirmed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    exactly_once: Option<bool>,
    /// How long messages are kept: 10m to 31d
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    retention: Option<prost_types::Duration>,
    /// Keep acked messages as long as others, to seek back to
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    retain_acked: Option<bool>,
    /// Where messages go that fail too often
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// How many attempts a message has before it goes there: 5 to 100
    #[arg(long, value_name = "N")]
    max_delivery_attempts: Option<i32>,
    /// How long a message waits after its first failure: 0s to 10m
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    min_backoff: Option<prost_types::Duration>,
    /// How long a message waits at most after a failure: 0s to 10m
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    max_backoff: Option<prost_types::Duration>,
    /// Delete the subscription when nobody used it for so long: 1d or more, or `never`
    #[arg(long, value_name = "DURATION", value_parser = expiration)]
    expiration: Option<Expiration>,
    /// Send messages to this URL instead of waiting for a consumer; an empty one ends that
    #[arg(long, value_name = "URL")]
    push_endpoint: Option<String>,
    /// Labels; on an update they take the place of all that there are
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = units::key_value)]
    labels: Vec<(String, String)>,
}

/// Settings that can be taken away.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(in crate::cli) struct Clear {
    /// Send failing messages nowhere; they are delivered again and again
    #[arg(long, conflicts_with_all = ["dead_letter_topic", "max_delivery_attempts"])]
    clear_dead_letter_policy: bool,
    /// Deliver failed messages again at once
    #[arg(long, conflicts_with_all = ["min_backoff", "max_backoff"])]
    clear_retry_policy: bool,
    /// Take all labels off
    #[arg(long, conflicts_with = "labels")]
    clear_labels: bool,
}

impl Settings {
    /// Writes what is set into a subscription; answers with the paths of what was written.
    pub(super) fn apply(self, remote: &Remote, subscription: &mut pb::Subscription) -> Vec<&'static str> {
        let mut paths = Vec::new();
        if let Some(seconds) = self.ack_deadline {
            subscription.ack_deadline_seconds = seconds;
            paths.push("ack_deadline_seconds");
        }
        if let Some(is_on) = self.exactly_once {
            subscription.enable_exactly_once_delivery = is_on;
            paths.push("enable_exactly_once_delivery");
        }
        if let Some(retention) = self.retention {
            subscription.message_retention_duration = Some(retention);
            paths.push("message_retention_duration");
        }
        if let Some(is_on) = self.retain_acked {
            subscription.retain_acked_messages = is_on;
            paths.push("retain_acked_messages");
        }
        if let Some(expiration) = self.expiration {
            let ttl = match expiration {
                Expiration::Never => None,
                Expiration::After(ttl) => Some(ttl),
            };
            subscription.expiration_policy = Some(pb::ExpirationPolicy { ttl });
            paths.push("expiration_policy");
        }
        if let Some(push_endpoint) = self.push_endpoint {
            subscription.push_config = Some(pb::PushConfig { push_endpoint, ..Default::default() });
            paths.push("push_config");
        }
        if !self.labels.is_empty() {
            subscription.labels = self.labels.into_iter().collect();
            paths.push("labels");
        }
        if let Some(topic) = self.dead_letter_topic {
            subscription.dead_letter_policy.get_or_insert_default().dead_letter_topic = remote.topic(&topic);
            paths.push("dead_letter_policy.dead_letter_topic");
        }
        if let Some(attempts) = self.max_delivery_attempts {
            subscription.dead_letter_policy.get_or_insert_default().max_delivery_attempts = attempts;
            paths.push("dead_letter_policy.max_delivery_attempts");
        }
        if let Some(backoff) = self.min_backoff {
            subscription.retry_policy.get_or_insert_default().minimum_backoff = Some(backoff);
            paths.push("retry_policy.minimum_backoff");
        }
        if let Some(backoff) = self.max_backoff {
            subscription.retry_policy.get_or_insert_default().maximum_backoff = Some(backoff);
            paths.push("retry_policy.maximum_backoff");
        }
        paths
    }
}

impl Clear {
    /// The paths of what is taken away.
    pub(super) fn paths(self) -> impl Iterator<Item = &'static str> {
        let paths = [
            ("dead_letter_policy", self.clear_dead_letter_policy),
            ("retry_policy", self.clear_retry_policy),
            ("labels", self.clear_labels),
        ];
        paths.into_iter().filter(|(_, is_set)| *is_set).map(|(path, _)| path)
    }
}

fn expiration(text: &str) -> Result<Expiration, String> {
    if text == "never" { Ok(Expiration::Never) } else { units::duration(text).map(Expiration::After) }
}
