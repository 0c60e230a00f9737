//! The REST face, by plain HTTP and by Google's own administration clients.

use bytes::Bytes;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_pubsub::client::{SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::model::{Subscription, Topic};
use google_cloud_wkt::{Duration, FieldMask};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::harness::{SUBSCRIPTION, TOPIC, TestBroker};

/// Sends a request and returns what comes back.
async fn call(broker: &TestBroker, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(format!("{}{path}", broker.url));
    let request =
        request.header("content-type", "application/json").body(Full::<Bytes>::from(body.to_owned())).unwrap();
    let answer = HttpClient::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn good(broker: &TestBroker, method: Method, path: &str, body: Value) -> Value {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = call(broker, method, path, &text).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_in_and_out_as_json_with_their_data_in_base64() {
    let broker = TestBroker::start().await;
    let created = good(&broker, Method::PUT, "/v1/projects/p/topics/orders", json!({"labels": {"k": "v"}})).await;
    assert_eq!(created, json!({"name": TOPIC, "labels": {"k": "v"}, "state": "ACTIVE"}));
    let path = "/v1/projects/p/subscriptions/payment";
    let subscription = json!({"topic": TOPIC, "ackDeadlineSeconds": 20, "retryPolicy": {"minimumBackoff": "0.5s"}});
    let created = good(&broker, Method::PUT, path, subscription).await;
    assert_eq!((&created["name"], &created["ackDeadlineSeconds"]), (&json!(SUBSCRIPTION), &json!(20)));
    assert_eq!(created["retryPolicy"], json!({"minimumBackoff": "0.500s", "maximumBackoff": "600s"}));

    let messages = json!({"messages": [{"data": "aGVsbG8=", "attributes": {"a": "b"}}]});
    let published = good(&broker, Method::POST, "/v1/projects/p/topics/orders:publish", messages).await;
    assert_eq!(published["messageIds"].as_array().unwrap().len(), 1);
    let pulled = good(&broker, Method::POST, &format!("{path}:pull"), json!({"maxMessages": 1})).await;
    let received = &pulled["receivedMessages"][0];
    assert_eq!(
        (&received["message"]["data"], &received["message"]["attributes"]["a"]),
        (&json!("aGVsbG8="), &json!("b"))
    );
    assert_eq!(received["message"]["messageId"], published["messageIds"][0]);
    let acked =
        good(&broker, Method::POST, &format!("{path}:acknowledge"), json!({"ackIds": [received["ackId"]]})).await;
    assert_eq!(acked, json!({}));
    assert_eq!(broker.client().await.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_lists_and_deletions_follow_their_paths_and_queries() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.create_topic("projects/p/topics/zebra").await;
    let path = "/v1/projects/p/subscriptions/payment";
    let update =
        json!({"subscription": {"ackDeadlineSeconds": 30, "labels": {"k": "v"}}, "updateMask": "ackDeadlineSeconds"});
    let updated = good(&broker, Method::PATCH, path, update).await;
    assert_eq!((&updated["ackDeadlineSeconds"], updated.get("labels")), (&json!(30), None));
    let shown = good(&broker, Method::GET, path, Value::Null).await;
    assert_eq!(shown, updated);

    let first = good(&broker, Method::GET, "/v1/projects/p/topics?pageSize=1&alt=json", Value::Null).await;
    assert_eq!(first["topics"][0]["name"], TOPIC);
    let token = first["nextPageToken"].as_str().unwrap();
    let next = format!("/v1/projects/p/topics?pageSize=1&pageToken={token}&$alt=json;enum-encoding=int");
    let second = good(&broker, Method::GET, &next, Value::Null).await;
    assert_eq!(second["topics"], json!([{"name": "projects/p/topics/zebra", "state": 1}]));
    let of_topic = good(&broker, Method::GET, "/v1/projects/p/topics/orders/subscriptions", Value::Null).await;
    assert_eq!(of_topic, json!({"subscriptions": [SUBSCRIPTION]}));

    let snapshot =
        good(&broker, Method::PUT, "/v1/projects/p/snapshots/before", json!({"subscription": SUBSCRIPTION})).await;
    assert_eq!(snapshot["topic"], TOPIC);
    good(&broker, Method::POST, &format!("{path}:seek"), json!({"time": "2020-01-01T00:00:00Z"})).await;
    good(&broker, Method::POST, &format!("{path}:detach"), Value::Null).await;
    assert_eq!(good(&broker, Method::DELETE, path, Value::Null).await, json!({}));
    assert_eq!(call(&broker, Method::GET, path, "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_schemas_have_their_paths_too() {
    let (broker, _client) = TestBroker::with_subscription().await;
    let topic = "/v1/projects/p/topics/orders";
    let query = ":getIamPolicy?options.requestedPolicyVersion=3";
    let before = good(&broker, Method::GET, &format!("{topic}{query}"), Value::Null).await;
    let binding = json!({"role": "roles/a", "members": ["allUsers"]});
    let update = json!({"policy": {"bindings": [binding], "etag": before["etag"]}});
    let set = good(&broker, Method::POST, &format!("{topic}:setIamPolicy"), update.clone()).await;
    assert_eq!(set["bindings"], json!([binding]));
    assert_eq!(good(&broker, Method::GET, &format!("{topic}:getIamPolicy"), Value::Null).await, set);
    let (status, late) = call(&broker, Method::POST, &format!("{topic}:setIamPolicy"), &update.to_string()).await;
    assert_eq!((status, &late["error"]["status"]), (StatusCode::CONFLICT, &json!("ABORTED")));
    let path = "/v1/projects/p/subscriptions/payment:testIamPermissions";
    let granted = good(&broker, Method::POST, path, json!({"permissions": ["a.b"]})).await;
    assert_eq!(granted, json!({"permissions": ["a.b"]}));
    let wrong = call(&broker, Method::GET, &format!("{topic}:getIamPolicy?options.requestedPolicyVersion=2"), "").await;
    assert_eq!(wrong.0, StatusCode::BAD_REQUEST);

    assert_eq!(good(&broker, Method::GET, "/v1/projects/p/schemas", Value::Null).await, json!({}));
    let schema = r#"{"type": "AVRO", "definition": "{}"}"#;
    for (method, path, body) in [
        (Method::POST, "/v1/projects/p/schemas?schemaId=s", schema),
        (Method::DELETE, "/v1/projects/p/schemas/s", ""),
        (Method::POST, "/v1/projects/p/schemas:validate", "{}"),
    ] {
        assert_eq!(call(&broker, method, path, body).await.0, StatusCode::NOT_IMPLEMENTED, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_with_the_status_that_its_code_has() {
    let (broker, client) = TestBroker::with_subscription().await;
    let topic = "/v1/projects/p/topics/orders";
    let pull = "/v1/projects/p/subscriptions/payment:pull";
    let detached = "/v1/projects/p/subscriptions/detached";
    client.create_subscription("projects/p/subscriptions/detached", TOPIC).await;
    good(&broker, Method::POST, &format!("{detached}:detach"), json!({})).await;
    let cases = [
        (Method::PUT, topic, "{}", 409, "ALREADY_EXISTS"),
        (Method::GET, "/v1/projects/p/topics/none", "", 404, "NOT_FOUND"),
        (Method::PUT, "/v1/projects/p/topics/1a", "{}", 400, "INVALID_ARGUMENT"),
        (Method::PUT, "/v1/projects/p/topics/other", "{", 400, "INVALID_ARGUMENT"),
        (Method::PUT, "/v1/projects/p/topics/other", "[]", 400, "INVALID_ARGUMENT"),
        (Method::PUT, "/v1/projects/p/topics/other", "{} {}", 400, "INVALID_ARGUMENT"),
        (Method::PUT, "/v1/projects/p/topics/other", r#"{"partitions":3}"#, 400, "INVALID_ARGUMENT"),
        (Method::PUT, "/v1/projects/p/topics/other", r#"{"messageRetentionDuration":"1s"}"#, 400, "INVALID_ARGUMENT"),
        (Method::POST, pull, r#"{"maxMessages":0}"#, 400, "INVALID_ARGUMENT"),
        (Method::POST, pull, "", 400, "INVALID_ARGUMENT"),
        (Method::GET, "/v1/projects/p/topics?pageSize=x", "", 400, "INVALID_ARGUMENT"),
        (Method::GET, "/v1/projects/p/topics?size=3", "", 400, "INVALID_ARGUMENT"),
        (
            Method::POST,
            "/v1/projects/p/subscriptions/detached:pull",
            r#"{"maxMessages":1}"#,
            400,
            "FAILED_PRECONDITION",
        ),
        (Method::POST, topic, "{}", 404, "NOT_FOUND"),
        (Method::GET, "/", "", 404, "NOT_FOUND"),
        (Method::GET, "/v1/projects/p/schemas/s", "", 404, "NOT_FOUND"),
    ];
    for (method, path, body, code, name) in cases {
        let (status, answer) = call(&broker, method, path, body).await;
        let error = &answer["error"];
        assert_eq!(
            (status.as_u16(), &error["code"], &error["status"]),
            (code, &json!(code), &json!(name)),
            "{path} {body}"
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let none = call(&broker, Method::GET, "/v1/projects/p/topics/other", "").await;
    assert_eq!(none.0, StatusCode::NOT_FOUND, "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_administration_clients_create_change_list_and_delete() {
    // The client's library for HTTP wants one, also where nothing is encrypted. Another test may have installed it.
    rustls::crypto::ring::default_provider().install_default().ok();
    let broker = TestBroker::start().await;
    let credentials = || anonymous::Builder::new().build();
    let topics =
        TopicAdmin::builder().with_endpoint(&broker.url).with_credentials(credentials()).build().await.unwrap();
    let subscriptions =
        SubscriptionAdmin::builder().with_endpoint(&broker.url).with_credentials(credentials()).build().await.unwrap();
    let created = topics.create_topic().set_name(TOPIC).set_labels([("k", "v")]).send().await.unwrap();
    assert_eq!((created.name.as_str(), created.labels["k"].as_str()), (TOPIC, "v"));
    let update = Topic::new().set_name(TOPIC).set_message_retention_duration(Duration::clamp(600, 0));
    let mask = FieldMask::default().set_paths(["message_retention_duration"]);
    let updated = topics.update_topic().set_topic(update).set_update_mask(mask).send().await.unwrap();
    assert_eq!(updated.message_retention_duration.unwrap().seconds(), 600);

    let created = subscriptions
        .create_subscription()
        .set_name(SUBSCRIPTION)
        .set_topic(TOPIC)
        .set_filter("attributes:a")
        .set_enable_exactly_once_delivery(true)
        .send()
        .await
        .unwrap();
    assert_eq!((created.filter.as_str(), created.enable_exactly_once_delivery), ("attributes:a", true));
    let update = Subscription::new().set_name(SUBSCRIPTION).set_ack_deadline_seconds(99);
    let mask = FieldMask::default().set_paths(["ack_deadline_seconds"]);
    let updated =
        subscriptions.update_subscription().set_subscription(update).set_update_mask(mask).send().await.unwrap();
    assert_eq!((updated.ack_deadline_seconds, updated.filter.as_str()), (99, "attributes:a"));

    let mut listed = subscriptions.list_subscriptions().set_project("projects/p").by_item();
    assert_eq!(listed.next().await.unwrap().unwrap().name, SUBSCRIPTION);
    assert!(listed.next().await.is_none());
    subscriptions.delete_subscription().set_subscription(SUBSCRIPTION).send().await.unwrap();
    let gone = subscriptions.get_subscription().set_subscription(SUBSCRIPTION).send().await.unwrap_err();
    assert_eq!(gone.status().map(|status| status.code), Some(google_cloud_gax::error::rpc::Code::NotFound));
    topics.delete_topic().set_topic(TOPIC).send().await.unwrap();
}
