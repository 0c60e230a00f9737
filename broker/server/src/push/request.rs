//! What is posted: a message in JSON, or its data alone.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker_core::{PushBody, PushConfig, PushVersion, SubscriptionName};
use bytes::Bytes;
use http_body_util::Full;
use serde::Serialize;

use crate::engine::Lease;

/// Who posts.
const USER_AGENT: &str = concat!("orderflow-broker/", env!("CARGO_PKG_VERSION"));
/// Headers that belong to the connection, and which an attribute must not set.
const HEADERS_OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// How to make requests for a subscription.
#[derive(Clone, Debug)]
pub(super) struct Form {
    uri: Uri,
    version: PushVersion,
    body: PushBody,
    subscription: SubscriptionName,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapped<M> {
    message: M,
    subscription: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_attempt: Option<u32>,
}

/// A message with the names of both JSON forms of the API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    message_id: String,
    #[serde(rename = "message_id")]
    message_id_old: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    publish_time: String,
    #[serde(rename = "publish_time")]
    publish_time_old: String,
}

/// A message as the first version had it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LabelledMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    label: Vec<Label>,
    message_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    key: String,
    str_value: String,
}

impl Form {
    /// None for an endpoint that is no URL.
    pub(super) fn new(config: &PushConfig, subscription: SubscriptionName) -> Option<Self> {
        Some(Self {
            uri: config.endpoint().parse().ok()?,
            version: config.version.unwrap_or(PushVersion::V1),
            body: config.body.unwrap_or(PushBody::Wrapped),
            subscription,
        })
    }

    /// The request for a lease.
    pub(super) fn request(&self, lease: Lease) -> Request<Full<Bytes>> {
        let (kind, headers, body) = match self.body {
            PushBody::Wrapped => (HeaderValue::from_static("application/json"), HeaderMap::new(), self.wrapped(lease)),
            PushBody::Raw { write_metadata } => {
                let headers = if write_metadata { self.metadata(&lease) } else { HeaderMap::new() };
                (HeaderValue::from_static("application/octet-stream"), headers, lease.message.data)
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert(kind);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request
    }

    fn wrapped(&self, lease: Lease) -> Bytes {
        let publish_time = time(&lease);
        let Lease { message_id, attempt: delivery_attempt, message, .. } = lease;
        let data = BASE64_STANDARD.encode(&message.data);
        let attributes: BTreeMap<String, String> = message.attributes.into_iter().collect();
        let subscription = self.subscription.to_string();
        let json = match self.version {
            PushVersion::V1 | PushVersion::V1Beta2 => {
                let message = Message {
                    attributes,
                    data,
                    message_id: message_id.0.clone(),
                    message_id_old: message_id.0,
                    ordering_key: message.ordering_key,
                    publish_time: publish_time.clone(),
                    publish_time_old: publish_time,
                };
                serde_json::to_vec(&Wrapped { message, subscription, delivery_attempt })
            }
            PushVersion::V1Beta1 => {
                let label = attributes.into_iter().map(|(key, str_value)| Label { key, str_value }).collect();
                let message = LabelledMessage { data, label, message_id: message_id.0 };
                serde_json::to_vec(&Wrapped { message, subscription, delivery_attempt })
            }
        };
        // Texts and numbers always become JSON.
        json.unwrap_or_default().into()
    }

    /// What is known of a message, as headers. An attribute that can't be one is left out.
    fn metadata(&self, lease: &Lease) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (key, value) in &lease.message.attributes {
            let is_own = |name: &HeaderName| {
                HEADERS_OF_THE_CONNECTION.contains(&name.as_str()) || name.as_str().starts_with("proxy-")
            };
            let name = HeaderName::from_bytes(key.as_bytes()).ok().filter(|name| !is_own(name));
            if let Some((name, value)) = name.zip(HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        let known = [
            ("x-goog-pubsub-subscription-name", self.subscription.to_string()),
            ("x-goog-pubsub-message-id", lease.message_id.0.clone()),
            ("x-goog-pubsub-publish-time", time(lease)),
            ("x-goog-pubsub-ordering-key", lease.message.ordering_key.clone()),
        ];
        for (name, value) in known.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// When a message was published, as RFC 3339 writes it.
fn time(lease: &Lease) -> String {
    let seconds = i64::try_from(lease.publish_time_ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(lease.publish_time_ms % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds, nanos }.to_string()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::{self, AckId, MessageId};

    fn lease() -> Lease {
        let attributes = [("a", "b"), ("content-length", "7"), ("not a header", "x"), ("Host", "evil")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Lease {
            ack_id: AckId("ack".to_owned()),
            message_id: MessageId("12".to_owned()),
            publish_time_ms: 1_614_369_235_749,
            attempt: Some(3),
            message: engine::Message { data: "hi".into(), attributes, ordering_key: "k".to_owned() },
        }
    }

    fn form(version: Option<PushVersion>, body: Option<PushBody>) -> Form {
        let config = PushConfig::new("http://h/p?q=1".to_owned(), version, body).unwrap();
        Form::new(&config, "projects/p/subscriptions/payment".parse().unwrap()).unwrap()
    }

    async fn posted(form: &Form, lease: Lease) -> (HeaderMap, Bytes) {
        let (parts, body) = form.request(lease).into_parts();
        assert_eq!((parts.method, parts.uri.to_string()), (Method::POST, "http://h/p?q=1".to_owned()));
        (parts.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_message_is_wrapped_as_the_public_service_does() {
        let (headers, body) = posted(&form(None, None), lease()).await;
        assert_eq!(headers["content-type"], "application/json");
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["message"]["attributes"].as_object_mut().unwrap().len(), 4);
        body["message"]["attributes"] = json!({"a": "b"});
        let time = "2021-02-26T19:53:55.749Z";
        let message = json!({"data": "aGk=", "attributes": {"a": "b"}, "messageId": "12", "message_id": "12",
            "publishTime": time, "publish_time": time, "orderingKey": "k"});
        let whole =
            json!({"message": message, "subscription": "projects/p/subscriptions/payment", "deliveryAttempt": 3});
        assert_eq!(body, whole);

        let bare = Lease { attempt: None, message: engine::Message::default(), ..lease() };
        let (_, body) = posted(&form(Some(PushVersion::V1), Some(PushBody::Wrapped)), bare).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.get("deliveryAttempt"), None);
        for absent in ["data", "attributes", "orderingKey"] {
            assert_eq!(body["message"].get(absent), None, "{absent}");
        }
    }

    #[tokio::test]
    async fn the_first_version_has_attributes_as_labels() {
        let mut lease = lease();
        lease.message.attributes = [("a".to_owned(), "b".to_owned())].into();
        let (_, body) = posted(&form(Some(PushVersion::V1Beta1), None), lease).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let message = json!({"data": "aGk=", "messageId": "12", "label": [{"key": "a", "strValue": "b"}]});
        assert_eq!(body["message"], message);
    }

    #[tokio::test]
    async fn without_a_wrapper_the_data_is_the_body_and_the_rest_is_in_headers_if_that_is_wanted() {
        let (headers, body) = posted(&form(None, Some(PushBody::Raw { write_metadata: false })), lease()).await;
        assert_eq!((body.as_ref(), headers.len()), (b"hi".as_ref(), 2), "{headers:?}");
        let (headers, body) = posted(&form(None, Some(PushBody::Raw { write_metadata: true })), lease()).await;
        assert_eq!(body.as_ref(), b"hi");
        let expected = [
            ("a", "b"),
            ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/payment"),
            ("x-goog-pubsub-message-id", "12"),
            ("x-goog-pubsub-publish-time", "2021-02-26T19:53:55.749Z"),
            ("x-goog-pubsub-ordering-key", "k"),
        ];
        for (name, value) in expected {
            assert_eq!(headers[name], value, "{name}");
        }
        assert_eq!(
            headers.len(),
            expected.len() + 2,
            "attributes that are no headers, or not ours to set: {headers:?}"
        );
    }
}
