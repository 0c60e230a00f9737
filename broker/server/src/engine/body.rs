//! Messages on their way in, encoded as they came: who publishes has encoded them, and a journal stores them encoded, so in
//! between they are only looked through.

use bytes::Bytes;
use orderflow_proto::google::pubsub::v1::PubsubMessage;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{Message, MessageId};

const DATA_TAG: u32 = 1;
const ATTRIBUTES_TAG: u32 = 2;
const ORDERING_KEY_TAG: u32 = 5;
const ENTRY_KEY_TAG: u32 = 1;
const ENTRY_VALUE_TAG: u32 = 2;

/// An encoded [`PubsubMessage`] that was parsed and is within its limits. It has neither id nor publish time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    encoded: Bytes,
    /// It is nothing but data, as most are, and needs no second look.
    is_plain: bool,
}

/// The ids of messages that were published together: consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageIds {
    pub(crate) first: u64,
    pub(crate) count: u32,
}

/// A field of an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'m> {
    Data(&'m [u8]),
    Attribute { key: &'m str, value: &'m str },
    OrderingKey(&'m str),
}

/// What is seldom sent, or wrong: a whole decoder has to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unusual;

/// The fields of an encoded message, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'m>(Pieces<'m>);

/// The fields of any encoded message that have a length, with their tags. All others are unusual here.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'m>(&'m [u8]);

impl Body {
    /// Takes the word of the caller that [`Fields`] finds nothing unusual in it, no field but attributes twice, and that
    /// all is within its limits; and if it is plain, no field but data.
    pub(crate) fn looked_through(encoded: Bytes, is_plain: bool) -> Self {
        Self { encoded, is_plain }
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The ordering key; empty: unordered.
    pub(crate) fn ordering_key(&self) -> &str {
        let key = |field| if let Ok(Field::OrderingKey(key)) = field { Some(key) } else { None };
        Fields::of(&self.encoded).find_map(key).unwrap_or_default()
    }

    /// Keys and values; of two with the same key the last one counts.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        Fields::of(&self.encoded).filter_map(|field| match field {
            Ok(Field::Attribute { key, value }) => Some((key, value)),
            _ => None,
        })
    }
}

impl From<Message> for Body {
    fn from(message: Message) -> Self {
        let Message { data, attributes, ordering_key } = message;
        let is_plain = attributes.is_empty() && ordering_key.is_empty();
        let encoded = PubsubMessage { data, attributes, ordering_key, ..Default::default() }.encode_to_vec().into();
        Self { encoded, is_plain }
    }
}

impl MessageIds {
    /// Each of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = MessageId> {
        self.numbers().map(|number| MessageId(number.to_string()))
    }

    /// What they say.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> {
        self.first..self.first + u64::from(self.count)
    }
}

impl<'m> Fields<'m> {
    pub(crate) fn of(encoded: &'m [u8]) -> Self {
        Self(Pieces::of(encoded))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<Field<'m>, Unusual>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.0.next()?.and_then(|(tag, piece)| match tag {
            DATA_TAG => Ok(Field::Data(piece)),
            ATTRIBUTES_TAG => attribute(piece),
            ORDERING_KEY_TAG => text(piece).map(Field::OrderingKey),
            _ => Err(Unusual),
        });
        Some(field)
    }
}

impl<'m> Pieces<'m> {
    pub(crate) fn of(encoded: &'m [u8]) -> Self {
        Self(encoded)
    }

    fn piece(&mut self) -> Result<(u32, &'m [u8]), Unusual> {
        let (tag, wire_type) = decode_key(&mut self.0).map_err(|_| Unusual)?;
        if wire_type != WireType::LengthDelimited {
            return Err(Unusual);
        }
        let len = decode_varint(&mut self.0).map_err(|_| Unusual)?;
        let (piece, rest) = usize::try_from(len).ok().and_then(|len| self.0.split_at_checked(len)).ok_or(Unusual)?;
        self.0 = rest;
        Ok((tag, piece))
    }
}

impl<'m> Iterator for Pieces<'m> {
    type Item = Result<(u32, &'m [u8]), Unusual>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let piece = self.piece();
        if piece.is_err() {
            // Where the next one would begin is not known.
            self.0 = &[];
        }
        Some(piece)
    }
}

/// The entry of a map: a key and a value.
fn attribute(entry: &[u8]) -> Result<Field<'_>, Unusual> {
    let (mut key, mut value) = ("", "");
    for piece in Pieces::of(entry) {
        match piece? {
            (ENTRY_KEY_TAG, piece) => key = text(piece)?,
            (ENTRY_VALUE_TAG, piece) => value = text(piece)?,
            _ => return Err(Unusual),
        }
    }
    Ok(Field::Attribute { key, value })
}

fn text(piece: &[u8]) -> Result<&str, Unusual> {
    str::from_utf8(piece).map_err(|_| Unusual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        let attributes = [("kind".to_owned(), "order".to_owned())].into();
        Body::from(Message { data: "data".into(), attributes, ordering_key: "key".to_owned() })
    }

    #[test]
    fn a_body_has_the_fields_of_its_message() {
        let body = body();
        let mut fields: Vec<_> = Fields::of(body.encoded()).collect::<Result<_, _>>().unwrap();
        fields.sort_by_key(|field| matches!(field, Field::Attribute { .. }));
        let attribute = Field::Attribute { key: "kind", value: "order" };
        assert_eq!(fields, [Field::Data(b"data"), Field::OrderingKey("key"), attribute]);
        assert_eq!(body.ordering_key(), "key");
        assert_eq!(body.attributes().collect::<Vec<_>>(), [("kind", "order")]);
        assert_eq!(Body::from(Message::default()).ordering_key(), "");
    }

    #[test]
    fn what_is_cut_off_is_unusual_wherever_it_is_cut() {
        let body = body();
        let whole = Fields::of(body.encoded()).count();
        for end in 1..body.encoded().len() {
            let mut fields = Fields::of(&body.encoded()[..end]);
            // A cut between two fields leaves a message of its own.
            let is_boundary = fields.all(|field| field.is_ok());
            assert!(!is_boundary || Fields::of(&body.encoded()[..end]).count() < whole, "cut at {end}");
            assert!(fields.next().is_none(), "nothing comes behind what is unusual");
        }
    }

    #[test]
    fn other_fields_and_wrong_kinds_are_unusual() {
        let id = PubsubMessage { message_id: "1".to_owned(), ..Default::default() }.encode_to_vec();
        let not_text = [0x2a, 1, 0xff];
        let number = [0x08, 1];
        for encoded in [&id[..], &not_text, &number] {
            assert_eq!(Fields::of(encoded).collect::<Vec<_>>(), [Err(Unusual)], "{encoded:?}");
        }
    }

    #[test]
    fn ids_are_numbers_in_a_row() {
        let ids: Vec<String> = MessageIds { first: 41, count: 2 }.iter().map(|MessageId(id)| id).collect();
        assert_eq!(ids, ["41", "42"]);
    }
}
