//! For each RPC: what it refuses, with which code and for which field, and that nothing has changed.

use std::collections::HashMap;
use std::fmt::Debug;

use orderflow_proto::google::pubsub::v1 as pb;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, SUBSCRIPTION, TOPIC, TestBroker, message};

pub(crate) const NO_TOPIC: &str = "projects/p/topics/none";
pub(crate) const NO_SUBSCRIPTION: &str = "projects/p/subscriptions/none";

/// Names that are not names of a topic. Put the collection in for `*`.
const BAD_NAMES: [&str; 12] = [
    "",
    "orders",
    "projects/p/*",
    "projects/p/*/",
    "projects/p/*/ab",
    "projects/p/*/1abc",
    "projects/p/*/googabc",
    "projects/p/*/a b c",
    "projects//*/orders",
    "projects/p/*/orders/more",
    "projects/p/things/orders",
    "Projects/p/*/orders",
];

pub(crate) fn bad_names(collection: &str) -> Vec<String> {
    let too_long = format!("projects/p/{collection}/{}", "a".repeat(256));
    BAD_NAMES.iter().map(|name| name.replace('*', collection)).chain([too_long]).collect()
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// All that can be seen of the broker's state.
async fn seen(client: &Client) -> impl PartialEq + Debug + use<> {
    let mut client = client.clone();
    let topics = pb::ListTopicsRequest { project: "projects/p".to_owned(), ..Default::default() };
    let subscriptions = pb::ListSubscriptionsRequest { project: "projects/p".to_owned(), ..Default::default() };
    let snapshots = pb::ListSnapshotsRequest { project: "projects/p".to_owned(), ..Default::default() };
    let stats = orderflow_proto::orderflow::broker::v1::GetStatsRequest::default();
    let mut stats = client.inspector.get_stats(stats).await.unwrap().into_inner();
    // What changes by itself as time goes by.
    stats.broker = None;
    for stats in &mut stats.subscriptions {
        stats.oldest_unacked_age = None;
        (stats.published_per_second, stats.delivered_per_second, stats.acked_per_second) = (0.0, 0.0, 0.0);
    }
    for stats in &mut stats.topics {
        stats.published_per_second = 0.0;
    }
    (
        client.publisher.list_topics(topics).await.unwrap().into_inner(),
        client.subscriber.list_subscriptions(subscriptions).await.unwrap().into_inner(),
        client.subscriber.list_snapshots(snapshots).await.unwrap().into_inner(),
        stats,
    )
}

/// Checks answers against the code and, where one is named, the field that they complain about.
pub(crate) struct Table {
    _broker: TestBroker,
    pub(crate) client: Client,
}

impl Table {
    pub(crate) async fn new() -> Self {
        let (broker, client) = TestBroker::with_subscription().await;
        client.publish(vec![message("there")]).await.unwrap();
        Self { _broker: broker, client }
    }

    pub(crate) async fn refuses<R, T>(
        &self,
        cases: impl IntoIterator<Item = (R, Code, &str)>,
        call: impl AsyncFn(Client, R) -> Result<Response<T>, Status>,
    ) where
        R: Clone + Debug,
        T: Debug,
    {
        for (request, code, field) in cases {
            let before = seen(&self.client).await;
            let answer = call(self.client.clone(), request.clone()).await;
            let status = answer.expect_err(&format!("{request:?} passes"));
            assert_eq!(status.code(), code, "{request:?}: {status}");
            if !field.is_empty() {
                let details = status.get_details_bad_request().unwrap_or_else(|| panic!("{request:?}: no details"));
                assert_eq!(details.field_violations[0].field, field, "{request:?}");
            }
            assert_eq!(seen(&self.client).await, before, "{request:?} changed something");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_topic_refuses_bad_names_and_settings_that_it_does_not_honour() {
    let table = Table::new().await;
    let names = bad_names("topics").into_iter().map(|name| {
        let request = pb::Topic { name, ..Default::default() };
        (request, Code::InvalidArgument, "name")
    });
    let with = |change: fn(&mut pb::Topic)| {
        let mut request = pb::Topic { name: NO_TOPIC.to_owned(), ..Default::default() };
        change(&mut request);
        request
    };
    type Change = fn(&mut pb::Topic);
    let settings: [(&str, Change); 12] = [
        ("message_storage_policy", |topic| topic.message_storage_policy = Some(Default::default())),
        ("kms_key_name", |topic| topic.kms_key_name = "key".to_owned()),
        ("schema_settings", |topic| topic.schema_settings = Some(Default::default())),
        ("satisfies_pzs", |topic| topic.satisfies_pzs = true),
        ("message_retention_duration", |topic| topic.message_retention_duration = Some(Default::default())),
        ("message_retention_duration", |topic| topic.message_retention_duration = seconds(599)),
        ("message_retention_duration", |topic| topic.message_retention_duration = seconds(31 * 86_400 + 1)),
        ("message_retention_duration", |topic| topic.message_retention_duration = seconds(-600)),
        ("ingestion_data_source_settings", |topic| topic.ingestion_data_source_settings = Some(Default::default())),
        ("message_transforms", |topic| topic.message_transforms = vec![Default::default()]),
        ("tags", |topic| topic.tags = HashMap::from([("1".to_owned(), "2".to_owned())])),
        ("labels", |topic| topic.labels = HashMap::from([("k".repeat(64), String::new())])),
    ];
    let settings = settings.map(|(field, change)| (with(change), Code::InvalidArgument, field));
    let taken = (pb::Topic { name: TOPIC.to_owned(), ..Default::default() }, Code::AlreadyExists, "");
    let cases = names.chain(settings).chain([taken]);
    table.refuses(cases, async |mut client, request| client.publisher.create_topic(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_subscription_refuses_bad_names_ranges_and_settings_that_it_does_not_honour() {
    let table = Table::new().await;
    let with = |change: &dyn Fn(&mut pb::Subscription)| {
        let (name, topic) = (NO_SUBSCRIPTION.to_owned(), TOPIC.to_owned());
        let mut request = pb::Subscription { name, topic, ..Default::default() };
        change(&mut request);
        request
    };
    let names = bad_names("subscriptions").into_iter().map(|name| {
        let request = with(&|subscription| subscription.name = name.clone());
        (request, Code::InvalidArgument, "name")
    });
    let topics = bad_names("topics").into_iter().map(|topic| {
        let request = with(&|subscription| subscription.topic = topic.clone());
        (request, Code::InvalidArgument, "topic")
    });
    let retry = |subscription: &mut pb::Subscription, min: (i64, i32), max: (i64, i32)| {
        let duration = |(seconds, nanos)| Some(prost_types::Duration { seconds, nanos });
        let policy = pb::RetryPolicy { minimum_backoff: duration(min), maximum_backoff: duration(max) };
        subscription.retry_policy = Some(policy);
    };
    let dead = |subscription: &mut pb::Subscription, topic: &str, max_delivery_attempts| {
        let dead_letter_topic = topic.to_owned();
        subscription.dead_letter_policy = Some(pb::DeadLetterPolicy { dead_letter_topic, max_delivery_attempts });
    };
    type Change<'a> = &'a dyn Fn(&mut pb::Subscription);
    let settings: [(&str, Change<'_>); 32] = [
        ("ack_deadline_seconds", &|subscription| subscription.ack_deadline_seconds = -1),
        ("ack_deadline_seconds", &|subscription| subscription.ack_deadline_seconds = 9),
        ("ack_deadline_seconds", &|subscription| subscription.ack_deadline_seconds = 601),
        ("ack_deadline_seconds", &|subscription| subscription.ack_deadline_seconds = i32::MAX),
        ("bigquery_config", &|subscription| subscription.bigquery_config = Some(Default::default())),
        ("cloud_storage_config", &|subscription| subscription.cloud_storage_config = Some(Default::default())),
        ("bigtable_config", &|subscription| subscription.bigtable_config = Some(Default::default())),
        ("message_retention_duration", &|subscription| subscription.message_retention_duration = seconds(599)),
        ("message_retention_duration", &|subscription| {
            subscription.message_retention_duration = seconds(31 * 86_400 + 1);
        }),
        ("expiration_policy.ttl", &|subscription| {
            subscription.expiration_policy = Some(pb::ExpirationPolicy { ttl: Some(Default::default()) });
        }),
        ("expiration_policy.ttl", &|subscription| {
            subscription.expiration_policy = Some(pb::ExpirationPolicy { ttl: seconds(86_399) });
        }),
        ("filter", &|subscription| subscription.filter = "attributes".to_owned()),
        ("filter", &|subscription| subscription.filter = " ".to_owned()),
        ("filter", &|subscription| subscription.filter = "attributes:a AND attributes:b OR attributes:c".to_owned()),
        ("filter", &|subscription| subscription.filter = format!("attributes:{}", "x".repeat(250))),
        ("detached", &|subscription| subscription.detached = true),
        ("message_transforms", &|subscription| subscription.message_transforms = vec![Default::default()]),
        ("tags", &|subscription| subscription.tags = HashMap::from([("1".to_owned(), "2".to_owned())])),
        ("labels", &|subscription| subscription.labels = HashMap::from([(String::new(), "v".to_owned())])),
        ("retry_policy.minimum_backoff", &|subscription| retry(subscription, (-1, 0), (1, 0))),
        ("retry_policy.minimum_backoff", &|subscription| retry(subscription, (0, -1), (1, 0))),
        ("retry_policy.minimum_backoff", &|subscription| retry(subscription, (0, 1), (1, 0))),
        ("retry_policy.minimum_backoff", &|subscription| retry(subscription, (601, 0), (601, 0))),
        ("retry_policy.maximum_backoff", &|subscription| retry(subscription, (1, 0), (600, 1_000_000))),
        ("retry_policy.maximum_backoff", &|subscription| retry(subscription, (1, 0), (i64::MAX, 0))),
        ("retry_policy.minimum_backoff", &|subscription| retry(subscription, (2, 0), (1, 0))),
        ("dead_letter_policy.dead_letter_topic", &|subscription| dead(subscription, "", 5)),
        ("dead_letter_policy.dead_letter_topic", &|subscription| dead(subscription, "dead", 5)),
        ("dead_letter_policy.max_delivery_attempts", &|subscription| dead(subscription, TOPIC, -1)),
        ("dead_letter_policy.max_delivery_attempts", &|subscription| dead(subscription, TOPIC, 4)),
        ("dead_letter_policy.max_delivery_attempts", &|subscription| dead(subscription, TOPIC, 101)),
        ("dead_letter_policy.max_delivery_attempts", &|subscription| dead(subscription, TOPIC, i32::MAX)),
    ];
    let settings = settings.map(|(field, change)| (with(change), Code::InvalidArgument, field));
    let others = [
        (with(&|subscription| subscription.name = SUBSCRIPTION.to_owned()), Code::AlreadyExists, ""),
        (with(&|subscription| subscription.topic = NO_TOPIC.to_owned()), Code::NotFound, ""),
    ];
    let cases = names.chain(topics).chain(settings).chain(others);
    table.refuses(cases, async |mut client, request| client.subscriber.create_subscription(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_topic_refuse_bad_names_and_do_not_find_what_is_not_there() {
    let table = Table::new().await;
    let cases = || {
        let bad = bad_names("topics").into_iter().map(|name| (name, Code::InvalidArgument, "topic"));
        bad.chain([(NO_TOPIC.to_owned(), Code::NotFound, "")])
    };
    table
        .refuses(cases(), async |mut client, topic| client.publisher.get_topic(pb::GetTopicRequest { topic }).await)
        .await;
    table
        .refuses(cases(), async |mut client, topic| {
            client.publisher.delete_topic(pb::DeleteTopicRequest { topic }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, topic| {
            let request = pb::ListTopicSubscriptionsRequest { topic, ..Default::default() };
            client.publisher.list_topic_subscriptions(request).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, topic| {
            client.publisher.publish(pb::PublishRequest { topic, messages: vec![message("x")] }).await
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_subscription_refuse_bad_names_and_do_not_find_what_is_not_there() {
    let table = Table::new().await;
    let good_id = table.client.pull(1).await.remove(0).ack_id;
    let cases = || {
        let bad = bad_names("subscriptions").into_iter().map(|name| (name, Code::InvalidArgument, "subscription"));
        bad.chain([(NO_SUBSCRIPTION.to_owned(), Code::NotFound, "")])
    };
    table
        .refuses(cases(), async |mut client, subscription| {
            client.subscriber.get_subscription(pb::GetSubscriptionRequest { subscription }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, subscription| {
            client.subscriber.delete_subscription(pb::DeleteSubscriptionRequest { subscription }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, subscription| {
            client.subscriber.pull(pb::PullRequest { subscription, max_messages: 1, ..Default::default() }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, subscription| {
            let ack_ids = vec![good_id.clone()];
            client.subscriber.acknowledge(pb::AcknowledgeRequest { subscription, ack_ids }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, subscription| {
            let ack_ids = vec![good_id.clone()];
            let request = pb::ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds: 0 };
            client.subscriber.modify_ack_deadline(request).await
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_and_deadlines_refuse_garbage_and_then_change_nothing_of_the_rest() {
    let table = Table::new().await;
    let good_id = table.client.pull(1).await.remove(0).ack_id;
    let mut broken = good_id.clone();
    broken.replace_range(..1, if broken.starts_with('A') { "B" } else { "A" });
    let ids = [
        (Vec::new(), Code::InvalidArgument, "ack_ids"),
        (vec![String::new()], Code::InvalidArgument, "ack_ids"),
        (vec!["garbage".to_owned()], Code::InvalidArgument, "ack_ids"),
        (vec![broken], Code::InvalidArgument, "ack_ids"),
        (vec![good_id.clone(), "garbage".to_owned()], Code::InvalidArgument, "ack_ids"),
        (vec![good_id.clone(); 10_001], Code::InvalidArgument, "ack_ids"),
    ];
    table
        .refuses(ids.clone(), async |mut client, ack_ids| {
            let subscription = SUBSCRIPTION.to_owned();
            client.subscriber.acknowledge(pb::AcknowledgeRequest { subscription, ack_ids }).await
        })
        .await;
    table
        .refuses(ids, async |mut client, ack_ids| {
            let subscription = SUBSCRIPTION.to_owned();
            let request = pb::ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds: 0 };
            client.subscriber.modify_ack_deadline(request).await
        })
        .await;
    let seconds = [-1, 601, i32::MAX].map(|seconds| (seconds, Code::InvalidArgument, "ack_deadline_seconds"));
    table
        .refuses(seconds, async |mut client, ack_deadline_seconds| {
            let (subscription, ack_ids) = (SUBSCRIPTION.to_owned(), vec![good_id.clone()]);
            let request = pb::ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds };
            client.subscriber.modify_ack_deadline(request).await
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_refuses_to_return_no_messages() {
    let table = Table::new().await;
    let cases = [0, -1, i32::MIN].map(|count| (count, Code::InvalidArgument, "max_messages"));
    table
        .refuses(cases, async |mut client, max_messages| {
            let subscription = SUBSCRIPTION.to_owned();
            client.subscriber.pull(pb::PullRequest { subscription, max_messages, ..Default::default() }).await
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_refuse_bad_projects_sizes_and_tokens() {
    let table = Table::new().await;
    let cases = || {
        [
            (("", 0, ""), Code::InvalidArgument, "project"),
            (("p", 0, ""), Code::InvalidArgument, "project"),
            (("projects/", 0, ""), Code::InvalidArgument, "project"),
            (("projects/p/topics", 0, ""), Code::InvalidArgument, "project"),
            (("projects/p", -1, ""), Code::InvalidArgument, "page_size"),
            (("projects/p", 0, "garbage"), Code::InvalidArgument, "page_token"),
            (("projects/p", 0, "AAAAAAAA"), Code::InvalidArgument, "page_token"),
        ]
    };
    table
        .refuses(cases(), async |mut client, (project, page_size, token)| {
            let (project, page_token) = (project.to_owned(), token.to_owned());
            client.publisher.list_topics(pb::ListTopicsRequest { project, page_size, page_token }).await
        })
        .await;
    table
        .refuses(cases(), async |mut client, (project, page_size, token)| {
            let (project, page_token) = (project.to_owned(), token.to_owned());
            client.subscriber.list_subscriptions(pb::ListSubscriptionsRequest { project, page_size, page_token }).await
        })
        .await;
}
