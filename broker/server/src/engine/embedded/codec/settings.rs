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
    #[prost(uint64, optional, tag = "3")]
    retention_ms: Option<u64>,
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
    #[prost(string, optional, tag = "8")]
    filter: Option<String>,
    #[prost(bool, tag = "9")]
    retain_acked: bool,
    /// None: the default.
    #[prost(uint64, optional, tag = "10")]
    retention_ms: Option<u64>,
    #[prost(bool, tag = "11")]
    exactly_once: bool,
    /// None: never.
    #[prost(uint64, optional, tag = "12")]
    expiration_ms: Option<u64>,
    #[prost(message, optional, tag = "13")]
    push: Option<PushConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PushConfig {
    #[prost(string, tag = "1")]
    endpoint: String,
    /// 0: none was asked for; 1: `v1`, 2: `v1beta2`, 3: `v1beta1`.
    #[prost(uint32, tag = "2")]
    version: u32,
    /// 0: none was asked for; 1: wrapped, 2: raw, 3: raw with headers.
    #[prost(uint32, tag = "3")]
    body: u32,
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
        Self {
            name: config.name.to_string(),
            labels: labels_to(&config.labels),
            retention_ms: config.retention.map(core::Retention::ms),
        }
    }
}

impl TryFrom<TopicConfig> for core::TopicConfig {
    type Error = CodecError;

    fn try_from(config: TopicConfig) -> Result<Self, CodecError> {
        Ok(Self {
            name: config.name.parse().map_err(|_| CodecError::Field("topic.name"))?,
            labels: labels_of(config.labels)?,
            retention: config.retention_ms.map(retention).transpose()?,
        })
    }
}

impl From<&core::SubscriptionConfig> for SubscriptionConfig {
    fn from(config: &core::SubscriptionConfig) -> Self {
        Self {
            name: config.name.to_string(),
            topic: config.topic.to_string(),
            ack_deadline_ms: config.ack_deadline.ms(),
            labels: labels_to(&config.labels),
            ordering: config.ordering,
            retry: config.retry.map(|policy| RetryPolicy {
                backoff_ms_min: policy.backoff_ms_min(),
                backoff_ms_max: policy.backoff_ms_max(),
            }),
            dead_letter: config.dead_letter.as_ref().map(|policy| DeadLetterPolicy {
                topic: policy.topic().to_string(),
                attempts_max: policy.attempts_max(),
            }),
            filter: config.filter.as_ref().map(|filter| filter.as_str().to_owned()),
            retain_acked: config.retain_acked,
            retention_ms: Some(config.retention.ms()),
            exactly_once: config.exactly_once,
            expiration_ms: config.expiration.map(core::Expiration::ms),
            push: config.push.as_ref().map(push_to),
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
        let filter = |text: &str| core::Filter::parse(text).map_err(|_| CodecError::Field("subscription.filter"));
        let expiration =
            |ms| core::Expiration::from_ms(ms).map_err(|_| CodecError::Field("subscription.expiration_ms"));
        Ok(Self {
            name: config.name.parse().map_err(|_| CodecError::Field("subscription.name"))?,
            topic: config.topic.parse().map_err(|_| CodecError::Field("subscription.topic"))?,
            ack_deadline: core::AckDeadline::from_ms(config.ack_deadline_ms)
                .map_err(|_| CodecError::Field("subscription.ack_deadline_ms"))?,
            labels: labels_of(config.labels)?,
            ordering: config.ordering,
            retry: config.retry.map(retry).transpose()?,
            dead_letter: config.dead_letter.map(dead_letter).transpose()?,
            filter: config.filter.as_deref().map(filter).transpose()?,
            retain_acked: config.retain_acked,
            retention: config.retention_ms.map(retention).transpose()?.unwrap_or_default(),
            exactly_once: config.exactly_once,
            expiration: config.expiration_ms.map(expiration).transpose()?,
            push: config.push.map(push_of).transpose()?,
        })
    }
}

fn push_to(config: &core::PushConfig) -> PushConfig {
    let version = match config.version {
        None => 0,
        Some(core::PushVersion::V1) => 1,
        Some(core::PushVersion::V1Beta2) => 2,
        Some(core::PushVersion::V1Beta1) => 3,
    };
    let body = match config.body {
        None => 0,
        Some(core::PushBody::Wrapped) => 1,
        Some(core::PushBody::Raw { write_metadata: false }) => 2,
        Some(core::PushBody::Raw { write_metadata: true }) => 3,
    };
    PushConfig { endpoint: config.endpoint().to_owned(), version, body }
}

fn push_of(config: PushConfig) -> Result<core::PushConfig, CodecError> {
    let PushConfig { endpoint, version, body } = config;
    let version = match version {
        0 => None,
        1 => Some(core::PushVersion::V1),
        2 => Some(core::PushVersion::V1Beta2),
        3 => Some(core::PushVersion::V1Beta1),
        _ => return Err(CodecError::Field("subscription.push.version")),
    };
    let body = match body {
        0 => None,
        1 => Some(core::PushBody::Wrapped),
        2 => Some(core::PushBody::Raw { write_metadata: false }),
        3 => Some(core::PushBody::Raw { write_metadata: true }),
        _ => return Err(CodecError::Field("subscription.push.body")),
    };
    core::PushConfig::new(endpoint, version, body).map_err(|_| CodecError::Field("subscription.push.endpoint"))
}

pub(super) fn labels_to(labels: &core::Labels) -> BTreeMap<String, String> {
    labels.as_map().clone()
}

pub(super) fn labels_of(labels: BTreeMap<String, String>) -> Result<core::Labels, CodecError> {
    core::Labels::new(labels).map_err(|_| CodecError::Field("labels"))
}

fn retention(ms: u64) -> Result<core::Retention, CodecError> {
    core::Retention::from_ms(ms).map_err(|_| CodecError::Field("retention_ms"))
}
