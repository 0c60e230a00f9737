//! The one RPC that is asked for most, `Publish`, past the derived code: a request is looked through where it lies, and its
//! messages go on as they came. What is unusual about a request, and every mistake, is left to the whole decoder.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http;
use broker_core::TopicName;
use bytes::{Buf, BufMut, Bytes};
use fail_points::Fault;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_server::PublisherServer;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::body::Body as HttpBody;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

use super::Publisher;
use super::parse::{self, PUBLISH_MESSAGES_MAX, PUBLISH_REQUEST_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::engine::{Body, Engine, Field, Fields, MessageIds, Pieces, Unusual};

const PATH: &str = "/google.pubsub.v1.Publisher/Publish";
const TOPIC_TAG: u32 = 1;
const MESSAGES_TAG: u32 = 2;
const MESSAGE_IDS_TAG: u32 = 1;

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// The `google.pubsub.v1.Publisher` service, with `Publish` on its short way.
#[derive(Clone, Debug)]
pub(crate) struct PublisherFace<E> {
    publisher: Arc<Publisher<E>>,
    derived: PublisherServer<Publisher<E>>,
}

impl<E: Engine> PublisherFace<E> {
    pub(crate) fn new(engine: E) -> Self {
        let publisher = Arc::new(Publisher::new(engine));
        let derived = PublisherServer::from_arc(Arc::clone(&publisher))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        Self { publisher, derived }
    }
}

impl<E> NamedService for PublisherFace<E> {
    const NAME: &'static str = PublisherServer::<Publisher<E>>::NAME;
}

impl<E: Engine> Service<http::Request<HttpBody>> for PublisherFace<E> {
    type Response = http::Response<HttpBody>;
    type Error = Infallible;
    type Future = Future<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<HttpBody>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.derived.call(request);
        }
        let publish = Publish(Arc::clone(&self.publisher));
        Box::pin(async move {
            let mut grpc = Grpc::new(PublishCodec)
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .accept_compressed(CompressionEncoding::Gzip);
            Ok(grpc.unary(publish, request).await)
        })
    }
}

struct Publish<E>(Arc<Publisher<E>>);

impl<E: Engine> UnaryService<Bytes> for Publish<E> {
    type Response = MessageIds;
    type Future = Future<Result<Response<MessageIds>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let publisher = Arc::clone(&self.0);
        Box::pin(async move {
            let request = request.into_inner();
            let ids = match look_through(&request) {
                Ok((topic, bodies)) => publisher.take(topic, bodies).await?,
                Err(Unusual) => publisher.decode(request).await?,
            };
            Ok(Response::new(ids))
        })
    }
}

impl<E: Engine> Publisher<E> {
    /// Publishes what a whole decoder and the parser of each field take.
    async fn decode(&self, request: Bytes) -> Result<MessageIds, Status> {
        let request = pb::PublishRequest::decode(request).map_err(|error| Status::internal(error.to_string()))?;
        self.publish_all(request).await
    }

    pub(super) async fn publish_all(&self, request: pb::PublishRequest) -> Result<MessageIds, Status> {
        let topic: TopicName = parse::name("topic", &request.topic)?;
        let bodies = parse::messages(request)?.into_iter().map(Body::from).collect();
        self.take(topic, bodies).await
    }

    async fn take(&self, topic: TopicName, bodies: Vec<Body>) -> Result<MessageIds, Status> {
        if fail_points::broken(Fault::BrokerRepliesFirst) {
            return Ok(reply_first(self.engine(), topic, bodies));
        }
        Ok(self.engine().publish(topic, bodies).await?)
    }
}

/// The topic and the messages of an encoded request, if all of it is as it has to be.
pub(super) fn look_through(request: &Bytes) -> Result<(TopicName, Vec<Body>), Unusual> {
    if request.len() > PUBLISH_REQUEST_BYTES_MAX {
        return Err(Unusual);
    }
    let (mut topic, mut bodies) = (None, Vec::new());
    for piece in Pieces::of(request) {
        match piece? {
            (TOPIC_TAG, name) if topic.is_none() => topic = Some(name),
            (MESSAGES_TAG, body) if bodies.len() < PUBLISH_MESSAGES_MAX => {
                let is_plain = check(body)?;
                bodies.push(Body::looked_through(request.slice_ref(body), is_plain));
            }
            _ => return Err(Unusual),
        }
    }
    let name = topic.and_then(|name| str::from_utf8(name).ok()).ok_or(Unusual)?;
    let topic = name.parse().map_err(|_| Unusual)?;
    if bodies.is_empty() { Err(Unusual) } else { Ok((topic, bodies)) }
}

/// Makes sure that a message is one that the parser takes, and is stored as it is. Answers whether it is nothing but data.
fn check(body: &[u8]) -> Result<bool, Unusual> {
    let (mut data, mut ordering_key, mut attributes) = (None, None, 0_usize);
    for field in Fields::of(body) {
        match field? {
            Field::Data(piece) if data.is_none() => data = Some(piece),
            Field::OrderingKey(key) if ordering_key.is_none() => {
                parse::ordering_key(key).map_err(|_| Unusual)?;
                ordering_key = Some(key);
            }
            Field::Attribute { key, value } => {
                parse::attribute(key, value).map_err(|_| Unusual)?;
                attributes += 1;
            }
            Field::Data(_) | Field::OrderingKey(_) => return Err(Unusual),
        }
    }
    parse::content(data.unwrap_or_default(), attributes).map_err(|_| Unusual)?;
    Ok(ordering_key.is_none() && attributes == 0)
}

/// What a build does that is broken on purpose: it says that it has the messages, and takes them a moment later.
fn reply_first<E: Engine>(engine: &E, topic: TopicName, bodies: Vec<Body>) -> MessageIds {
    const MOMENT: std::time::Duration = std::time::Duration::from_secs(1);
    let promised = MessageIds { first: 0, count: u32::try_from(bodies.len()).unwrap_or_default() };
    let engine = engine.clone();
    tokio::spawn(async move {
        tokio::time::sleep(MOMENT).await;
        engine.publish(topic, bodies).await.ok();
    });
    promised
}

/// Requests as they come, and ids straight into the answer.
#[derive(Clone, Copy, Debug, Default)]
struct PublishCodec;

impl Codec for PublishCodec {
    type Encode = MessageIds;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Decoder for PublishCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

impl Encoder for PublishCodec {
    type Item = MessageIds;
    type Error = Status;

    fn encode(&mut self, ids: MessageIds, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        encode_ids(ids, target);
        Ok(())
    }
}

/// An encoded [`pb::PublishResponse`].
fn encode_ids(ids: MessageIds, target: &mut impl BufMut) {
    let mut digits = itoa::Buffer::new();
    for number in ids.numbers() {
        let id = digits.format(number).as_bytes();
        encode_key(MESSAGE_IDS_TAG, WireType::LengthDelimited, target);
        encode_varint(id.len() as u64, target);
        target.put_slice(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(messages: Vec<pb::PubsubMessage>) -> pb::PublishRequest {
        pb::PublishRequest { topic: "projects/p/topics/orders".to_owned(), messages }
    }

    fn encoded(messages: Vec<pb::PubsubMessage>) -> Bytes {
        request(messages).encode_to_vec().into()
    }

    fn message(data: &'static [u8]) -> pb::PubsubMessage {
        pb::PubsubMessage { data: Bytes::from_static(data), ..Default::default() }
    }

    #[test]
    fn what_is_looked_through_is_what_the_whole_decoder_takes() {
        let attributes = [("kind".to_owned(), "order".to_owned()), ("empty".to_owned(), String::new())];
        let ordering_key = "order-1".to_owned();
        let full = pb::PubsubMessage { attributes: attributes.into(), ordering_key, ..message(b"data") };
        let bare = pb::PubsubMessage { data: Bytes::new(), ..full.clone() };
        let messages = vec![message(b"a"), full, bare];
        let (topic, bodies) = look_through(&encoded(messages.clone())).unwrap();
        assert_eq!(topic.to_string(), "projects/p/topics/orders");
        let decoded: Vec<_> = bodies.iter().map(|body| pb::PubsubMessage::decode(body.encoded()).unwrap()).collect();
        assert_eq!(decoded, messages);
        assert_eq!(bodies.iter().map(Body::is_plain).collect::<Vec<_>>(), [true, false, false]);
        let parsed =
            parse::messages(request(messages)).unwrap().into_iter().map(Body::from).map(|body| body.is_plain());
        assert_eq!(parsed.collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn whatever_the_parser_refuses_is_not_looked_through() {
        let attribute = |key: &str, value: &str| pb::PubsubMessage {
            attributes: [(key.to_owned(), value.to_owned())].into(),
            ..message(b"data")
        };
        let many = (0..=parse::ATTRIBUTES_MAX).map(|number| (format!("key {number}"), String::new())).collect();
        let wrong = [
            vec![],
            vec![message(b"")],
            vec![message(b"data"); PUBLISH_MESSAGES_MAX + 1],
            vec![attribute("", "value")],
            vec![attribute("google", "value")],
            vec![attribute(&"k".repeat(parse::ATTRIBUTE_KEY_BYTES_MAX + 1), "value")],
            vec![attribute("key", &"v".repeat(parse::ATTRIBUTE_VALUE_BYTES_MAX + 1))],
            vec![pb::PubsubMessage { attributes: many, ..message(b"data") }],
            vec![pb::PubsubMessage { ordering_key: "k".repeat(parse::ORDERING_KEY_BYTES_MAX + 1), ..message(b"data") }],
            vec![pb::PubsubMessage { data: vec![0; PUBLISH_REQUEST_BYTES_MAX].into(), ..Default::default() }],
        ];
        for messages in wrong {
            let count = messages.len();
            assert_eq!(look_through(&encoded(messages.clone())), Err(Unusual), "{count} messages");
            assert!(parse::messages(request(messages)).is_err(), "{count} messages");
        }
    }

    #[test]
    fn what_would_not_be_stored_as_it_came_is_left_to_the_whole_decoder() {
        let with_id = pb::PubsubMessage { message_id: "7".to_owned(), ..message(b"data") };
        let with_time = pb::PubsubMessage { publish_time: Some(Default::default()), ..message(b"data") };
        let twice: Bytes = [encoded(vec![message(b"a")]), encoded(vec![message(b"b")])].concat().into();
        let data_twice = [message(b"a").encode_to_vec(), message(b"b").encode_to_vec()].concat();
        assert_eq!(check(&data_twice), Err(Unusual));
        for request in [encoded(vec![with_id]), encoded(vec![with_time]), twice, Bytes::new()] {
            assert_eq!(look_through(&request), Err(Unusual));
        }
    }

    #[test]
    fn ids_are_encoded_as_the_derived_code_does() {
        let ids = MessageIds { first: 99, count: 3 };
        let derived = pb::PublishResponse { message_ids: ids.iter().map(|id| id.0).collect() };
        let mut encoded = Vec::new();
        encode_ids(ids, &mut encoded);
        assert_eq!(encoded, derived.encode_to_vec());
    }
}
