//! As `bad_input`, for updates, seek and snapshots.

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::seek_request::Target;
use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt;

use crate::bad_input::{NO_SUBSCRIPTION, NO_TOPIC, Table, bad_names, seconds};
use crate::harness::{SUBSCRIPTION, TOPIC};

const SNAPSHOT: &str = "projects/p/snapshots/before";
const NO_SNAPSHOT: &str = "projects/p/snapshots/none";

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

#[tokio::test(flavor = "multi_thread")]
async fn update_topic_refuses_masks_and_values_that_cannot_be() {
    let table = Table::new().await;
    let request = |update_mask, change: fn(&mut pb::Topic)| {
        let mut topic = pb::Topic { name: TOPIC.to_owned(), ..Default::default() };
        change(&mut topic);
        pb::UpdateTopicRequest { topic: Some(topic), update_mask }
    };
    let masks = [None, mask(&[]), mask(&["name"]), mask(&["labels", "nothing"]), mask(&["labels.team"]), mask(&["*"])];
    let masks = masks.map(|mask| (request(mask, |_| {}), Code::InvalidArgument, "update_mask"));
    type Change = fn(&mut pb::Topic);
    let values: [(&str, &str, Change); 5] = [
        ("labels", "topic.labels", |topic| topic.labels = [(String::new(), String::new())].into()),
        ("message_retention_duration", "topic.message_retention_duration", |topic| {
            topic.message_retention_duration = seconds(599);
        }),
        ("schema_settings", "topic.schema_settings", |topic| topic.schema_settings = Some(Default::default())),
        ("message_storage_policy", "topic.message_storage_policy", |topic| {
            topic.message_storage_policy = Some(Default::default());
        }),
        ("message_transforms", "topic.message_transforms", |topic| {
            topic.message_transforms = vec![Default::default()];
        }),
    ];
    let values = values.map(|(path, field, change)| (request(mask(&[path]), change), Code::InvalidArgument, field));
    let names = bad_names("topics").into_iter().map(|name| {
        let topic = Some(pb::Topic { name, ..Default::default() });
        (pb::UpdateTopicRequest { topic, update_mask: mask(&["labels"]) }, Code::InvalidArgument, "topic.name")
    });
    let others = [
        (pb::UpdateTopicRequest { topic: None, update_mask: mask(&["labels"]) }, Code::InvalidArgument, "topic"),
        (request(mask(&["labels"]), |topic| topic.name = NO_TOPIC.to_owned()), Code::NotFound, ""),
    ];
    let cases = masks.into_iter().chain(values).chain(names).chain(others);
    table.refuses(cases, async |mut client, request| client.publisher.update_topic(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn update_subscription_refuses_masks_and_values_that_cannot_be() {
    let table = Table::new().await;
    let request = |update_mask, change: &dyn Fn(&mut pb::Subscription)| {
        let mut subscription = pb::Subscription { name: SUBSCRIPTION.to_owned(), ..Default::default() };
        change(&mut subscription);
        pb::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask }
    };
    let fixed = ["name", "topic", "filter", "enable_message_ordering", "detached", "state", "nothing", "labels.team"];
    let masks = fixed.map(|path| mask(&["labels", path])).into_iter().chain([None, mask(&[]), mask(&["*"])]);
    let masks = masks.map(|mask| (request(mask, &|_| {}), Code::InvalidArgument, "update_mask"));
    type Change<'a> = &'a dyn Fn(&mut pb::Subscription);
    let values: [(&str, &str, Change<'_>); 10] = [
        ("ack_deadline_seconds", "subscription.ack_deadline_seconds", &|update| update.ack_deadline_seconds = 601),
        ("message_retention_duration", "subscription.message_retention_duration", &|update| {
            update.message_retention_duration = seconds(1);
        }),
        ("expiration_policy.ttl", "subscription.expiration_policy.ttl", &|update| {
            update.expiration_policy = Some(pb::ExpirationPolicy { ttl: seconds(1) });
        }),
        ("retry_policy.maximum_backoff", "subscription.retry_policy.maximum_backoff", &|update| {
            update.retry_policy = Some(pb::RetryPolicy { minimum_backoff: None, maximum_backoff: seconds(601) });
        }),
        // The least backoff that is filled in is longer than that.
        ("retry_policy.maximum_backoff", "subscription.retry_policy.minimum_backoff", &|update| {
            update.retry_policy = Some(pb::RetryPolicy { minimum_backoff: None, maximum_backoff: seconds(1) });
        }),
        // There is no policy yet, so that a number of attempts alone says nothing.
        ("dead_letter_policy.max_delivery_attempts", "subscription.dead_letter_policy.dead_letter_topic", &|update| {
            let (dead_letter_topic, max_delivery_attempts) = (TOPIC.to_owned(), 7);
            update.dead_letter_policy = Some(pb::DeadLetterPolicy { dead_letter_topic, max_delivery_attempts });
        }),
        ("push_config", "subscription.push_config.push_endpoint", &|update| {
            update.push_config = Some(pb::PushConfig { push_endpoint: "ftp://x".to_owned(), ..Default::default() });
        }),
        // There is no endpoint yet, so that a version alone says nothing.
        ("push_config.attributes", "subscription.push_config.push_endpoint", &|update| {
            let attributes = [("x-goog-version".to_owned(), "v1".to_owned())].into();
            update.push_config = Some(pb::PushConfig { attributes, ..Default::default() });
        }),
        ("bigquery_config", "subscription.bigquery_config", &|update| {
            update.bigquery_config = Some(Default::default());
        }),
        ("labels", "subscription.labels", &|update| update.labels = [(String::new(), String::new())].into()),
    ];
    let values = values.map(|(path, field, change)| (request(mask(&[path]), change), Code::InvalidArgument, field));
    let no_dead_letter_topic: Change<'_> = &|update| {
        let dead_letter_topic = NO_TOPIC.to_owned();
        update.dead_letter_policy = Some(pb::DeadLetterPolicy { dead_letter_topic, max_delivery_attempts: 5 });
    };
    let others = [
        (
            pb::UpdateSubscriptionRequest { subscription: None, update_mask: mask(&["labels"]) },
            Code::InvalidArgument,
            "subscription",
        ),
        (request(mask(&["labels"]), &|update| update.name = NO_SUBSCRIPTION.to_owned()), Code::NotFound, ""),
        (
            request(mask(&["labels"]), &|update| update.name = "sub".to_owned()),
            Code::InvalidArgument,
            "subscription.name",
        ),
        (request(mask(&["dead_letter_policy"]), no_dead_letter_topic), Code::NotFound, ""),
    ];
    let cases = masks.chain(values).chain(others);
    table.refuses(cases, async |mut client, request| client.subscriber.update_subscription(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_known_is_named() {
    let table = Table::new().await;
    let topic = Some(pb::Topic { name: TOPIC.to_owned(), ..Default::default() });
    let request = pb::UpdateTopicRequest { topic, update_mask: mask(&["labels", "partitions"]) };
    let status = table.client.publisher.clone().update_topic(request).await.unwrap_err();
    let violation = &status.get_details_bad_request().unwrap().field_violations[0];
    assert!(violation.description.contains("`partitions`"), "{violation:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn modify_push_config_refuses_what_is_no_url_and_accepts_the_empty_configuration() {
    let table = Table::new().await;
    let request = |subscription: &str, endpoint: Option<&str>| pb::ModifyPushConfigRequest {
        subscription: subscription.to_owned(),
        push_config: endpoint
            .map(|endpoint| pb::PushConfig { push_endpoint: endpoint.to_owned(), ..Default::default() }),
    };
    let cases = [
        (request(SUBSCRIPTION, Some("x")), Code::InvalidArgument, "push_config.push_endpoint"),
        (request("sub", None), Code::InvalidArgument, "subscription"),
        (request(NO_SUBSCRIPTION, None), Code::NotFound, ""),
    ];
    table.refuses(cases, async |mut client, request| client.subscriber.modify_push_config(request).await).await;
    let mut subscriber = table.client.subscriber.clone();
    subscriber.modify_push_config(request(SUBSCRIPTION, None)).await.unwrap();
    subscriber.modify_push_config(request(SUBSCRIPTION, Some(""))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_seek_and_create_snapshot_refuse_what_they_cannot_do() {
    let table = Table::new().await;
    let subscriptions = || {
        let bad = bad_names("subscriptions").into_iter().map(|name| (name, Code::InvalidArgument, "subscription"));
        bad.chain([(NO_SUBSCRIPTION.to_owned(), Code::NotFound, "")])
    };
    table
        .refuses(subscriptions(), async |mut client, subscription| {
            client.publisher.detach_subscription(pb::DetachSubscriptionRequest { subscription }).await
        })
        .await;
    let time = |seconds, nanos| Some(Target::Time(prost_types::Timestamp { seconds, nanos }));
    table
        .refuses(subscriptions(), async |mut client, subscription| {
            client.subscriber.seek(pb::SeekRequest { subscription, target: time(1, 0) }).await
        })
        .await;
    let snapshot = |name: &str| Some(Target::Snapshot(name.to_owned()));
    let targets = [
        (None, Code::InvalidArgument, "target"),
        (time(1, -1), Code::InvalidArgument, "time"),
        (time(1, 1_000_000_000), Code::InvalidArgument, "time"),
        (snapshot(""), Code::InvalidArgument, "snapshot"),
        (snapshot(SUBSCRIPTION), Code::InvalidArgument, "snapshot"),
        (snapshot(NO_SNAPSHOT), Code::NotFound, ""),
    ];
    table
        .refuses(targets, async |mut client, target| {
            client.subscriber.seek(pb::SeekRequest { subscription: SUBSCRIPTION.to_owned(), target }).await
        })
        .await;
    let create = |name: &str, subscription: &str| pb::CreateSnapshotRequest {
        name: name.to_owned(),
        subscription: subscription.to_owned(),
        ..Default::default()
    };
    let pair = || [("k".to_owned(), "v".to_owned())].into();
    table.client.subscriber.clone().create_snapshot(create(SNAPSHOT, SUBSCRIPTION)).await.unwrap();
    let names = bad_names("snapshots").into_iter();
    let cases = names.map(|name| (create(&name, SUBSCRIPTION), Code::InvalidArgument, "name")).chain([
        (create(NO_SNAPSHOT, "sub"), Code::InvalidArgument, "subscription"),
        (create(NO_SNAPSHOT, NO_SUBSCRIPTION), Code::NotFound, ""),
        (create(SNAPSHOT, SUBSCRIPTION), Code::AlreadyExists, ""),
        (
            pb::CreateSnapshotRequest { tags: pair(), ..create(NO_SNAPSHOT, SUBSCRIPTION) },
            Code::InvalidArgument,
            "tags",
        ),
    ]);
    table.refuses(cases, async |mut client, request| client.subscriber.create_snapshot(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_snapshots_refuse_bad_names_and_values() {
    let table = Table::new().await;
    let create = pb::CreateSnapshotRequest {
        name: SNAPSHOT.to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        ..Default::default()
    };
    let made = table.client.subscriber.clone().create_snapshot(create).await.unwrap().into_inner();
    let names = || {
        let bad = bad_names("snapshots").into_iter().map(|name| (name, Code::InvalidArgument, "snapshot"));
        bad.chain([(NO_SNAPSHOT.to_owned(), Code::NotFound, "")])
    };
    table
        .refuses(names(), async |mut client, snapshot| {
            client.subscriber.get_snapshot(pb::GetSnapshotRequest { snapshot }).await
        })
        .await;
    table
        .refuses(names(), async |mut client, snapshot| {
            client.subscriber.delete_snapshot(pb::DeleteSnapshotRequest { snapshot }).await
        })
        .await;
    let expires = made.expire_time.unwrap();
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let request = |paths: &[&str], expire_time, name: &str| pb::UpdateSnapshotRequest {
        snapshot: Some(pb::Snapshot { name: name.to_owned(), expire_time, ..Default::default() }),
        update_mask: mask(paths),
    };
    let cases = [
        (request(&[], None, SNAPSHOT), Code::InvalidArgument, "update_mask"),
        (request(&["topic"], None, SNAPSHOT), Code::InvalidArgument, "update_mask"),
        (request(&["nothing"], None, SNAPSHOT), Code::InvalidArgument, "update_mask"),
        (request(&["expire_time"], None, SNAPSHOT), Code::InvalidArgument, "snapshot.expire_time"),
        (request(&["expire_time"], at(1), SNAPSHOT), Code::InvalidArgument, "expire_time"),
        (request(&["expire_time"], at(expires.seconds + 3_600), SNAPSHOT), Code::InvalidArgument, "expire_time"),
        (request(&["labels"], None, "before"), Code::InvalidArgument, "snapshot.name"),
        (request(&["labels"], None, NO_SNAPSHOT), Code::NotFound, ""),
        (
            pb::UpdateSnapshotRequest { snapshot: None, update_mask: mask(&["labels"]) },
            Code::InvalidArgument,
            "snapshot",
        ),
    ];
    table.refuses(cases, async |mut client, request| client.subscriber.update_snapshot(request).await).await;
    let pages = [
        (("p", 0, ""), Code::InvalidArgument, "project"),
        (("projects/p", -1, ""), Code::InvalidArgument, "page_size"),
        (("projects/p", 0, "garbage"), Code::InvalidArgument, "page_token"),
    ];
    table
        .refuses(pages, async |mut client, (project, page_size, token)| {
            let (project, page_token) = (project.to_owned(), token.to_owned());
            client.subscriber.list_snapshots(pb::ListSnapshotsRequest { project, page_size, page_token }).await
        })
        .await;
    let topics = [("orders", Code::InvalidArgument, "topic"), (NO_TOPIC, Code::NotFound, "")];
    table
        .refuses(topics, async |mut client, topic| {
            let request = pb::ListTopicSnapshotsRequest { topic: topic.to_owned(), ..Default::default() };
            client.publisher.list_topic_snapshots(request).await
        })
        .await;
}
