//! Events as JSON, so that a person can read and mend them.

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

/// Messages that travel by themselves.
const BY_THEMSELVES: [&str; 2] = ["orderflow.events.v1.InvoiceJob", "orderflow.events.v1.InvoiceRendered"];
/// Messages that carry one of several events, each of a type of its own.
const CARRIERS: [&str; 2] = ["orderflow.events.v1.OrderEvent", "orderflow.events.v1.PaymentEvent"];

/// Why a payload can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows the type.
    #[error("`{0}` (the attribute `ce-type`) is no event of this suite; its payload can't be shown or mended as JSON")]
    UnknownKind(String),
    /// The bytes are no such event.
    #[error("the payload is no {kind}: {source}")]
    Decode {
        /// Of which type it should be.
        kind: String,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// The JSON is no such event.
    #[error("the JSON is no {kind}: {source}")]
    Json {
        /// Of which type it should be.
        kind: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The JSON is an event of another type.
    #[error("the JSON is an event, but no {0}")]
    OtherKind(String),
}

/// The payload of an event of this type as JSON, with the names of the .proto file.
pub(super) fn decode(kind: &str, data: &[u8]) -> Result<serde_json::Value, Error> {
    let carrier = carrier(kind)?;
    let source = |source| Error::Decode { kind: kind.to_owned(), source };
    let message = DynamicMessage::decode(carrier, data).map_err(source)?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    json.map_err(|source| Error::Json { kind: kind.to_owned(), source })
}

/// JSON as the payload of an event of this type.
pub(super) fn encode(kind: &str, json: &str) -> Result<Vec<u8>, Error> {
    let carrier = carrier(kind)?;
    let wrong = |source| Error::Json { kind: kind.to_owned(), source };
    let mut json = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(carrier, &mut json).map_err(wrong)?;
    json.end().map_err(wrong)?;
    let holds_it = BY_THEMSELVES.contains(&kind)
        || message.fields().any(|(field, _)| {
            let event = field.containing_oneof().and(field.kind().as_message().cloned());
            event.is_some_and(|event| event.full_name() == kind)
        });
    if holds_it { Ok(message.encode_to_vec()) } else { Err(Error::OtherKind(kind.to_owned())) }
}

/// The message in which events of this type travel.
fn carrier(kind: &str) -> Result<MessageDescriptor, Error> {
    let unknown = || Error::UnknownKind(kind.to_owned());
    let pool = DescriptorPool::decode(orderflow_proto::DESCRIPTORS).map_err(|_| unknown())?;
    if BY_THEMSELVES.contains(&kind) {
        return pool.get_message_by_name(kind).ok_or_else(unknown);
    }
    let carriers = CARRIERS.iter().filter_map(|name| pool.get_message_by_name(name));
    let carries = |carrier: &MessageDescriptor| {
        let events = carrier.oneofs().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
        events.into_iter().any(|field| field.kind().as_message().is_some_and(|event| event.full_name() == kind))
    };
    carriers.into_iter().find(carries).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use orderflow_proto::orderflow::events::v1::order_event::Event;
    use orderflow_proto::orderflow::events::v1::{OrderDeclined, OrderEvent};

    use super::*;

    const DECLINED: &str = "orderflow.events.v1.OrderDeclined";

    fn declined() -> Vec<u8> {
        let event = Some(Event::Declined(OrderDeclined { reason: "stolen_card".into() }));
        OrderEvent { order_id: "o-1".into(), customer_id: "alice".into(), event, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn an_event_comes_back_from_its_json() {
        let json = decode(DECLINED, &declined()).unwrap();
        assert_eq!(json["order_id"], "o-1");
        assert_eq!(json["declined"]["reason"], "stolen_card");
        assert_eq!(encode(DECLINED, &json.to_string()).unwrap(), declined());
    }

    #[test]
    fn what_is_no_such_event_is_refused() {
        assert!(matches!(decode("made.up.Event", &[]), Err(Error::UnknownKind(_))));
        assert!(matches!(decode(DECLINED, &[0xff]), Err(Error::Decode { .. })));
        for json in ["{", "[]", r#"{"no_such_field": 1}"#, r#"{"declined": {}} {}"#] {
            assert!(matches!(encode(DECLINED, json), Err(Error::Json { .. })), "{json}");
        }
        for json in [r#"{"order_id": "o-1"}"#, r#"{"order_id": "o-1", "paid": {}}"#] {
            assert!(matches!(encode(DECLINED, json), Err(Error::OtherKind(_))), "{json}");
        }
    }

    #[test]
    fn every_kind_of_event_has_a_carrier() {
        for kind in ["OrderPlaced", "OrderPaid", "PaymentCaptured", "PaymentVoided", "InvoiceJob", "InvoiceRendered"] {
            assert!(carrier(&format!("orderflow.events.v1.{kind}")).is_ok(), "{kind}");
        }
        assert!(carrier("orderflow.events.v1.OrderEvent").is_err(), "a carrier is no event itself");
    }
}
