//! The readers of the edge, for fuzzers.

use axum::http::{Method, Uri};
use bytes::Bytes;
use orderflow_proto::google::pubsub::v1 as pb;
use prost::Message as _;

use super::{parse, publish, rest, settings};
use crate::engine::Body;

/// A request of the REST face that is understood is one that the gRPC services understand; what comes out of the
/// settings of a subscription is taken again as the same.
pub(crate) fn rest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (first, body) = text.split_once('\n').unwrap_or((&text, ""));
    let Some((method, uri)) = first.split_once(' ') else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), uri.parse::<Uri>()) else { return };
    let Some((rpc, message)) = rest::fuzzing::understand(&method, &uri, body.as_bytes()) else { return };
    let message = message.as_slice();
    match rpc.rsplit('/').next().unwrap_or_default() {
        "Publish" => {
            let whole = parse::messages(pb::PublishRequest::decode(message).expect("it is one"));
            if let Ok((_, bodies)) = publish::look_through(&Bytes::copy_from_slice(message)) {
                let whole = whole.expect("what is looked through is what the whole decoder takes");
                let decode = |body: &Body| pb::PubsubMessage::decode(body.encoded()).expect("it is one");
                let looked: Vec<_> = bodies.iter().map(decode).collect();
                let whole: Vec<_> = whole.into_iter().map(|message| decode(&message.into())).collect();
                assert_eq!(looked, whole);
            }
        }
        "CreateTopic" => {
            let topic = pb::Topic::decode(message).expect("it is one");
            if let Ok(config) = settings::topic_config(topic) {
                assert_eq!(settings::topic_config(settings::topic(&config)).as_ref(), Ok(&config));
            }
        }
        "CreateSubscription" => {
            let subscription = pb::Subscription::decode(message).expect("it is one");
            if let Ok(config) = settings::subscription_config(subscription) {
                let again = settings::subscription_config(settings::subscription_settings(&config));
                assert_eq!(again.as_ref(), Ok(&config));
            }
        }
        _ => {}
    }
}
