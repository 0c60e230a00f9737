//! Topics, subscriptions and snapshots: from the wire to settings and back. What the broker does not honour is refused.

use std::collections::{BTreeMap, HashMap};

use broker_core::{
    AckDeadline, DELETED_TOPIC, DeadLetterPolicy, Expiration, Filter, Labels, Retention, RetryPolicy,
    SubscriptionConfig, Time, TopicConfig, TopicName,
};
use orderflow_proto::google::pubsub::v1 as pb;

use super::parse::{duration_ms, name, time_ms, timestamp};
use super::push_settings::{push_config, push_config_of};
use super::status::Invalid;
use crate::engine::{Snapshot, Subscription};

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
        ("ingestion_data_source_settings", ingestion_data_source_settings.is_some()),
        ("message_transforms", !message_transforms.is_empty()),
        ("tags", !tags.is_empty()),
    ])?;
    Ok(TopicConfig {
        name: name("name", &topic_name)?,
        labels: labels_of(labels)?,
        retention: retention(message_retention_duration)?,
    })
}

pub(super) fn topic(config: &TopicConfig) -> pb::Topic {
    pb::Topic {
        name: config.name.as_str().to_owned(),
        labels: labels_to(&config.labels),
        message_retention_duration: config.retention.map(|retention| duration(retention.ms())),
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
        ("bigquery_config", bigquery_config.is_some()),
        ("cloud_storage_config", cloud_storage_config.is_some()),
        ("bigtable_config", bigtable_config.is_some()),
        ("detached", detached),
        ("message_transforms", !message_transforms.is_empty()),
        ("tags", !tags.is_empty()),
    ])?;
    let push = push_config.map(push_config_of).transpose().map_err(|invalid| invalid.within("push_config"))?.flatten();
    if push.is_some() && enable_exactly_once_delivery {
        return Err(Invalid::new("enable_exactly_once_delivery", "can't be had with push_config"));
    }
    Ok(SubscriptionConfig {
        name: name("name", &subscription_name)?,
        topic: name("topic", &topic)?,
        ack_deadline: ack_deadline(ack_deadline_seconds)?,
        labels: labels_of(labels)?,
        ordering: enable_message_ordering,
        retry: retry_policy.as_ref().map(retry).transpose().map_err(|invalid| invalid.within("retry_policy"))?,
        dead_letter: dead_letter_policy.as_ref().map(dead_letter).transpose()?,
        filter: filter_of(&filter)?,
        retain_acked: retain_acked_messages,
        retention: retention(message_retention_duration)?.unwrap_or_default(),
        exactly_once: enable_exactly_once_delivery,
        expiration: expiration(expiration_policy)?,
        push,
    })
}

pub(super) fn subscription(subscription: &Subscription) -> pb::Subscription {
    let Subscription { config, topic_deleted, topic_retention, detached } = subscription;
    let topic = if *topic_deleted { DELETED_TOPIC } else { config.topic.as_str() };
    pb::Subscription {
        topic: topic.to_owned(),
        detached: *detached,
        topic_message_retention_duration: topic_retention.map(|retention| duration(retention.ms())),
        state: pb::subscription::State::Active.into(),
        ..subscription_settings(config)
    }
}

/// What was asked for, without what the broker adds when it answers.
pub(super) fn subscription_settings(config: &SubscriptionConfig) -> pb::Subscription {
    let retry = |policy: &RetryPolicy| pb::RetryPolicy {
        minimum_backoff: Some(duration(policy.backoff_ms_min().into())),
        maximum_backoff: Some(duration(policy.backoff_ms_max().into())),
    };
    let dead_letter = |policy: &DeadLetterPolicy| pb::DeadLetterPolicy {
        dead_letter_topic: policy.topic().as_str().to_owned(),
        max_delivery_attempts: policy.attempts_max().try_into().unwrap_or(i32::MAX),
    };
    pb::Subscription {
        name: config.name.as_str().to_owned(),
        topic: config.topic.as_str().to_owned(),
        ack_deadline_seconds: (config.ack_deadline.ms() / 1_000).try_into().unwrap_or(i32::MAX),
        labels: labels_to(&config.labels),
        enable_message_ordering: config.ordering,
        retain_acked_messages: config.retain_acked,
        message_retention_duration: Some(duration(config.retention.ms())),
        // A policy without a time says that the subscription never expires.
        expiration_policy: Some(pb::ExpirationPolicy { ttl: config.expiration.map(|time| duration(time.ms())) }),
        filter: config.filter.as_ref().map(Filter::to_string).unwrap_or_default(),
        enable_exactly_once_delivery: config.exactly_once,
        retry_policy: config.retry.as_ref().map(retry),
        dead_letter_policy: config.dead_letter.as_ref().map(dead_letter),
        push_config: config.push.as_ref().map(push_config),
        ..Default::default()
    }
}

pub(super) fn snapshot(snapshot: &Snapshot) -> pb::Snapshot {
    let Snapshot { name, topic, labels, expires } = snapshot;
    pb::Snapshot {
        name: name.as_str().to_owned(),
        topic: topic.as_ref().map_or(DELETED_TOPIC, TopicName::as_str).to_owned(),
        expire_time: Some(timestamp(expires.0)),
        labels: labels_to(labels),
    }
}

/// The labels and the time of expiry of a snapshot.
pub(super) fn snapshot_settings(snapshot: pb::Snapshot) -> Result<(Labels, Time), Invalid> {
    let expires = snapshot.expire_time.ok_or_else(|| Invalid::new("expire_time", "must be set"))?;
    Ok((labels_of(snapshot.labels)?, time_ms("expire_time", &expires)?))
}

pub(super) fn refuse<const N: usize>(settings: [(&str, bool); N]) -> Result<(), Invalid> {
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
        // What does not fit is far beyond the range, which the core checks.
        Some(value) => duration_ms(field, &value).map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
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

fn retention(duration: Option<prost_types::Duration>) -> Result<Option<Retention>, Invalid> {
    let Some(duration) = duration else { return Ok(None) };
    let ms = duration_ms("message_retention_duration", &duration)?;
    Retention::from_ms(ms).map(Some).map_err(super::parse::invalid)
}

fn expiration(policy: Option<pb::ExpirationPolicy>) -> Result<Option<Expiration>, Invalid> {
    let Some(policy) = policy else { return Ok(Some(Expiration::default())) };
    let Some(ttl) = policy.ttl else { return Ok(None) };
    let ms = duration_ms("expiration_policy.ttl", &ttl)?;
    Expiration::from_ms(ms).map(Some).map_err(super::parse::invalid)
}

fn filter_of(text: &str) -> Result<Option<Filter>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    Filter::parse(text).map(Some).map_err(|error| Invalid::new("filter", error))
}

pub(super) fn labels_of(labels: HashMap<String, String>) -> Result<Labels, Invalid> {
    Labels::new(labels.into_iter().collect::<BTreeMap<_, _>>()).map_err(super::parse::invalid)
}

fn labels_to(labels: &Labels) -> HashMap<String, String> {
    labels.as_map().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn duration(ms: u64) -> prost_types::Duration {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Duration { seconds, nanos }
}
