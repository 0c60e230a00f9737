//! The descriptors, as server reflection gives them out.

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::google::iam::v1::iam_policy_server;
use orderflow_proto::google::pubsub::v1::{publisher_server, schema_service_server, subscriber_server};
use orderflow_proto::orderflow::{broker, notification, order, payment};
use prost::Message;
use prost_types::FileDescriptorSet;

#[test]
fn every_server_is_described() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let described: Vec<String> = set
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())))
        .collect();
    for name in [
        iam_policy_server::SERVICE_NAME,
        publisher_server::SERVICE_NAME,
        schema_service_server::SERVICE_NAME,
        subscriber_server::SERVICE_NAME,
        broker::v1::broker_service_server::SERVICE_NAME,
        notification::v1::notification_service_server::SERVICE_NAME,
        order::v1::order_service_server::SERVICE_NAME,
        payment::v1::payment_service_server::SERVICE_NAME,
    ] {
        assert!(described.iter().any(|described| described == name), "`{name}` is missing from {described:?}");
    }
}

#[test]
fn every_import_is_in_the_set() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    for file in &set.file {
        for import in &file.dependency {
            assert!(set.file.iter().any(|other| other.name() == import), "{} imports `{import}`", file.name());
        }
    }
}

#[test]
fn comments_come_along() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    for file in set.file.iter().filter(|file| !file.package().starts_with("google.protobuf")) {
        let commented =
            file.source_code_info.iter().flat_map(|info| &info.location).any(|at| at.leading_comments.is_some());
        assert!(commented, "{}", file.name());
    }
}
