//! The settings of topics and subscriptions, as records and checkpoints hold them.

use std::collections::BTreeMap;

use broker_core as core;

use super::CodecError;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TopicConfig {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionConfig {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(uint32, tag = "3")]
    ack_deadline_ms: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    ordering: bool,
    #[prost(message, optional, tag = "6")]
    retry: Option<RetryPolicy>,
    #[prost(message, optional, tag = "7")]
    dead_letter: Option<DeadLetterPolicy>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryPolicy {
    #[prost(uint32, tag = "1")]
    backoff_ms_min: u32,
    #[prost(uint32, tag = "2")]
    backoff_ms_max: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeadLetterPolicy {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(uint32, tag = "2")]
    attempts_max: u32,
}

impl From<&core::TopicConfig> for TopicConfig {
    fn from(config: &core::TopicConfig) -> Self {
        Self { name: config.name.to_string(), labels: config.labels.as_map().clone() }
    }
}

impl TryFrom<TopicConfig> for core::TopicConfig {
    type Error = CodecError;

    fn try_from(config: TopicConfig) -> Result<Self, CodecError> {
        Ok(Self {
            name: config.name.parse().map_err(|_| CodecError::Field("topic.name"))?,
            labels: core::Labels::new(config.labels).map_err(|_| CodecError::Field("topic.labels"))?,
        })
    }
}

impl From<&core::SubscriptionConfig> for SubscriptionConfig {
    fn from(config: &core::SubscriptionConfig) -> Self {
        Self {
            name: config.name.to_string(),
            topic: config.topic.to_string(),
            ack_deadline_ms: config.ack_deadline.ms(),
            labels: config.labels.as_map().clone(),
            ordering: config.ordering,
            retry: config.retry.map(|policy| RetryPolicy {
                backoff_ms_min: policy.backoff_ms_min(),
                backoff_ms_max: policy.backoff_ms_max(),
            }),
            dead_letter: config.dead_letter.as_ref().map(|policy| DeadLetterPolicy {
                topic: policy.topic().to_string(),
                attempts_max: policy.attempts_max(),
            }),
        }
    }
}

impl TryFrom<SubscriptionConfig> for core::SubscriptionConfig {
    type Error = CodecError;

    fn try_from(config: SubscriptionConfig) -> Result<Self, CodecError> {
        let retry = |policy: RetryPolicy| {
            core::RetryPolicy::new(policy.backoff_ms_min, policy.backoff_ms_max)
                .map_err(|_| CodecError::Field("subscription.retry"))
        };
        let dead_letter = |policy: DeadLetterPolicy| {
            let wrong = CodecError::Field("subscription.dead_letter");
            let topic = policy.topic.parse().map_err(|_| wrong.clone())?;
            core::DeadLetterPolicy::new(topic, policy.attempts_max).map_err(|_| wrong)
        };
        Ok(Self {
            name: config.name.parse().map_err(|_| CodecError::Field("subscription.name"))?,
            topic: config.topic.parse().map_err(|_| CodecError::Field("subscription.topic"))?,
            ack_deadline: core::AckDeadline::from_ms(config.ack_deadline_ms)
                .map_err(|_| CodecError::Field("subscription.ack_deadline_ms"))?,
            labels: core::Labels::new(config.labels).map_err(|_| CodecError::Field("subscription.labels"))?,
            ordering: config.ordering,
            retry: config.retry.map(retry).transpose()?,
            dead_letter: config.dead_letter.map(dead_letter).transpose()?,
        })
    }
}
