//! Dead letters go back to where they came from.

use broker_core::{DeadLetter, Meta, RedriveOutcome, Seq, SubscriptionName, TopicId};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::codec::{body_of, message_of};
use super::super::dead_letter::take_source;
use super::super::failure::Failure;
use super::super::fetch::meta_of;
use super::super::store::Reader;
use super::super::task::State;
use super::super::{Embedded, command, message_id};
use super::{Bodies, seq_of};
use crate::engine::{Error, MessageId, Redrive, Redriven, SKIPPED_SHOWN_MAX, SkipReason, Skipped};

/// How many messages are under way at a time. They share a sync.
const BATCH_MESSAGES: usize = 100;
/// No more bytes than this are under way at a time, and one message more.
const BATCH_BYTES: usize = 8 << 20;

/// A message with its way back.
struct Letter {
    seq: Seq,
    way: Result<Way, SkipReason>,
}

struct Way {
    to: SubscriptionName,
    bytes_before: u32,
    /// As it will be there.
    body: Bytes,
    meta: Meta,
}

type Answer = oneshot::Receiver<Result<RedriveOutcome, broker_core::Error>>;

impl Embedded {
    pub(in crate::engine::embedded) async fn take_back(
        &self,
        subscription: SubscriptionName,
        redrive: Redrive,
    ) -> Result<Redriven, Error> {
        let Redrive { ids, messages_max } = redrive;
        let mut done = Redriven::default();
        let of = subscription.clone();
        // What comes while this is under way is not looked at, so it comes to an end also if a message comes back.
        let bounds = move |state: &mut State| {
            let topic = state.core.subscription(&of)?.topic;
            // Also says whether it is detached.
            state.core.peek(&of, Seq::ZERO, 0, state.now)?;
            Ok::<_, Error>((topic, state.core.topic_by_id(topic).map_or(Seq::ZERO, |topic| topic.last)))
        };
        let (topic, last) = self.ask(bounds).await?;
        let chosen = if ids.is_empty() { None } else { Some(self.choose(&subscription, ids, topic, &mut done).await?) };
        let mut after = Seq::ZERO;
        while done.redriven < messages_max {
            let left = usize::try_from(messages_max - done.redriven).unwrap_or(usize::MAX).min(BATCH_MESSAGES);
            let seqs = match &chosen {
                Some(chosen) => chosen.iter().copied().filter(|seq| *seq > after).take(left).collect(),
                None => self.next_letters(&subscription, after, last, left).await?,
            };
            let Some(end) = self.take_back_some(&subscription, topic, seqs, &mut done).await? else { break };
            after = end;
        }
        Ok(done)
    }

    /// The numbers of the messages that are asked for, the oldest first.
    async fn choose(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<MessageId>,
        topic: TopicId,
        done: &mut Redriven,
    ) -> Result<Vec<Seq>, Error> {
        let subscription = subscription.clone();
        let look = move |state: &mut State| {
            let mut looked = Vec::with_capacity(ids.len());
            for id in ids {
                let shown = match seq_of(&id, topic) {
                    Some(seq) => state.core.peek_at(&subscription, seq, state.now)?,
                    None => None,
                };
                looked.push((id, shown));
            }
            Ok::<_, Error>(looked)
        };
        let mut seqs = Vec::new();
        for (id, shown) in self.ask(look).await? {
            match shown {
                Some(shown) => seqs.push(shown.seq),
                None => done.skip(id, SkipReason::NotInBacklog, None),
            }
        }
        seqs.sort_unstable();
        seqs.dedup();
        Ok(seqs)
    }

    async fn next_letters(
        &self,
        subscription: &SubscriptionName,
        after: Seq,
        last: Seq,
        limit: usize,
    ) -> Result<Vec<Seq>, Error> {
        let subscription = subscription.clone();
        let peek = move |state: &mut State| state.core.peek(&subscription, after, limit, state.now);
        let found = self.ask(peek).await?;
        Ok(found.into_iter().map(|peeked| peeked.seq).filter(|seq| *seq <= last).collect())
    }

    /// Takes back the first ones, and tells which was the last of them. None if there are none.
    async fn take_back_some(
        &self,
        subscription: &SubscriptionName,
        topic: TopicId,
        seqs: Vec<Seq>,
        done: &mut Redriven,
    ) -> Result<Option<Seq>, Error> {
        let letters = self.read(move |reader| read(reader, topic, &seqs)).await?;
        let end = letters.last().map(|letter| letter.seq);
        let is_missing = |letter: &&Letter| matches!(letter.way, Err(SkipReason::NotInBacklog));
        self.check_settled(letters.iter().filter(is_missing).map(|letter| (topic, letter.seq)).collect()).await?;
        let mut waiting = Vec::with_capacity(letters.len());
        for Letter { seq, way } in letters {
            match way {
                Ok(way) => waiting.push((seq, way.to.clone(), self.send_back(subscription.clone(), seq, way).await?)),
                Err(why) => done.skip(message_id(topic, seq), why, None),
            }
        }
        for (seq, source, answer) in waiting {
            let outcome = answer.await.map_err(|_| Error::Unavailable)??;
            let why = match outcome {
                RedriveOutcome::Redriven(..) => {
                    done.redriven += 1;
                    continue;
                }
                RedriveOutcome::Outstanding => SkipReason::Outstanding,
                RedriveOutcome::NotUnacked => SkipReason::NotInBacklog,
                RedriveOutcome::TargetNotFound => SkipReason::SourceNotFound,
                RedriveOutcome::TargetDetached => SkipReason::SourceDetached,
            };
            done.skip(message_id(topic, seq), why, Some(source));
        }
        Ok(end)
    }

    /// Has the engine task take a message back. Waits for a place in the queue, not for the disk.
    async fn send_back(&self, subscription: SubscriptionName, seq: Seq, way: Way) -> Result<Answer, Error> {
        let Way { to: target, bytes_before, body, meta } = way;
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let permit = std::sync::Arc::clone(&self.queue_bytes).acquire_many_owned(bytes).await;
        let letter = DeadLetter { subscription, seq, bytes: bytes_before, target, meta };
        let (mut command, answer) = command(body.into(), move |state: &mut State| {
            state.core.handle_redrive(&letter, state.now, &mut state.out)
        });
        command.permit = Some(permit.map_err(|_| Error::Unavailable)?);
        self.commands.send(command).await.map_err(|_| Error::Unavailable)?;
        Ok(answer)
    }
}

impl Redriven {
    fn skip(&mut self, message_id: MessageId, why: SkipReason, source: Option<SubscriptionName>) {
        self.skipped += 1;
        if self.shown.len() < SKIPPED_SHOWN_MAX {
            self.shown.push(Skipped { message_id, why, source });
        }
    }
}

/// Reads letters from the first one on, and no more than [`BATCH_BYTES`] and one letter.
fn read(reader: &Reader, topic: TopicId, seqs: &[Seq]) -> Result<Vec<Letter>, Failure> {
    let mut bodies = Bodies::new(reader, topic);
    let mut letters = Vec::with_capacity(seqs.len());
    let mut bytes = 0;
    for seq in seqs {
        if bytes >= BATCH_BYTES {
            break;
        }
        let error = |source| Failure::Message { topic, seq: *seq, source };
        // One that was acked meanwhile may be gone.
        let Some((_, body)) = bodies.body(*seq)? else {
            letters.push(Letter { seq: *seq, way: Err(SkipReason::NotInBacklog) });
            continue;
        };
        bytes += body.len();
        let bytes_before = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut message = message_of(body).map_err(error)?;
        let way = match take_source(&mut message.attributes) {
            Some(to) => {
                let (body, _) = body_of(message);
                let meta = meta_of(&body).map_err(error)?;
                Ok(Way { to, bytes_before, body, meta })
            }
            None => Err(SkipReason::SourceUnknown),
        };
        letters.push(Letter { seq: *seq, way });
    }
    Ok(letters)
}
