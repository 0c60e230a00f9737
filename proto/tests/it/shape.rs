//! The declarations of `google.pubsub.v1` against the public API: a wrong number would drop what a client sends.

use std::collections::BTreeMap;

use orderflow_proto::DESCRIPTORS;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Messages and their fields, sorted by number.
const MESSAGES: &[(&str, &[&str])] = &[
    (
        "PubsubMessage",
        &[
            "bytes data = 1",
            "map<string, string> attributes = 2",
            "string message_id = 3",
            "google.protobuf.Timestamp publish_time = 4",
            "string ordering_key = 5",
        ],
    ),
    ("PublishRequest", &["string topic = 1", "repeated PubsubMessage messages = 2"]),
    ("PublishResponse", &["repeated string message_ids = 1"]),
    (
        "StreamingPullRequest",
        &[
            "string subscription = 1",
            "repeated string ack_ids = 2",
            "repeated int32 modify_deadline_seconds = 3",
            "repeated string modify_deadline_ack_ids = 4",
            "int32 stream_ack_deadline_seconds = 5",
            "string client_id = 6",
            "int64 max_outstanding_messages = 7",
            "int64 max_outstanding_bytes = 8",
            "int64 protocol_version = 10",
        ],
    ),
    (
        "StreamingPullResponse",
        &[
            "repeated ReceivedMessage received_messages = 1",
            "StreamingPullResponse.ModifyAckDeadlineConfirmation modify_ack_deadline_confirmation = 3",
            "StreamingPullResponse.SubscriptionProperties subscription_properties = 4",
            "StreamingPullResponse.AcknowledgeConfirmation acknowledge_confirmation = 5",
        ],
    ),
    (
        "StreamingPullResponse.AcknowledgeConfirmation",
        &[
            "repeated string ack_ids = 1",
            "repeated string invalid_ack_ids = 2",
            "repeated string unordered_ack_ids = 3",
            "repeated string temporary_failed_ack_ids = 4",
        ],
    ),
    (
        "StreamingPullResponse.ModifyAckDeadlineConfirmation",
        &[
            "repeated string ack_ids = 1",
            "repeated string invalid_ack_ids = 2",
            "repeated string temporary_failed_ack_ids = 3",
        ],
    ),
    (
        "StreamingPullResponse.SubscriptionProperties",
        &["bool exactly_once_delivery_enabled = 1", "bool message_ordering_enabled = 2"],
    ),
    ("ReceivedMessage", &["string ack_id = 1", "PubsubMessage message = 2", "int32 delivery_attempt = 3"]),
    ("PullRequest", &["string subscription = 1", "bool return_immediately = 2 deprecated", "int32 max_messages = 3"]),
    ("PullResponse", &["repeated ReceivedMessage received_messages = 1"]),
    ("AcknowledgeRequest", &["string subscription = 1", "repeated string ack_ids = 2"]),
    (
        "ModifyAckDeadlineRequest",
        &["string subscription = 1", "int32 ack_deadline_seconds = 3", "repeated string ack_ids = 4"],
    ),
    (
        "Topic",
        &[
            "string name = 1",
            "map<string, string> labels = 2",
            "MessageStoragePolicy message_storage_policy = 3",
            "string kms_key_name = 5",
            "SchemaSettings schema_settings = 6",
            "bool satisfies_pzs = 7",
            "google.protobuf.Duration message_retention_duration = 8",
            "Topic.State state = 9",
            "IngestionDataSourceSettings ingestion_data_source_settings = 10",
            "repeated MessageTransform message_transforms = 13",
            "map<string, string> tags = 14",
        ],
    ),
    ("GetTopicRequest", &["string topic = 1"]),
    ("ListTopicsRequest", &["string project = 1", "int32 page_size = 2", "string page_token = 3"]),
    ("ListTopicsResponse", &["repeated Topic topics = 1", "string next_page_token = 2"]),
    ("ListTopicSubscriptionsRequest", &["string topic = 1", "int32 page_size = 2", "string page_token = 3"]),
    ("ListTopicSubscriptionsResponse", &["repeated string subscriptions = 1", "string next_page_token = 2"]),
    ("ListTopicSnapshotsRequest", &["string topic = 1", "int32 page_size = 2", "string page_token = 3"]),
    ("ListTopicSnapshotsResponse", &["repeated string snapshots = 1", "string next_page_token = 2"]),
    ("UpdateTopicRequest", &["Topic topic = 1", "google.protobuf.FieldMask update_mask = 2"]),
    ("DeleteTopicRequest", &["string topic = 1"]),
    ("DetachSubscriptionRequest", &["string subscription = 1"]),
    ("DetachSubscriptionResponse", &[]),
    (
        "Subscription",
        &[
            "string name = 1",
            "string topic = 2",
            "PushConfig push_config = 4",
            "int32 ack_deadline_seconds = 5",
            "bool retain_acked_messages = 7",
            "google.protobuf.Duration message_retention_duration = 8",
            "map<string, string> labels = 9",
            "bool enable_message_ordering = 10",
            "ExpirationPolicy expiration_policy = 11",
            "string filter = 12",
            "DeadLetterPolicy dead_letter_policy = 13",
            "RetryPolicy retry_policy = 14",
            "bool detached = 15",
            "bool enable_exactly_once_delivery = 16",
            "google.protobuf.Duration topic_message_retention_duration = 17",
            "BigQueryConfig bigquery_config = 18",
            "Subscription.State state = 19",
            "CloudStorageConfig cloud_storage_config = 22",
            "Subscription.AnalyticsHubSubscriptionInfo analytics_hub_subscription_info = 23",
            "repeated MessageTransform message_transforms = 25",
            "map<string, string> tags = 26",
            "BigtableConfig bigtable_config = 27",
        ],
    ),
    ("RetryPolicy", &["google.protobuf.Duration minimum_backoff = 1", "google.protobuf.Duration maximum_backoff = 2"]),
    ("DeadLetterPolicy", &["string dead_letter_topic = 1", "int32 max_delivery_attempts = 2"]),
    ("ExpirationPolicy", &["google.protobuf.Duration ttl = 1"]),
    (
        "PushConfig",
        &[
            "string push_endpoint = 1",
            "map<string, string> attributes = 2",
            "authentication_method: PushConfig.OidcToken oidc_token = 3",
            "wrapper: PushConfig.PubsubWrapper pubsub_wrapper = 4",
            "wrapper: PushConfig.NoWrapper no_wrapper = 5",
        ],
    ),
    ("PushConfig.OidcToken", &["string service_account_email = 1", "string audience = 2"]),
    ("PushConfig.NoWrapper", &["bool write_metadata = 1"]),
    ("GetSubscriptionRequest", &["string subscription = 1"]),
    ("ListSubscriptionsRequest", &["string project = 1", "int32 page_size = 2", "string page_token = 3"]),
    ("ListSubscriptionsResponse", &["repeated Subscription subscriptions = 1", "string next_page_token = 2"]),
    ("UpdateSubscriptionRequest", &["Subscription subscription = 1", "google.protobuf.FieldMask update_mask = 2"]),
    ("DeleteSubscriptionRequest", &["string subscription = 1"]),
    (
        "SeekRequest",
        &["string subscription = 1", "target: google.protobuf.Timestamp time = 2", "target: string snapshot = 3"],
    ),
    ("SeekResponse", &[]),
    (
        "Snapshot",
        &[
            "string name = 1",
            "string topic = 2",
            "google.protobuf.Timestamp expire_time = 3",
            "map<string, string> labels = 4",
        ],
    ),
    (
        "CreateSnapshotRequest",
        &[
            "string name = 1",
            "string subscription = 2",
            "map<string, string> labels = 3",
            "map<string, string> tags = 4",
        ],
    ),
    ("GetSnapshotRequest", &["string snapshot = 1"]),
    ("ListSnapshotsRequest", &["string project = 1", "int32 page_size = 2", "string page_token = 3"]),
    ("ListSnapshotsResponse", &["repeated Snapshot snapshots = 1", "string next_page_token = 2"]),
    ("UpdateSnapshotRequest", &["Snapshot snapshot = 1", "google.protobuf.FieldMask update_mask = 2"]),
    ("DeleteSnapshotRequest", &["string snapshot = 1"]),
    ("ModifyPushConfigRequest", &["string subscription = 1", "PushConfig push_config = 2"]),
];

/// How many fields the whole package declares, nested messages included. The table leaves out what belongs to exports,
/// transforms, schemas and ingestion.
const FIELDS: usize = 273;

/// Every RPC.
const RPCS: [&str; 25] = [
    "Publisher.CreateTopic: Topic -> Topic",
    "Publisher.DeleteTopic: DeleteTopicRequest -> google.protobuf.Empty",
    "Publisher.DetachSubscription: DetachSubscriptionRequest -> DetachSubscriptionResponse",
    "Publisher.GetTopic: GetTopicRequest -> Topic",
    "Publisher.ListTopicSnapshots: ListTopicSnapshotsRequest -> ListTopicSnapshotsResponse",
    "Publisher.ListTopicSubscriptions: ListTopicSubscriptionsRequest -> ListTopicSubscriptionsResponse",
    "Publisher.ListTopics: ListTopicsRequest -> ListTopicsResponse",
    "Publisher.Publish: PublishRequest -> PublishResponse",
    "Publisher.UpdateTopic: UpdateTopicRequest -> Topic",
    "Subscriber.Acknowledge: AcknowledgeRequest -> google.protobuf.Empty",
    "Subscriber.CreateSnapshot: CreateSnapshotRequest -> Snapshot",
    "Subscriber.CreateSubscription: Subscription -> Subscription",
    "Subscriber.DeleteSnapshot: DeleteSnapshotRequest -> google.protobuf.Empty",
    "Subscriber.DeleteSubscription: DeleteSubscriptionRequest -> google.protobuf.Empty",
    "Subscriber.GetSnapshot: GetSnapshotRequest -> Snapshot",
    "Subscriber.GetSubscription: GetSubscriptionRequest -> Subscription",
    "Subscriber.ListSnapshots: ListSnapshotsRequest -> ListSnapshotsResponse",
    "Subscriber.ListSubscriptions: ListSubscriptionsRequest -> ListSubscriptionsResponse",
    "Subscriber.ModifyAckDeadline: ModifyAckDeadlineRequest -> google.protobuf.Empty",
    "Subscriber.ModifyPushConfig: ModifyPushConfigRequest -> google.protobuf.Empty",
    "Subscriber.Pull: PullRequest -> PullResponse",
    "Subscriber.Seek: SeekRequest -> SeekResponse",
    "Subscriber.StreamingPull: stream StreamingPullRequest -> stream StreamingPullResponse",
    "Subscriber.UpdateSnapshot: UpdateSnapshotRequest -> Snapshot",
    "Subscriber.UpdateSubscription: UpdateSubscriptionRequest -> Subscription",
];

#[test]
fn messages_have_the_fields_of_the_public_api() {
    let declared = messages(&pubsub());
    for (name, expected) in MESSAGES {
        assert_eq!(declared.get(*name).unwrap_or_else(|| panic!("`{name}` is missing")), expected, "{name}");
    }
    assert_eq!(declared.values().map(Vec::len).sum::<usize>(), FIELDS);
}

#[test]
fn rpcs_have_the_types_and_streams_of_the_public_api() {
    let stream = |streams| if streams { "stream " } else { "" };
    let mut declared: Vec<String> = pubsub()
        .service
        .iter()
        .flat_map(|service| service.method.iter().map(move |method| (service.name(), method)))
        .map(|(service, method)| {
            let from = format!("{}{}", stream(method.client_streaming()), short(method.input_type()));
            let to = format!("{}{}", stream(method.server_streaming()), short(method.output_type()));
            format!("{service}.{}: {from} -> {to}", method.name())
        })
        .collect();
    declared.sort();
    assert_eq!(declared, RPCS);
}

fn pubsub() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    set.file.into_iter().find(|file| file.name() == "google/pubsub/v1/pubsub.proto").unwrap()
}

/// Every message of the file by its name within the package, with its fields in the notation of the table.
fn messages(file: &FileDescriptorProto) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<(String, &DescriptorProto)> =
        file.message_type.iter().map(|message| (message.name().to_owned(), message)).collect();
    while let Some((name, message)) = open.pop() {
        for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
            open.push((format!("{name}.{}", nested.name()), nested));
        }
        let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        found.insert(name, fields.into_iter().map(|field| describe(message, field)).collect());
    }
    found
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested) && field.type_name().ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    let label = match field.oneof_index {
        _ if entry.is_some() => String::new(),
        _ if field.label() == Label::Repeated => "repeated ".to_owned(),
        _ if field.proto3_optional() => "optional ".to_owned(),
        Some(index) => format!("{}: ", message.oneof_decl[usize::try_from(index).unwrap()].name()),
        None => String::new(),
    };
    let kind = match entry {
        Some(entry) => format!("map<{}, {}>", kind(&entry.field[0]), kind(&entry.field[1])),
        None => kind(field),
    };
    let deprecated =
        if field.options.as_ref().is_some_and(|options| options.deprecated()) { " deprecated" } else { "" };
    format!("{label}{kind} {} = {}{deprecated}", field.name(), field.number())
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()),
        // `TYPE_INT32` is written `int32`.
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// A type as the package itself would write it.
fn short(type_name: &str) -> String {
    let name = type_name.trim_start_matches('.');
    name.strip_prefix("google.pubsub.v1.").unwrap_or(name).to_owned()
}
