//! Field masks: which settings an update changes. An update is made on the wire form, so that what comes out of it goes
//! through the same parser as a creation.

use orderflow_proto::google::pubsub::v1 as pb;

use super::status::Invalid;

/// The paths of a mask, at least one.
pub(super) fn paths(mask: Option<prost_types::FieldMask>) -> Result<Vec<String>, Invalid> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() {
        return Err(Invalid::new("update_mask", "must name at least one field"));
    }
    Ok(paths)
}

/// Takes over what the paths name. What may be named and is not honoured is left to the parser to refuse.
pub(super) fn update_topic(topic: &mut pb::Topic, update: &pb::Topic, paths: &[String]) -> Result<(), Invalid> {
    for path in paths {
        match path.as_str() {
            "labels" => topic.labels.clone_from(&update.labels),
            "message_retention_duration" => topic.message_retention_duration = update.message_retention_duration,
            "message_storage_policy" => topic.message_storage_policy.clone_from(&update.message_storage_policy),
            "schema_settings" => topic.schema_settings.clone_from(&update.schema_settings),
            "ingestion_data_source_settings" => {
                topic.ingestion_data_source_settings.clone_from(&update.ingestion_data_source_settings);
            }
            "message_transforms" => topic.message_transforms.clone_from(&update.message_transforms),
            "name" | "kms_key_name" | "satisfies_pzs" | "state" | "tags" => return Err(fixed(path)),
            _ => return Err(unknown(path)),
        }
    }
    Ok(())
}

/// As [`update_topic`]; a path below a policy that the subscription does not have gives it one, with the defaults.
pub(super) fn update_subscription(
    subscription: &mut pb::Subscription,
    update: &pb::Subscription,
    paths: &[String],
) -> Result<(), Invalid> {
    let retry = update.retry_policy.unwrap_or_default();
    let dead_letter = update.dead_letter_policy.clone().unwrap_or_default();
    for path in paths {
        match path.as_str() {
            "ack_deadline_seconds" => subscription.ack_deadline_seconds = update.ack_deadline_seconds,
            "labels" => subscription.labels.clone_from(&update.labels),
            "retain_acked_messages" => subscription.retain_acked_messages = update.retain_acked_messages,
            "message_retention_duration" => {
                subscription.message_retention_duration = update.message_retention_duration;
            }
            "enable_exactly_once_delivery" => {
                subscription.enable_exactly_once_delivery = update.enable_exactly_once_delivery;
            }
            "expiration_policy" => subscription.expiration_policy = update.expiration_policy,
            "expiration_policy.ttl" => {
                let ttl = update.expiration_policy.and_then(|policy| policy.ttl);
                subscription.expiration_policy = Some(pb::ExpirationPolicy { ttl });
            }
            "retry_policy" => subscription.retry_policy = update.retry_policy,
            "retry_policy.minimum_backoff" => {
                subscription.retry_policy.get_or_insert_default().minimum_backoff = retry.minimum_backoff;
            }
            "retry_policy.maximum_backoff" => {
                subscription.retry_policy.get_or_insert_default().maximum_backoff = retry.maximum_backoff;
            }
            "dead_letter_policy" => subscription.dead_letter_policy.clone_from(&update.dead_letter_policy),
            "dead_letter_policy.dead_letter_topic" => {
                let policy = subscription.dead_letter_policy.get_or_insert_default();
                policy.dead_letter_topic.clone_from(&dead_letter.dead_letter_topic);
            }
            "dead_letter_policy.max_delivery_attempts" => {
                let policy = subscription.dead_letter_policy.get_or_insert_default();
                policy.max_delivery_attempts = dead_letter.max_delivery_attempts;
            }
            "push_config" => subscription.push_config.clone_from(&update.push_config),
            path if path.starts_with("push_config.") => update_push(subscription, update, path)?,
            "bigquery_config" => subscription.bigquery_config.clone_from(&update.bigquery_config),
            "cloud_storage_config" => subscription.cloud_storage_config.clone_from(&update.cloud_storage_config),
            "bigtable_config" => subscription.bigtable_config.clone_from(&update.bigtable_config),
            "message_transforms" => subscription.message_transforms.clone_from(&update.message_transforms),
            "name"
            | "topic"
            | "filter"
            | "enable_message_ordering"
            | "detached"
            | "state"
            | "topic_message_retention_duration"
            | "analytics_hub_subscription_info"
            | "tags" => {
                return Err(fixed(path));
            }
            _ => return Err(unknown(path)),
        }
    }
    Ok(())
}

fn update_push(subscription: &mut pb::Subscription, update: &pb::Subscription, path: &str) -> Result<(), Invalid> {
    let config = subscription.push_config.get_or_insert_default();
    let update = update.push_config.clone().unwrap_or_default();
    match path {
        "push_config.push_endpoint" => config.push_endpoint = update.push_endpoint,
        "push_config.attributes" => config.attributes = update.attributes,
        "push_config.oidc_token" => config.authentication_method = update.authentication_method,
        "push_config.pubsub_wrapper" | "push_config.no_wrapper" => config.wrapper = update.wrapper,
        _ => return Err(unknown(path)),
    }
    Ok(())
}

/// As [`update_topic`].
pub(super) fn update_snapshot(
    snapshot: &mut pb::Snapshot,
    update: &pb::Snapshot,
    paths: &[String],
) -> Result<(), Invalid> {
    for path in paths {
        match path.as_str() {
            "labels" => snapshot.labels.clone_from(&update.labels),
            "expire_time" => snapshot.expire_time = update.expire_time,
            "name" | "topic" => return Err(fixed(path)),
            _ => return Err(unknown(path)),
        }
    }
    Ok(())
}

fn fixed(path: &str) -> Invalid {
    Invalid::new("update_mask", format!("`{path}` cannot be changed"))
}

fn unknown(path: &str) -> Invalid {
    Invalid::new("update_mask", format!("`{path}` is not a field that can be updated"))
}
