//! Declared topics and subscriptions, as a file that is applied at each start.
//!
//! The file says what the API says, with the same names and rules: every declaration goes through the same parser as a
//! request. Names are ids in one project; durations are texts like `1s` or `0.5s`.

use std::collections::HashMap;
use std::path::Path;

use broker_core::{SubscriptionConfig, TopicConfig};
use orderflow_proto::google::pubsub::v1 as pb;
use serde::Deserialize;

use crate::Error;
use crate::edge::{Invalid, subscription_config, topic_config};
use crate::engine::{self, Engine};

/// The largest topology file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Topics and subscriptions that must be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    topics: Vec<TopicConfig>,
    subscriptions: Vec<SubscriptionConfig>,
}

/// What applying a topology has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) created: usize,
    pub(crate) found: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    project: String,
    #[serde(default)]
    topics: Vec<Topic>,
    #[serde(default)]
    subscriptions: Vec<Subscription>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    id: String,
    #[serde(default)]
    labels: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscription {
    id: String,
    topic: String,
    #[serde(default)]
    ack_deadline_seconds: i32,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    enable_message_ordering: bool,
    retry_policy: Option<RetryPolicy>,
    dead_letter_policy: Option<DeadLetterPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryPolicy {
    minimum_backoff: Option<String>,
    maximum_backoff: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetterPolicy {
    dead_letter_topic: String,
    #[serde(default)]
    max_delivery_attempts: i32,
}

impl Topology {
    /// Reads a file whole, without applying anything.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let error = |why: String| Error::Topology { path: path.to_owned(), why };
        let size = std::fs::metadata(path).map_err(|source| error(source.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(error(format!("{size} bytes are more than {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        Self::parse(&text).map_err(error)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let File { project, topics, subscriptions } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let in_list = |list: &str, id: &str, invalid: Invalid| format!("{list} `{id}`: {invalid}");
        let topic = |topic: Topic| {
            let Topic { id, labels } = topic;
            let declared = pb::Topic { name: topic_name(&project, &id), labels, ..Default::default() };
            topic_config(declared).map_err(|invalid| in_list("topic", &id, invalid))
        };
        let subscription = |subscription: Subscription| {
            let id = subscription.id.clone();
            subscription
                .declared(&project)
                .and_then(subscription_config)
                .map_err(|invalid| in_list("subscription", &id, invalid))
        };
        Ok(Self {
            topics: topics.into_iter().map(topic).collect::<Result<_, _>>()?,
            subscriptions: subscriptions.into_iter().map(subscription).collect::<Result<_, _>>()?,
        })
    }

    /// Creates what is missing. What is there with other settings is an error: nothing is changed behind its back.
    pub(crate) async fn apply(&self, engine: &impl Engine) -> Result<Applied, String> {
        let mut applied = Applied::default();
        for config in &self.topics {
            match engine.create_topic(config.clone()).await {
                Ok(()) => applied.created += 1,
                Err(engine::Error::Refused(broker_core::Error::TopicExists(name))) => {
                    let found = engine.topic(name).await.map_err(|error| error.to_string())?;
                    check_same("topic", config.name.as_str(), found == *config)?;
                    applied.found += 1;
                }
                Err(error) => return Err(format!("topic `{}`: {error}", config.name)),
            }
        }
        for config in &self.subscriptions {
            match engine.create_subscription(config.clone()).await {
                Ok(()) => applied.created += 1,
                Err(engine::Error::Refused(broker_core::Error::SubscriptionExists(name))) => {
                    let found = engine.subscription(name).await.map_err(|error| error.to_string())?;
                    let same = found.config == *config && !found.topic_deleted;
                    check_same("subscription", config.name.as_str(), same)?;
                    applied.found += 1;
                }
                Err(error) => return Err(format!("subscription `{}`: {error}", config.name)),
            }
        }
        Ok(applied)
    }
}

fn check_same(kind: &str, name: &str, is_same: bool) -> Result<(), String> {
    if is_same {
        return Ok(());
    }
    Err(format!("{kind} `{name}` exists with other settings; delete it or change the file"))
}

impl Subscription {
    fn declared(self, project: &str) -> Result<pb::Subscription, Invalid> {
        let retry = |policy: RetryPolicy| {
            Ok(pb::RetryPolicy {
                minimum_backoff: duration("retry_policy.minimum_backoff", policy.minimum_backoff)?,
                maximum_backoff: duration("retry_policy.maximum_backoff", policy.maximum_backoff)?,
            })
        };
        let dead_letter = |policy: DeadLetterPolicy| pb::DeadLetterPolicy {
            dead_letter_topic: topic_name(project, &policy.dead_letter_topic),
            max_delivery_attempts: policy.max_delivery_attempts,
        };
        Ok(pb::Subscription {
            name: format!("projects/{project}/subscriptions/{}", self.id),
            topic: topic_name(project, &self.topic),
            ack_deadline_seconds: self.ack_deadline_seconds,
            labels: self.labels,
            enable_message_ordering: self.enable_message_ordering,
            // What is declared must be there, however long nobody uses it.
            expiration_policy: Some(pb::ExpirationPolicy { ttl: None }),
            retry_policy: self.retry_policy.map(retry).transpose()?,
            dead_letter_policy: self.dead_letter_policy.map(dead_letter),
            ..Default::default()
        })
    }
}

fn topic_name(project: &str, id: &str) -> String {
    format!("projects/{project}/topics/{id}")
}

/// A duration as the JSON form of the API writes it.
fn duration(field: &str, text: Option<String>) -> Result<Option<prost_types::Duration>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || Invalid::new(field, format!("`{text}` is not a duration like `1s` or `0.5s`"));
    text.parse().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_of_the_suite_is_valid() {
        let topology = Topology::parse(include_str!("../../../topology.json")).unwrap();
        assert_eq!((topology.topics.len(), topology.subscriptions.len()), (5, 7));
        let payment = &topology.subscriptions[0];
        assert_eq!(payment.name.as_str(), "projects/orderflow/subscriptions/payment-service.order-events");
        assert!(payment.ordering);
        assert_eq!(payment.retry.as_ref().map(|retry| retry.backoff_ms_max()), Some(60_000));
        assert_eq!(payment.dead_letter.as_ref().map(|policy| policy.attempts_max()), Some(20));
    }

    #[test]
    fn what_is_wrong_with_a_declaration_is_said_with_its_name() {
        let cases = [
            ("{", "EOF"),
            (r#"{"project":"p","topics":[{"id":"x"}]}"#, "topic `x`: `name`"),
            (r#"{"project":"p","topics":[{"id":"good","partitions":3}]}"#, "unknown field `partitions`"),
            (
                r#"{"project":"p","subscriptions":[{"id":"sub","topic":"good","ack_deadline_seconds":9}]}"#,
                "subscription `sub`: `ack_deadline_seconds`: 9 s",
            ),
            (
                r#"{"project":"p","subscriptions":[{"id":"sub","topic":"good","retry_policy":{"minimum_backoff":"1"}}]}"#,
                "`retry_policy.minimum_backoff`: `1` is not a duration",
            ),
        ];
        for (text, expected) in cases {
            let error = Topology::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
