//! Every setting of the API that the broker does not honour, one by one: it is refused by its name, and never ignored.

use std::collections::HashMap;

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::push_config::{AuthenticationMethod, OidcToken};
use prost_types::FieldMask;
use tonic::Code;

use crate::bad_input::{NO_SUBSCRIPTION, NO_TOPIC, Table};
use crate::harness::{SUBSCRIPTION, TOPIC};

type OfTopic = (&'static str, fn(&mut pb::Topic));
type OfSubscription = (&'static str, fn(&mut pb::Subscription));

const OF_TOPICS: [OfTopic; 7] = [
    ("message_storage_policy", |topic| topic.message_storage_policy = Some(Default::default())),
    ("kms_key_name", |topic| topic.kms_key_name = "key".to_owned()),
    ("schema_settings", |topic| topic.schema_settings = Some(Default::default())),
    ("satisfies_pzs", |topic| topic.satisfies_pzs = true),
    ("ingestion_data_source_settings", |topic| topic.ingestion_data_source_settings = Some(Default::default())),
    ("message_transforms", |topic| topic.message_transforms = vec![Default::default()]),
    ("tags", |topic| topic.tags = HashMap::from([("1".to_owned(), "2".to_owned())])),
];

const OF_SUBSCRIPTIONS: [OfSubscription; 12] = [
    ("bigquery_config", |subscription| subscription.bigquery_config = Some(Default::default())),
    ("cloud_storage_config", |subscription| subscription.cloud_storage_config = Some(Default::default())),
    ("bigtable_config", |subscription| subscription.bigtable_config = Some(Default::default())),
    ("message_transforms", |subscription| subscription.message_transforms = vec![Default::default()]),
    ("detached", |subscription| subscription.detached = true),
    ("tags", |subscription| subscription.tags = HashMap::from([("1".to_owned(), "2".to_owned())])),
    ("push_config.oidc_token", |subscription| {
        let token = AuthenticationMethod::OidcToken(OidcToken::default());
        push(subscription, "http://h").authentication_method = Some(token);
    }),
    ("push_config.attributes", |subscription| {
        push(subscription, "http://h").attributes = [("x-goog-version".to_owned(), "v2".to_owned())].into();
    }),
    ("push_config.attributes", |subscription| {
        push(subscription, "http://h").attributes = [("x-other".to_owned(), "v1".to_owned())].into();
    }),
    ("push_config.push_endpoint", |subscription| {
        push(subscription, "").wrapper = Some(pb::push_config::Wrapper::PubsubWrapper(Default::default()));
    }),
    ("push_config.push_endpoint", |subscription| {
        push(subscription, "ftp://h/push");
    }),
    ("enable_exactly_once_delivery", |subscription| {
        push(subscription, "http://h");
        subscription.enable_exactly_once_delivery = true;
    }),
];

/// URLs that nothing can be pushed to.
const BAD_URLS: [&str; 9] =
    ["h", "/push", "http://", "http:///push", "https://h:0/", "http://h:x/", "http://a:b@h/", "http://a b/", "HTTP"];

fn push<'a>(subscription: &'a mut pb::Subscription, url: &str) -> &'a mut pb::PushConfig {
    let config = pb::PushConfig { push_endpoint: url.to_owned(), ..Default::default() };
    subscription.push_config.insert(config)
}

/// The mask for a field, by the first part of its path.
fn mask(field: &str) -> Option<FieldMask> {
    let mut paths = vec![field.split('.').next().unwrap().to_owned()];
    if field == "enable_exactly_once_delivery" {
        paths.push("push_config".to_owned());
    }
    Some(FieldMask { paths })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_not_made_with_a_setting_that_is_not_honoured_nor_changed_to_it() {
    let table = Table::new().await;
    let with = |name: &str, change: fn(&mut pb::Topic)| {
        let mut topic = pb::Topic { name: name.to_owned(), ..Default::default() };
        change(&mut topic);
        topic
    };
    let created = OF_TOPICS.map(|(field, change)| (with(NO_TOPIC, change), Code::InvalidArgument, field));
    table.refuses(created, async |mut client, request| client.publisher.create_topic(request).await).await;
    for (field, change) in OF_TOPICS {
        // What never changes is refused as a part of the mask.
        let is_fixed = ["kms_key_name", "satisfies_pzs", "tags"].contains(&field);
        let named = if is_fixed { "update_mask".to_owned() } else { format!("topic.{field}") };
        let request = pb::UpdateTopicRequest { topic: Some(with(TOPIC, change)), update_mask: mask(field) };
        let case = [(request, Code::InvalidArgument, named.as_str())];
        table.refuses(case, async |mut client, request| client.publisher.update_topic(request).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_not_made_with_a_setting_that_is_not_honoured_nor_changed_to_it() {
    let table = Table::new().await;
    let with = |name: &str, change: fn(&mut pb::Subscription)| {
        let mut subscription =
            pb::Subscription { name: name.to_owned(), topic: TOPIC.to_owned(), ..Default::default() };
        change(&mut subscription);
        subscription
    };
    let created = OF_SUBSCRIPTIONS.map(|(field, change)| (with(NO_SUBSCRIPTION, change), Code::InvalidArgument, field));
    table.refuses(created, async |mut client, request| client.subscriber.create_subscription(request).await).await;
    for (field, change) in OF_SUBSCRIPTIONS {
        let is_fixed = ["detached", "tags"].contains(&field);
        let named = if is_fixed { "update_mask".to_owned() } else { format!("subscription.{field}") };
        let subscription = Some(with(SUBSCRIPTION, change));
        let request = pb::UpdateSubscriptionRequest { subscription, update_mask: mask(field) };
        let case = [(request, Code::InvalidArgument, named.as_str())];
        table.refuses(case, async |mut client, request| client.subscriber.update_subscription(request).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modify_push_config_takes_only_a_url_that_can_be_pushed_to() {
    let table = Table::new().await;
    let long = format!("http://h/{}", "x".repeat(2_048));
    let cases = BAD_URLS.into_iter().chain([long.as_str()]).map(|url| {
        let mut subscription = pb::Subscription::default();
        push(&mut subscription, url);
        let pb::Subscription { push_config, .. } = subscription;
        let request = pb::ModifyPushConfigRequest { subscription: SUBSCRIPTION.to_owned(), push_config };
        (request, Code::InvalidArgument, "push_config.push_endpoint")
    });
    table.refuses(cases, async |mut client, request| client.subscriber.modify_push_config(request).await).await;
}
