//! Topics and subscriptions: from the wire to settings and back. What the broker does not honour is refused.

use std::collections::{BTreeMap, HashMap};

use broker_core::{
    AckDeadline, DELETED_TOPIC, DeadLetterPolicy, Labels, RetryPolicy, SubscriptionConfig, TopicConfig, TopicName,
};
use orderflow_proto::google::pubsub::v1 as pb;

use super::parse::{duration_ms, name};
use super::status::Invalid;
use crate::engine::Subscription;

/// The least backoff of a retry policy that names none, in milliseconds, as the public API says.
const BACKOFF_MS_MIN_DEFAULT: u32 = 10_000;
/// The longest backoff of a retry policy that names none, in milliseconds, as the public API says.
const BACKOFF_MS_MAX_DEFAULT: u32 = 600_000;
/// The delivery attempts of a dead-letter policy that names none, as the public API says.
const ATTEMPTS_MAX_DEFAULT: u32 = 5;

pub(crate) fn topic_config(topic: pb::Topic) -> Result<TopicConfig, Invalid> {
    // Every field is named, so that one which the declarations gain can't be forgotten here. `state` is output only.
    let pb::Topic {
        name: topic_name,
        labels,
        message_storage_policy,
        kms_key_name,
        schema_settings,
        satisfies_pzs,
        message_retention_duration,
        state: _,
        ingestion_data_source_settings,
        message_transforms,
        tags,
    } = topic;
    refuse([
        ("message_storage_policy", message_storage_policy.is_some()),
        ("kms_key_name", !kms_key_name.is_empty()),
        ("schema_settings", schema_settings.is_some()),
        ("satisfies_pzs", satisfies_pzs),
        ("message_retention_duration", message_retention_duration.is_some()),
        ("ingestion_data_source_settings", ingestion_data_source_settings.is_some()),
        ("message_transforms", !message_transforms.is_empty()),
        ("tags", !tags.is_empty()),
    ])?;
    Ok(TopicConfig { name: name("name", &topic_name)?, labels: labels_of(labels)? })
}

pub(super) fn topic(config: &TopicConfig) -> pb::Topic {
    pb::Topic {
        name: config.name.as_str().to_owned(),
        labels: labels_to(&config.labels),
        state: pb::topic::State::Active.into(),
        ..Default::default()
    }
}

pub(crate) fn subscription_config(subscription: pb::Subscription) -> Result<SubscriptionConfig, Invalid> {
    // Every field is named, so that one which the declarations gain can't be forgotten here. `state`,
    // `topic_message_retention_duration` and `analytics_hub_subscription_info` are output only.
    let pb::Subscription {
        name: subscription_name,
        topic,
        push_config,
        bigquery_config,
        cloud_storage_config,
        bigtable_config,
        ack_deadline_seconds,
        retain_acked_messages,
        message_retention_duration,
        labels,
        enable_message_ordering,
        expiration_policy,
        filter,
        dead_letter_policy,
        retry_policy,
        detached,
        enable_exactly_once_delivery,
        topic_message_retention_duration: _,
        state: _,
        analytics_hub_subscription_info: _,
        message_transforms,
        tags,
    } = subscription;
    refuse([
        // Clients send an empty push configuration for a pull subscription.
        ("push_config", push_config.is_some_and(|config| config != pb::PushConfig::default())),
        ("bigquery_config", bigquery_config.is_some()),
        ("cloud_storage_config", cloud_storage_config.is_some()),
        ("bigtable_config", bigtable_config.is_some()),
        ("retain_acked_messages", retain_acked_messages),
        ("message_retention_duration", message_retention_duration.is_some()),
        // A policy without a time to live means that the subscription never expires, which is so.
        ("expiration_policy.ttl", expiration_policy.is_some_and(|policy| policy.ttl.is_some())),
        ("filter", !filter.is_empty()),
        ("detached", detached),
        ("enable_exactly_once_delivery", enable_exactly_once_delivery),
        ("message_transforms", !message_transforms.is_empty()),
        ("tags", !tags.is_empty()),
    ])?;
    Ok(SubscriptionConfig {
        name: name("name", &subscription_name)?,
        topic: name("topic", &topic)?,
        ack_deadline: ack_deadline(ack_deadline_seconds)?,
        labels: labels_of(labels)?,
        ordering: enable_message_ordering,
        retry: retry_policy.as_ref().map(retry).transpose().map_err(|invalid| invalid.within("retry_policy"))?,
        dead_letter: dead_letter_policy.as_ref().map(dead_letter).transpose()?,
    })
}

pub(super) fn subscription(subscription: &Subscription) -> pb::Subscription {
    let Subscription { config, topic_deleted } = subscription;
    let topic = if *topic_deleted { DELETED_TOPIC } else { config.topic.as_str() };
    let retry = |policy: &RetryPolicy| pb::RetryPolicy {
        minimum_backoff: Some(duration(policy.backoff_ms_min())),
        maximum_backoff: Some(duration(policy.backoff_ms_max())),
    };
    let dead_letter = |policy: &DeadLetterPolicy| pb::DeadLetterPolicy {
        dead_letter_topic: policy.topic().as_str().to_owned(),
        max_delivery_attempts: policy.attempts_max().try_into().unwrap_or(i32::MAX),
    };
    pb::Subscription {
        name: config.name.as_str().to_owned(),
        topic: topic.to_owned(),
        ack_deadline_seconds: (config.ack_deadline.ms() / 1_000).try_into().unwrap_or(i32::MAX),
        labels: labels_to(&config.labels),
        enable_message_ordering: config.ordering,
        // Says that the subscription never expires.
        expiration_policy: Some(pb::ExpirationPolicy { ttl: None }),
        retry_policy: config.retry.as_ref().map(retry),
        dead_letter_policy: config.dead_letter.as_ref().map(dead_letter),
        state: pb::subscription::State::Active.into(),
        ..Default::default()
    }
}

fn refuse<const N: usize>(settings: [(&str, bool); N]) -> Result<(), Invalid> {
    match settings.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(Invalid::new(field, "is not honoured yet, so it must not be set")),
        None => Ok(()),
    }
}

fn ack_deadline(seconds: i32) -> Result<AckDeadline, Invalid> {
    if seconds == 0 {
        return Ok(AckDeadline::default());
    }
    super::parse::ack_deadline("ack_deadline_seconds", seconds)
}

fn retry(policy: &pb::RetryPolicy) -> Result<RetryPolicy, Invalid> {
    let backoff = |field, value: Option<_>, default| match value {
        Some(value) => duration_ms(field, &value),
        None => Ok(default),
    };
    let min = backoff("minimum_backoff", policy.minimum_backoff, BACKOFF_MS_MIN_DEFAULT)?;
    let max = backoff("maximum_backoff", policy.maximum_backoff, BACKOFF_MS_MAX_DEFAULT)?;
    // The core names the field with its parent, which the caller adds as well.
    RetryPolicy::new(min, max).map_err(|error| {
        let invalid = super::parse::invalid(error);
        Invalid::new(invalid.field.trim_start_matches("retry_policy."), invalid.why)
    })
}

fn dead_letter(policy: &pb::DeadLetterPolicy) -> Result<DeadLetterPolicy, Invalid> {
    let topic: TopicName = name("dead_letter_policy.dead_letter_topic", &policy.dead_letter_topic)?;
    let attempts_max = match policy.max_delivery_attempts {
        0 => ATTEMPTS_MAX_DEFAULT,
        // A negative number is refused as too small by the core.
        attempts => u32::try_from(attempts).unwrap_or(0),
    };
    DeadLetterPolicy::new(topic, attempts_max).map_err(super::parse::invalid)
}

fn labels_of(labels: HashMap<String, String>) -> Result<Labels, Invalid> {
    Labels::new(labels.into_iter().collect::<BTreeMap<_, _>>()).map_err(super::parse::invalid)
}

fn labels_to(labels: &Labels) -> HashMap<String, String> {
    labels.as_map().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn duration(ms: u32) -> prost_types::Duration {
    let nanos = (ms % 1_000) * 1_000_000;
    prost_types::Duration { seconds: i64::from(ms / 1_000), nanos: nanos.try_into().unwrap_or_default() }
}
