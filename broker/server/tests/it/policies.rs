//! Access policies and schemas, which stand beside topics and subscriptions in the same API.

use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::SchemaService;
use orderflow_proto::google::iam::v1 as pb;
use orderflow_proto::google::iam::v1::iam_policy_client::IamPolicyClient;
use orderflow_proto::google::pubsub::v1 as pubsub;
use orderflow_proto::google::pubsub::v1::schema_service_client::SchemaServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{SUBSCRIPTION, TOPIC, TestBroker};

const SNAPSHOT: &str = "projects/p/snapshots/monday";

async fn channel(broker: &TestBroker) -> Channel {
    Endpoint::from_shared(broker.url.clone()).unwrap().connect().await.unwrap()
}

fn binding(role: &str) -> pb::Binding {
    pb::Binding { role: role.to_owned(), members: vec!["user:a@example.com".to_owned()], condition: None }
}

fn policy(role: &str, etag: &[u8]) -> pb::Policy {
    pb::Policy { version: 1, bindings: vec![binding(role)], etag: etag.to_vec(), ..Default::default() }
}

struct Iam(IamPolicyClient<Channel>);

impl Iam {
    async fn of(broker: &TestBroker) -> Self {
        Self(IamPolicyClient::new(channel(broker).await))
    }

    async fn get(&mut self, resource: &str) -> Result<pb::Policy, Status> {
        let request = pb::GetIamPolicyRequest { resource: resource.to_owned(), options: None };
        Ok(self.0.get_iam_policy(request).await?.into_inner())
    }

    async fn set(&mut self, resource: &str, policy: pb::Policy) -> Result<pb::Policy, Status> {
        self.set_masked(resource, policy, None).await
    }

    async fn set_masked(
        &mut self,
        resource: &str,
        policy: pb::Policy,
        paths: Option<&[&str]>,
    ) -> Result<pb::Policy, Status> {
        let update_mask =
            paths.map(|paths| prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        let request = pb::SetIamPolicyRequest { resource: resource.to_owned(), policy: Some(policy), update_mask };
        Ok(self.0.set_iam_policy(request).await?.into_inner())
    }

    async fn test(&mut self, resource: &str, permissions: &[&str]) -> Result<Vec<String>, Status> {
        let permissions = permissions.iter().map(ToString::to_string).collect();
        let request = pb::TestIamPermissionsRequest { resource: resource.to_owned(), permissions };
        Ok(self.0.test_iam_permissions(request).await?.into_inner().permissions)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_kept_for_each_resource_through_a_restart_and_goes_with_it() {
    let (broker, client) = TestBroker::with_subscription().await;
    let request = pubsub::CreateSnapshotRequest {
        name: SNAPSHOT.to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        ..Default::default()
    };
    client.subscriber.clone().create_snapshot(request).await.unwrap();
    let mut iam = Iam::of(&broker).await;
    let resources = [TOPIC, SUBSCRIPTION, SNAPSHOT];
    let mut set = Vec::new();
    for resource in resources {
        assert!(iam.get(resource).await.unwrap().bindings.is_empty());
        let kept = iam.set(resource, policy(resource, &[])).await.unwrap();
        assert_eq!(kept.bindings, [binding(resource)]);
        assert_eq!(iam.test(resource, &["pubsub.topics.get", "x.y"]).await.unwrap(), ["pubsub.topics.get", "x.y"]);
        set.push(kept);
    }
    let broker = broker.restart().await;
    let mut iam = Iam::of(&broker).await;
    for (resource, kept) in resources.into_iter().zip(set) {
        assert_eq!(iam.get(resource).await.unwrap(), kept);
    }
    let client = broker.client().await;
    client.publisher.clone().delete_topic(pubsub::DeleteTopicRequest { topic: TOPIC.to_owned() }).await.unwrap();
    assert_eq!(iam.get(TOPIC).await.unwrap_err().code(), Code::NotFound);
    client.create_topic(TOPIC).await;
    assert!(iam.get(TOPIC).await.unwrap().bindings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_an_etag_of_before_is_refused_and_a_mask_leaves_the_rest_as_it_is() {
    let (broker, _client) = TestBroker::with_subscription().await;
    let mut iam = Iam::of(&broker).await;
    let none = iam.get(TOPIC).await.unwrap();
    let first = iam.set(TOPIC, policy("roles/first", &none.etag)).await.unwrap();
    assert_ne!(first.etag, none.etag);
    let refused = iam.set(TOPIC, policy("roles/late", &none.etag)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    assert_eq!(iam.get(TOPIC).await.unwrap(), first);
    let audit = pb::AuditConfig { service: "allServices".to_owned(), ..Default::default() };
    let update = pb::Policy { audit_configs: vec![audit.clone()], ..policy("roles/other", &none.etag) };
    let masked = iam.set_masked(TOPIC, update, Some(&["audit_configs"])).await.unwrap();
    assert_eq!((&masked.bindings, &masked.audit_configs), (&first.bindings, &vec![audit.clone()]));
    let second = iam.set(TOPIC, policy("roles/second", &masked.etag)).await.unwrap();
    assert_eq!((second.bindings, second.audit_configs), (vec![binding("roles/second")], vec![audit]));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_cannot_be_are_refused_by_their_field() {
    let (broker, _client) = TestBroker::with_subscription().await;
    let mut iam = Iam::of(&broker).await;
    let condition = Some(Default::default());
    let with = |binding| pb::Policy { bindings: vec![binding], ..Default::default() };
    let many = vec!["user:a@example.com".to_owned(); 1_501];
    let policies = [
        (pb::Policy { version: 2, ..Default::default() }, "policy.version"),
        (with(pb::Binding { condition, ..binding("roles/a") }), "policy.bindings[0].condition"),
        (with(binding("")), "policy.bindings[0].role"),
        (with(pb::Binding { members: vec![String::new()], ..binding("roles/a") }), "policy.bindings[0].members"),
        (with(pb::Binding { members: many, ..binding("roles/a") }), "policy.bindings"),
        (policy(&"r".repeat(64 << 10), &[]), "policy"),
    ];
    let field = |status: &Status| status.get_details_bad_request().unwrap().field_violations[0].field.clone();
    for (wrong, expected) in policies {
        let refused = iam.set(TOPIC, wrong).await.unwrap_err();
        assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, expected));
    }
    let masked = iam.set_masked(TOPIC, policy("roles/a", &[]), Some(&["bindings", "owner"])).await.unwrap_err();
    assert_eq!(field(&masked), "update_mask");
    assert!(iam.get(TOPIC).await.unwrap().bindings.is_empty());
    let options = Some(pb::GetPolicyOptions { requested_policy_version: 2 });
    let request = pb::GetIamPolicyRequest { resource: TOPIC.to_owned(), options };
    assert_eq!(field(&iam.0.get_iam_policy(request).await.unwrap_err()), "options.requested_policy_version");
    assert_eq!(field(&iam.test(TOPIC, &["pubsub.*"]).await.unwrap_err()), "permissions");
    for (resource, code) in [
        ("", Code::InvalidArgument),
        ("projects/p", Code::InvalidArgument),
        ("projects/p/things/orders", Code::InvalidArgument),
        ("projects/p/topics/none", Code::NotFound),
        ("projects/p/subscriptions/none", Code::NotFound),
        ("projects/p/snapshots/none", Code::NotFound),
    ] {
        assert_eq!(iam.get(resource).await.unwrap_err().code(), code, "{resource}");
        assert_eq!(iam.set(resource, policy("roles/a", &[])).await.unwrap_err().code(), code, "{resource}");
        assert_eq!(iam.test(resource, &["a.b"]).await.unwrap_err().code(), code, "{resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_administration_client_reads_and_writes_policies_and_lists_no_schemas() {
    // As in the tests of the REST face.
    rustls::crypto::ring::default_provider().install_default().ok();
    let (broker, _client) = TestBroker::with_subscription().await;
    // It calls by JSON, and takes any resource of the API.
    let credentials = anonymous::Builder::new().build();
    let client = SchemaService::builder().with_endpoint(&broker.url).with_credentials(credentials);
    let client = client.build().await.unwrap();
    let mut policy = client.get_iam_policy().set_resource(TOPIC).send().await.unwrap();
    policy.version = 1;
    policy.bindings.push(Default::default());
    policy.bindings[0].role = "roles/pubsub.publisher".to_owned();
    policy.bindings[0].members = vec!["allUsers".to_owned()];
    let set = client.set_iam_policy().set_resource(TOPIC).set_policy(policy.clone()).send().await.unwrap();
    assert_eq!(set.bindings, policy.bindings);
    assert_eq!(client.get_iam_policy().set_resource(TOPIC).send().await.unwrap(), set);
    let late = client.set_iam_policy().set_resource(TOPIC).set_policy(policy).send().await.unwrap_err();
    assert_eq!(late.status().map(|status| status.code), Some(google_cloud_gax::error::rpc::Code::Aborted));
    let permissions = ["pubsub.subscriptions.consume"];
    let granted = client.test_iam_permissions().set_resource(SUBSCRIPTION).set_permissions(permissions).send().await;
    assert_eq!(granted.unwrap().permissions, permissions);
    assert!(client.list_schemas().set_parent("projects/p").send().await.unwrap().schemas.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_schemas_and_none_can_be_made() {
    let broker = TestBroker::start().await;
    let mut schemas = SchemaServiceClient::new(channel(&broker).await);
    let (parent, name) = ("projects/p".to_owned(), "projects/p/schemas/s".to_owned());
    let list = pubsub::ListSchemasRequest { parent: parent.clone(), ..Default::default() };
    assert!(schemas.list_schemas(list).await.unwrap().into_inner().schemas.is_empty());
    let list = pubsub::ListSchemaRevisionsRequest { name: name.clone(), ..Default::default() };
    assert!(schemas.list_schema_revisions(list).await.unwrap().into_inner().schemas.is_empty());
    let get = |name: &str| pubsub::GetSchemaRequest { name: name.to_owned(), view: 0 };
    assert_eq!(schemas.get_schema(get(&name)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(schemas.get_schema(get("schemas/s")).await.unwrap_err().code(), Code::InvalidArgument);
    let wrong = pubsub::ListSchemasRequest { parent: "p".to_owned(), ..Default::default() };
    assert_eq!(schemas.list_schemas(wrong).await.unwrap_err().code(), Code::InvalidArgument);

    #[expect(deprecated, reason = "it is a field of the request")]
    let revision = pubsub::DeleteSchemaRevisionRequest { name: name.clone(), revision_id: String::new() };
    let refused = [
        ("CreateSchema", schemas.create_schema(pubsub::CreateSchemaRequest::default()).await.map(drop)),
        ("CommitSchema", schemas.commit_schema(pubsub::CommitSchemaRequest::default()).await.map(drop)),
        ("RollbackSchema", schemas.rollback_schema(pubsub::RollbackSchemaRequest::default()).await.map(drop)),
        ("DeleteSchemaRevision", schemas.delete_schema_revision(revision).await.map(drop)),
        ("DeleteSchema", schemas.delete_schema(pubsub::DeleteSchemaRequest { name }).await.map(drop)),
        ("ValidateSchema", schemas.validate_schema(pubsub::ValidateSchemaRequest::default()).await.map(drop)),
        ("ValidateMessage", schemas.validate_message(pubsub::ValidateMessageRequest::default()).await.map(drop)),
    ];
    for (rpc, answer) in refused {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(rpc), "{status}");
    }
}
