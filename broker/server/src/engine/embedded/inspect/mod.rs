//! Looking inside: figures, the messages of a backlog, and the way back for dead letters.

mod figures;
mod peek;
mod redrive;

pub(super) use figures::Figures;

use broker_core::{Seq, TopicId};
use bytes::Bytes;

use super::codec::Stored;
use super::failure::Failure;
use super::fetch::stored;
use super::store::Reader;
use super::{MESSAGE_ID_SEQ_BITS, MessageId};

/// The number that a message has in a topic; none if its id is not of that topic.
fn seq_of(id: &MessageId, topic: TopicId) -> Option<Seq> {
    let number: u64 = id.0.parse().ok()?;
    let seq = Seq(number & ((1 << MESSAGE_ID_SEQ_BITS) - 1));
    (super::message_id(topic, seq) == *id).then_some(seq)
}

/// Reads single messages; those that were published together are read once.
struct Bodies<'a> {
    reader: &'a Reader,
    topic: TopicId,
    last: Option<Stored>,
}

impl<'a> Bodies<'a> {
    fn new(reader: &'a Reader, topic: TopicId) -> Self {
        Self { reader, topic, last: None }
    }

    /// The entry that has a message, and its body. None if nobody needs it any more and it is gone.
    fn body(&mut self, seq: Seq) -> Result<Option<(broker_core::Time, Bytes)>, Failure> {
        if let Some(found) = self.last.as_ref().and_then(|stored| body_in(stored, seq)) {
            return Ok(Some(found));
        }
        let Some(found) = self.reader.lookup(self.topic.0, seq.0)? else { return Ok(None) };
        let stored = self.last.insert(stored(&found)?);
        body_in(stored, seq).map(Some).ok_or(Failure::Missing { topic: self.topic, seq })
    }
}

fn body_in(stored: &Stored, seq: Seq) -> Option<(broker_core::Time, Bytes)> {
    let place = usize::try_from(seq.0.checked_sub(stored.first)?).ok()?;
    Some((stored.time, stored.bodies.get(place)?.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_number_in_its_own_topic_only() {
        let id = super::super::message_id(TopicId(7), Seq(9));
        assert_eq!(seq_of(&id, TopicId(7)), Some(Seq(9)));
        assert_eq!(seq_of(&id, TopicId(8)), None);
        assert_eq!(seq_of(&MessageId("nonsense".to_owned()), TopicId(8)), None);
    }
}
