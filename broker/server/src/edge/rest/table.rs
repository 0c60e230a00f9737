//! Which path stands for which RPC, as the public reference of the REST API lists them.

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// What all paths begin with.
const PREFIX: &str = "/v1/";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `package.Service/Method`
    pub(super) rpc: &'static str,
    /// The field of the RPC's request that the path names, from the outermost message inwards.
    pub(super) field: &'static str,
    /// What the path names.
    pub(super) name: String,
    /// Where the rest of the request stands.
    pub(super) rest: Place,
}

/// Where the rest of a request stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the query.
    Query,
    /// In the body.
    Body,
    /// The body is one field of it, and what else there is stands in the query.
    BodyOf(&'static str),
}

/// The one RPC whose body is a part of its request.
const CREATE_SCHEMA: &str = "google.pubsub.v1.SchemaService/CreateSchema";

/// The method, the path, the field that the path without what is in brackets names, the RPC.
type Row = (Method, &'static str, &'static str, &'static str);

const ROWS: [Row; 46] = [
    (Method::PUT, "projects/*/topics/*", "name", "google.pubsub.v1.Publisher/CreateTopic"),
    (Method::PATCH, "projects/*/topics/*", "topic.name", "google.pubsub.v1.Publisher/UpdateTopic"),
    (Method::POST, "projects/*/topics/*[:publish]", "topic", "google.pubsub.v1.Publisher/Publish"),
    (Method::GET, "projects/*/topics/*", "topic", "google.pubsub.v1.Publisher/GetTopic"),
    (Method::GET, "projects/*[/topics]", "project", "google.pubsub.v1.Publisher/ListTopics"),
    (Method::GET, "projects/*/topics/*[/subscriptions]", "topic", "google.pubsub.v1.Publisher/ListTopicSubscriptions"),
    (Method::GET, "projects/*/topics/*[/snapshots]", "topic", "google.pubsub.v1.Publisher/ListTopicSnapshots"),
    (Method::DELETE, "projects/*/topics/*", "topic", "google.pubsub.v1.Publisher/DeleteTopic"),
    (
        Method::POST,
        "projects/*/subscriptions/*[:detach]",
        "subscription",
        "google.pubsub.v1.Publisher/DetachSubscription",
    ),
    (Method::PUT, "projects/*/subscriptions/*", "name", "google.pubsub.v1.Subscriber/CreateSubscription"),
    (Method::GET, "projects/*/subscriptions/*", "subscription", "google.pubsub.v1.Subscriber/GetSubscription"),
    (
        Method::PATCH,
        "projects/*/subscriptions/*",
        "subscription.name",
        "google.pubsub.v1.Subscriber/UpdateSubscription",
    ),
    (Method::GET, "projects/*[/subscriptions]", "project", "google.pubsub.v1.Subscriber/ListSubscriptions"),
    (Method::DELETE, "projects/*/subscriptions/*", "subscription", "google.pubsub.v1.Subscriber/DeleteSubscription"),
    (
        Method::POST,
        "projects/*/subscriptions/*[:modifyAckDeadline]",
        "subscription",
        "google.pubsub.v1.Subscriber/ModifyAckDeadline",
    ),
    (
        Method::POST,
        "projects/*/subscriptions/*[:acknowledge]",
        "subscription",
        "google.pubsub.v1.Subscriber/Acknowledge",
    ),
    (Method::POST, "projects/*/subscriptions/*[:pull]", "subscription", "google.pubsub.v1.Subscriber/Pull"),
    (
        Method::POST,
        "projects/*/subscriptions/*[:modifyPushConfig]",
        "subscription",
        "google.pubsub.v1.Subscriber/ModifyPushConfig",
    ),
    (Method::POST, "projects/*/subscriptions/*[:seek]", "subscription", "google.pubsub.v1.Subscriber/Seek"),
    (Method::GET, "projects/*/snapshots/*", "snapshot", "google.pubsub.v1.Subscriber/GetSnapshot"),
    (Method::GET, "projects/*[/snapshots]", "project", "google.pubsub.v1.Subscriber/ListSnapshots"),
    (Method::PUT, "projects/*/snapshots/*", "name", "google.pubsub.v1.Subscriber/CreateSnapshot"),
    (Method::PATCH, "projects/*/snapshots/*", "snapshot.name", "google.pubsub.v1.Subscriber/UpdateSnapshot"),
    (Method::DELETE, "projects/*/snapshots/*", "snapshot", "google.pubsub.v1.Subscriber/DeleteSnapshot"),
    (Method::POST, "projects/*[/schemas]", "parent", "google.pubsub.v1.SchemaService/CreateSchema"),
    (Method::GET, "projects/*/schemas/*", "name", "google.pubsub.v1.SchemaService/GetSchema"),
    (Method::GET, "projects/*[/schemas]", "parent", "google.pubsub.v1.SchemaService/ListSchemas"),
    (Method::GET, "projects/*/schemas/*[:listRevisions]", "name", "google.pubsub.v1.SchemaService/ListSchemaRevisions"),
    (Method::POST, "projects/*/schemas/*[:commit]", "name", "google.pubsub.v1.SchemaService/CommitSchema"),
    (Method::POST, "projects/*/schemas/*[:rollback]", "name", "google.pubsub.v1.SchemaService/RollbackSchema"),
    (
        Method::DELETE,
        "projects/*/schemas/*[:deleteRevision]",
        "name",
        "google.pubsub.v1.SchemaService/DeleteSchemaRevision",
    ),
    (Method::DELETE, "projects/*/schemas/*", "name", "google.pubsub.v1.SchemaService/DeleteSchema"),
    (Method::POST, "projects/*[/schemas:validate]", "parent", "google.pubsub.v1.SchemaService/ValidateSchema"),
    (Method::POST, "projects/*[/schemas:validateMessage]", "parent", "google.pubsub.v1.SchemaService/ValidateMessage"),
    (Method::GET, "projects/*/topics/*[:getIamPolicy]", "resource", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (Method::POST, "projects/*/topics/*[:setIamPolicy]", "resource", "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (
        Method::POST,
        "projects/*/topics/*[:testIamPermissions]",
        "resource",
        "google.iam.v1.IAMPolicy/TestIamPermissions",
    ),
    (Method::GET, "projects/*/subscriptions/*[:getIamPolicy]", "resource", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (Method::POST, "projects/*/subscriptions/*[:setIamPolicy]", "resource", "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (
        Method::POST,
        "projects/*/subscriptions/*[:testIamPermissions]",
        "resource",
        "google.iam.v1.IAMPolicy/TestIamPermissions",
    ),
    (Method::GET, "projects/*/snapshots/*[:getIamPolicy]", "resource", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (Method::POST, "projects/*/snapshots/*[:setIamPolicy]", "resource", "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (
        Method::POST,
        "projects/*/snapshots/*[:testIamPermissions]",
        "resource",
        "google.iam.v1.IAMPolicy/TestIamPermissions",
    ),
    (Method::GET, "projects/*/schemas/*[:getIamPolicy]", "resource", "google.iam.v1.IAMPolicy/GetIamPolicy"),
    (Method::POST, "projects/*/schemas/*[:setIamPolicy]", "resource", "google.iam.v1.IAMPolicy/SetIamPolicy"),
    (
        Method::POST,
        "projects/*/schemas/*[:testIamPermissions]",
        "resource",
        "google.iam.v1.IAMPolicy/TestIamPermissions",
    ),
];

/// The RPC of a request.
pub(super) fn find(method: &Method, path: &str) -> Option<Found> {
    let path = path.strip_prefix(PREFIX)?;
    let rows = ROWS.iter().filter(|(of_row, ..)| of_row == method);
    let fitting = rows.filter_map(|(_, pattern, field, rpc)| named(pattern, path).map(|name| (name, field, rpc)));
    // A row that says what the path ends with leaves less of it for the name.
    let (name, field, rpc) = fitting.min_by_key(|(name, ..)| name.len())?;
    let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    let rest = match *method {
        Method::GET | Method::DELETE => Place::Query,
        _ if *rpc == CREATE_SCHEMA => Place::BodyOf("schema"),
        _ => Place::Body,
    };
    Some(Found { rpc, field, name, rest })
}

/// The part of a path that a pattern names, if they match.
fn named<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (pattern, ending) = pattern.strip_suffix(']').and_then(|rest| rest.split_once('[')).unwrap_or((pattern, ""));
    let name = path.strip_suffix(ending)?;
    let fits = |(expected, found): (&str, &str)| if expected == "*" { !found.is_empty() } else { expected == found };
    let same_length = pattern.split('/').count() == name.split('/').count();
    (same_length && pattern.split('/').zip(name.split('/')).all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use orderflow_proto::DESCRIPTORS;
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_row_names_an_rpc_that_is_declared_and_a_field_of_its_request() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        for (_, pattern, field, rpc) in &ROWS {
            let (service, method) = rpc.split_once('/').unwrap();
            let service = pool.get_service_by_name(service).unwrap();
            let method = service.methods().find(|found| found.name() == method).expect(rpc);
            let mut message = Some(method.input());
            for part in field.split('.') {
                let found = message.unwrap().get_field_by_name(part).unwrap_or_else(|| panic!("{pattern}: {field}"));
                message = found.kind().as_message().cloned();
            }
        }
    }

    #[test]
    fn every_rpc_that_is_not_a_stream_has_a_row() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let pubsub = ["Publisher", "Subscriber", "SchemaService"].map(|name| format!("google.pubsub.v1.{name}"));
        for service in pubsub.iter().map(String::as_str).chain(["google.iam.v1.IAMPolicy"]) {
            let service = pool.get_service_by_name(service).unwrap();
            for method in service.methods().filter(|method| !method.is_client_streaming()) {
                let rpc = format!("{}/{}", service.full_name(), method.name());
                assert!(ROWS.iter().any(|(_, _, _, found)| *found == rpc), "{rpc}");
            }
        }
    }

    #[test]
    fn a_path_is_told_from_its_neighbours() {
        let found = |method, path| find(&method, path).map(|found| (found.rpc.rsplit('/').next().unwrap(), found.name));
        let is = |rpc, name: &str| Some((rpc, name.to_owned()));
        assert_eq!(found(Method::GET, "/v1/projects/p/topics"), is("ListTopics", "projects/p"));
        assert_eq!(found(Method::GET, "/v1/projects/p/topics/t"), is("GetTopic", "projects/p/topics/t"));
        let subscriptions = "/v1/projects/p/topics/t/subscriptions";
        assert_eq!(found(Method::GET, subscriptions), is("ListTopicSubscriptions", "projects/p/topics/t"));
        assert_eq!(found(Method::POST, "/v1/projects/p/topics/t:publish"), is("Publish", "projects/p/topics/t"));
        let policy = "/v1/projects/p/topics/t:getIamPolicy";
        assert_eq!(found(Method::GET, policy), is("GetIamPolicy", "projects/p/topics/t"));
        let revision = "/v1/projects/p/schemas/s@1:deleteRevision";
        assert_eq!(found(Method::DELETE, revision), is("DeleteSchemaRevision", "projects/p/schemas/s@1"));
        let encoded = "/v1/projects/example.com%3Ap/topics/t%2Bu:publish";
        assert_eq!(found(Method::POST, encoded), is("Publish", "projects/example.com:p/topics/t+u"));
        for path in
            ["/v1/", "/v2/projects/p/topics", "/v1/projects//topics", "/v1/projects/p/topics/", "/v1/projects/p"]
        {
            assert_eq!(found(Method::GET, path), None, "{path}");
        }
        assert_eq!(found(Method::POST, "/v1/projects/p/topics/t"), None);
    }
}
