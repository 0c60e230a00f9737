//! Bytes in, bytes out: the codec against bytes that were written by hand.

use std::collections::HashMap;
use std::fmt::Debug;

use orderflow_proto::google::pubsub::v1::seek_request::Target;
use orderflow_proto::google::pubsub::v1::{
    AcknowledgeRequest, DeadLetterPolicy, PublishRequest, PubsubMessage, ReceivedMessage, RetryPolicy, SeekRequest,
    StreamingPullRequest, StreamingPullResponse, Subscription,
};
use orderflow_proto::orderflow::events::v1::order_event::Event;
use orderflow_proto::orderflow::events::v1::{OrderEvent, OrderPlaced};
use orderflow_proto::orderflow::r#type::v1::{CheckoutMode, Money};
use prost::Message;
use prost::bytes::Bytes;
use prost_types::{Duration, Timestamp};

#[test]
fn a_message_has_the_bytes_of_the_public_api() {
    let message = PubsubMessage {
        data: Bytes::from_static(b"ab"),
        attributes: HashMap::from([("k".to_owned(), "v".to_owned())]),
        message_id: "7".to_owned(),
        publish_time: Some(Timestamp { seconds: 1, nanos: 2 }),
        ordering_key: "o".to_owned(),
    };
    let wire = b"\x0a\x02ab\x12\x06\x0a\x01k\x12\x01v\x1a\x017\x22\x04\x08\x01\x10\x02\x2a\x01o";
    assert_eq!(message.encode_to_vec(), wire);
    assert_eq!(PubsubMessage::decode(wire.as_slice()).unwrap(), message);
}

#[test]
fn a_decoded_body_is_a_view_into_the_request() {
    let request = PublishRequest {
        topic: "projects/p/topics/t".to_owned(),
        messages: vec![PubsubMessage { data: vec![b'x'; 4096].into(), ..Default::default() }; 3],
    };
    let wire = Bytes::from(request.encode_to_vec());
    let decoded = PublishRequest::decode(wire.clone()).unwrap();
    assert_eq!(decoded, request);
    for message in decoded.messages {
        assert!(wire.as_ptr_range().contains(&message.data.as_ptr()), "the body was copied");
    }
}

#[test]
fn deadlines_are_read_packed_and_one_by_one() {
    let expected = StreamingPullRequest {
        modify_deadline_seconds: vec![0, 600],
        modify_deadline_ack_ids: vec!["a".to_owned(), "b".to_owned()],
        ..Default::default()
    };
    let packed = b"\x1a\x03\x00\xd8\x04\x22\x01a\x22\x01b";
    let one_by_one = b"\x18\x00\x18\xd8\x04\x22\x01a\x22\x01b";
    assert_eq!(StreamingPullRequest::decode(packed.as_slice()).unwrap(), expected);
    assert_eq!(StreamingPullRequest::decode(one_by_one.as_slice()).unwrap(), expected);
}

#[test]
fn an_unset_policy_is_told_from_an_empty_one() {
    let bare = Subscription { name: "s".to_owned(), ..Default::default() };
    let empty = Subscription { retry_policy: Some(RetryPolicy::default()), ..bare.clone() };
    assert_eq!(round_trip(&bare).retry_policy, None);
    assert_eq!(round_trip(&empty).retry_policy, Some(RetryPolicy::default()));
}

#[test]
fn what_is_written_is_read_back() {
    round_trip(&Subscription {
        name: "projects/p/subscriptions/s".to_owned(),
        topic: "projects/p/topics/t".to_owned(),
        ack_deadline_seconds: 30,
        enable_message_ordering: true,
        dead_letter_policy: Some(DeadLetterPolicy {
            dead_letter_topic: "projects/p/topics/d".to_owned(),
            max_delivery_attempts: 5,
        }),
        retry_policy: Some(RetryPolicy {
            minimum_backoff: Some(Duration { seconds: 1, nanos: 0 }),
            maximum_backoff: Some(Duration { seconds: 600, nanos: 0 }),
        }),
        labels: HashMap::from([("team".to_owned(), "orders".to_owned()), ("tier".to_owned(), "1".to_owned())]),
        ..Default::default()
    });
    round_trip(&StreamingPullResponse {
        received_messages: vec![ReceivedMessage {
            ack_id: "lease".to_owned(),
            message: Some(PubsubMessage { data: Bytes::from_static(b"\x00\xff"), ..Default::default() }),
            delivery_attempt: 2,
        }],
        ..Default::default()
    });
    round_trip(&AcknowledgeRequest { subscription: "s".to_owned(), ack_ids: vec!["a".to_owned(), "b".to_owned()] });
    round_trip(&SeekRequest {
        subscription: "s".to_owned(),
        target: Some(Target::Time(Timestamp { seconds: -1, nanos: 0 })),
    });
    round_trip(&OrderEvent {
        order_id: "o".to_owned(),
        customer_id: "c".to_owned(),
        customer_email: "c@example.com".to_owned(),
        event: Some(Event::Placed(OrderPlaced {
            total: Some(Money { currency_code: "EUR".to_owned(), amount_minor: 1299 }),
            payment_token: "tok_visa".to_owned(),
            checkout_mode: CheckoutMode::Synchronous.into(),
        })),
    });
}

#[test]
fn a_cut_message_is_refused() {
    let wire = b"\x0a\x05ab";
    assert!(PubsubMessage::decode(wire.as_slice()).is_err());
}

fn round_trip<M: Message + Default + PartialEq + Debug>(message: &M) -> M {
    let decoded = M::decode(message.encode_to_vec().as_slice()).unwrap();
    assert_eq!(&decoded, message);
    decoded
}
