//! A look at a backlog that takes nothing from it.

use broker_core::{Peeked as Shown, Seq, SubscriptionName, TopicId};

use super::super::codec::message_of;
use super::super::failure::Failure;
use super::super::store::Reader;
use super::super::task::State;
use super::super::{Embedded, message_id};
use super::{Bodies, seq_of};
use crate::engine::{Error, MessageId, Peek, Peeked, PeekedMessage};

/// A part of a backlog holds no more than this many bytes, or one message: so that clients take it with their usual limit
/// of 4 MiB for a response.
const PEEK_BYTES_MAX: usize = 3 << 20;

impl Embedded {
    pub(in crate::engine::embedded) async fn look_at(
        &self,
        subscription: SubscriptionName,
        peek: Peek,
    ) -> Result<Peeked, Error> {
        let Peek { ids, after, messages_max, data_bytes_max } = peek;
        let look = move |state: &mut State| {
            let topic = state.core.subscription(&subscription)?.topic;
            let after = match after {
                Some(id) => seq_of(&id, topic).ok_or_else(|| foreign("page_token", &id))?,
                None => Seq::ZERO,
            };
            let shown = if ids.is_empty() {
                state.core.peek(&subscription, after, messages_max, state.now)?
            } else {
                chosen(state, &subscription, topic, &ids, after, messages_max)?
            };
            Ok::<_, Error>((topic, shown))
        };
        let (topic, shown) = self.ask(look).await?;
        let read = move |reader: &Reader| read(reader, topic, &shown, messages_max, data_bytes_max);
        let (peeked, missing) = self.read(read).await?;
        self.check_settled(missing).await?;
        Ok(peeked)
    }
}

fn foreign(field: &str, MessageId(id): &MessageId) -> Error {
    Error::Setting { field: field.to_owned(), why: format!("`{id}` is no message of the subscription's topic") }
}

/// Of the messages that are asked for, those in the backlog, the oldest first.
fn chosen(
    state: &State,
    subscription: &SubscriptionName,
    topic: TopicId,
    ids: &[MessageId],
    after: Seq,
    messages_max: usize,
) -> Result<Vec<Shown>, Error> {
    let mut seqs: Vec<Seq> = ids.iter().filter_map(|id| seq_of(id, topic)).filter(|seq| *seq > after).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let mut shown = Vec::new();
    for seq in seqs {
        shown.extend(state.core.peek_at(subscription, seq, state.now)?);
    }
    shown.truncate(messages_max);
    Ok(shown)
}

/// What is shown, and what of it was not found.
fn read(
    reader: &Reader,
    topic: TopicId,
    shown: &[Shown],
    messages_max: usize,
    data_bytes_max: usize,
) -> Result<(Peeked, Vec<(TopicId, Seq)>), Failure> {
    let mut bodies = Bodies::new(reader, topic);
    let mut peeked = Peeked::default();
    let mut missing = Vec::new();
    let mut bytes = 0;
    for Shown { seq, state, failure } in shown {
        // One that was acked meanwhile may be gone.
        let Some((publish_time, body)) = bodies.body(*seq)? else {
            missing.push((topic, *seq));
            continue;
        };
        let mut message = message_of(body).map_err(|source| Failure::Message { topic, seq: *seq, source })?;
        let data_bytes = message.data.len();
        message.data.truncate(data_bytes_max);
        let attributes = message.attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        bytes += message.data.len() + attributes + message.ordering_key.len();
        if bytes > PEEK_BYTES_MAX && !peeked.messages.is_empty() {
            peeked.last = peeked.messages.last().map(|last| last.message_id.clone());
            return Ok((peeked, missing));
        }
        let message_id = message_id(topic, *seq);
        let (state, failure) = (*state, *failure);
        peeked.messages.push(PeekedMessage { message_id, publish_time, message, data_bytes, state, failure });
    }
    if shown.len() >= messages_max {
        peeked.last = shown.last().map(|last| message_id(topic, last.seq));
    }
    Ok((peeked, missing))
}
