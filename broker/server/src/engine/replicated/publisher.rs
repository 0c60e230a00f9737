//! The owner's side of the stream: what the journal changes is published, each message behind the one before.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::change::encode;
use super::cluster::Cluster;
use super::failure::Failure;
use crate::engine::embedded::{Change, Mirror};

/// How long the cluster may confirm nothing before the owner gives up. It is less than the stream remembers ids for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it pauses between tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Changes are sent when this many bytes have gathered, also when nobody waits for them.
const GATHERED_BYTES_MAX: usize = 8 << 20;

/// Publishes the changes of the journal's owner.
pub(super) struct Publisher {
    cluster: Cluster,
    runtime: Handle,
    files: String,
    /// Names this ownership in the ids of messages.
    claim: u64,
    /// Cancelled once the ownership is given up: nothing is published any more, and the files belong to somebody else.
    over: CancellationToken,
    /// Something was not confirmed. It is never tried again: nobody knows what the cluster has of it.
    failed: AtomicBool,
    /// It was refused for good.
    refused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last message that the cluster has confirmed.
    last: u64,
    gathered: Vec<Message>,
    gathered_bytes: usize,
    /// The write that was gathered last, unless something else came behind it.
    written: Option<Written>,
    /// Files whose messages may be purged once their removal is confirmed.
    removed: Vec<Removal>,
}

/// A write that was gathered.
#[derive(Debug)]
struct Written {
    subject: String,
    offset: u64,
    bytes: usize,
    /// How many messages were gathered before those of it.
    behind: usize,
}

/// A file that is gone.
#[derive(Debug)]
struct Removal {
    subject: String,
    /// How many messages were gathered before the one that says so.
    behind: usize,
}

/// What is published.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

impl Publisher {
    /// Publishes behind `claim`, the message by which the caller became the owner, until `over` is cancelled.
    pub(super) fn new(cluster: Cluster, claim: u64, runtime: Handle, over: CancellationToken) -> Self {
        let files = cluster.file_subjects();
        let state = Mutex::new(State { last: claim, ..Default::default() });
        let [failed, refused] = [false, false].map(AtomicBool::new);
        Self { cluster, runtime, files, claim, over, failed, refused, state }
    }

    /// Whether the cluster did not take a change, and may take one again: from the next owner, or later.
    pub(super) fn has_lost(&self) -> bool {
        self.failed.load(Ordering::Acquire) && !self.refused.load(Ordering::Acquire)
    }

    fn flush_state(&self, state: &mut State) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("a change was not confirmed before"));
        }
        let messages = state.take();
        let id = |sequence: u64| format!("{}.{sequence}", self.claim);
        let before = state.last;
        let published = publish(&self.cluster, &messages, before, id);
        let published = async {
            tokio::select! {
                biased;
                () = self.over.cancelled() => Err(Failure::Lost("this broker has given it up".to_owned())),
                published = published => published,
            }
        };
        match self.runtime.block_on(published) {
            Ok(last) => state.last = last,
            Err(failure) => {
                if matches!(failure, Failure::Refused(_)) {
                    // What ends the engine says only which of its files it could not write.
                    tracing::error!(error = %failure, "The NATS servers would refuse this change again.");
                    self.refused.store(true, Ordering::Release);
                }
                self.failed.store(true, Ordering::Release);
                return Err(io::Error::other(failure));
            }
        }
        for Removal { subject, behind } in state.removed.drain(..) {
            let removal = before + behind as u64 + 1;
            self.runtime.spawn(purge(self.cluster.clone(), subject, removal));
        }
        Ok(())
    }
}

impl State {
    fn gather(&mut self, subject: String, change: Change<'_>) {
        // The journal marks the end of what was synced, and overwrites the mark with what comes next: two writes, of which
        // only the second matters, and a message for each of them would make each sync take twice as long.
        if let (Some(before), Change::Write { offset, bytes }) = (&self.written, change)
            && (before.offset, before.subject.as_str()) == (offset, subject.as_str())
            && before.bytes <= bytes.len()
        {
            let replaced = self.gathered.drain(before.behind..);
            self.gathered_bytes -= replaced.map(|message| message.payload.len()).sum::<usize>();
        }
        let behind = self.gathered.len();
        for payload in encode(change) {
            self.gathered_bytes += payload.len();
            self.gathered.push(Message { subject: subject.clone(), payload });
        }
        self.written = None;
        match change {
            Change::Write { offset, bytes } => {
                self.written = Some(Written { subject, offset, bytes: bytes.len(), behind });
            }
            Change::Remove => self.removed.push(Removal { subject, behind }),
            Change::Create | Change::Truncate { .. } | Change::Place { .. } => {}
        }
    }

    /// What has gathered.
    fn take(&mut self) -> Vec<Message> {
        (self.gathered_bytes, self.written) = (0, None);
        mem::take(&mut self.gathered)
    }
}

impl Mirror for Publisher {
    fn note(&self, file: &str, change: Change<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gather(format!("{}{file}", self.files), change);
        if state.gathered_bytes > GATHERED_BYTES_MAX { self.flush_state(&mut state) } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.flush_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("claim", &self.claim).finish_non_exhaustive()
    }
}

/// Says in the stream that there is a new owner, if its last message is still `last`. Answers with the number of the
/// claim, from which on nobody else's changes are taken; with none when the stream has gone on.
pub(super) async fn claim(cluster: &Cluster, owner: &str, last: u64) -> Result<Option<u64>, Failure> {
    let message = Message { subject: cluster.claim_subject(), payload: Bytes::copy_from_slice(owner.as_bytes()) };
    let id = format!("claim.{owner}.{}", last + 1);
    match publish_one(cluster, &message, last, PATIENCE, &id, Unknown::Others).await {
        Ok(()) => Ok(Some(last + 1)),
        Err(Failure::Lost(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Publishes messages right behind `last`, all or a prefix of them. What was not confirmed in time is sent again under its
/// id. Answers with the number of the last one.
///
/// One at a time: the claim of a new owner may take the number of a message, and then the next one, if it were under way
/// already, would follow the claim as if it had been expected there.
pub(super) async fn publish(
    cluster: &Cluster,
    messages: &[Message],
    mut last: u64,
    id: impl Fn(u64) -> String,
) -> Result<u64, Failure> {
    for message in messages {
        publish_one(cluster, message, last, PATIENCE, &id(last + 1), Unknown::Own).await?;
        last += 1;
    }
    Ok(last)
}

/// Whose message has the number that one was to have, when that can't be learned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// It may be the one that was sent, so that one is sent again.
    Own,
    /// Somebody else's, for somebody who reads on then. It may be gone: then nobody can tell, however often it is asked.
    Others,
}

/// Publishes a message right behind `last`, and sends it again until it is confirmed or can't be any more.
async fn publish_one(
    cluster: &Cluster,
    message: &Message,
    last: u64,
    patience: Duration,
    id: &str,
    unknown: Unknown,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        let (kind, why) = match send(cluster, message, last, id).await {
            Ok(sequence) if sequence == last + 1 => return Ok(()),
            Ok(sequence) => return Err(Failure::Lost(format!("change {} was stored as {sequence}", last + 1))),
            Err(error) if is_final(&error) => return Err(Failure::Refused(error.to_string())),
            Err(error) => (error.kind(), error.to_string()),
        };
        if kind == PublishErrorKind::WrongLastSequence {
            match cluster.id_of(last + 1).await {
                // It had been stored, and its confirmation was lost.
                Some(found) if found == id => return Ok(()),
                Some(_) => return Err(Failure::Lost(why)),
                None if unknown == Unknown::Others => return Err(Failure::Lost(why)),
                None => {}
            }
        }
        if begun.elapsed() >= patience {
            return Err(Failure::Unconfirmed { waited: patience, why });
        }
        if !mem::replace(&mut is_told, true) {
            tracing::warn!(why, "The cluster has not confirmed a change yet; it is sent again.");
        }
        sleep(PAUSE).await;
    }
}

/// Whether the same message would be refused again: it is too large, or the servers have no more room for the account.
fn is_final(error: &PublishError) -> bool {
    const FULL: [ErrorCode; 3] = [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ];
    let answer = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || answer.is_some_and(|answer| FULL.contains(&answer.error_code()))
}

async fn send(cluster: &Cluster, message: &Message, last: u64, id: &str) -> Result<u64, PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id);
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string());
    let Message { subject, payload } = message.clone();
    Ok(cluster.context.publish_with_headers(subject, headers, payload).await?.await?.sequence)
}

async fn purge(cluster: Cluster, subject: String, removal: u64) {
    if let Err(error) = cluster.purge(&subject, removal).await {
        tracing::warn!(%error, subject, "The next owner tries again.");
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::{Piece, decode};
    use super::*;

    fn write(offset: u64, bytes: &[u8]) -> Change<'_> {
        Change::Write { offset, bytes }
    }

    fn gathered(state: &mut State) -> Vec<(String, Piece)> {
        let messages = state.take().into_iter();
        messages.map(|Message { subject, payload }| (subject, decode(payload).unwrap())).collect()
    }

    fn written(subject: &str, offset: u64, bytes: &'static [u8]) -> (String, Piece) {
        (subject.to_owned(), Piece::Write { offset, bytes: Bytes::from_static(bytes) })
    }

    #[test]
    fn a_write_takes_the_place_of_the_one_before_it_that_it_covers_whole() {
        let mut state = State::default();
        state.gather("a".to_owned(), write(0, b"frames"));
        state.gather("a".to_owned(), write(6, b"mark"));
        state.gather("a".to_owned(), write(6, b"more frames"));
        let bytes = state.gathered.iter().map(|message| message.payload.len()).sum::<usize>();
        assert_eq!(state.gathered_bytes, bytes);
        assert_eq!(gathered(&mut state), [written("a", 0, b"frames"), written("a", 6, b"more frames")]);
        // What was sent is sent.
        state.gather("a".to_owned(), write(6, b"more frames"));
        assert_eq!(gathered(&mut state), [written("a", 6, b"more frames")]);
    }

    #[test]
    fn a_write_that_covers_not_all_of_the_one_before_it_comes_behind_it() {
        for (subject, after) in [("a", write(0, b"mar")), ("a", write(1, b"mark")), ("b", write(0, b"mark"))] {
            let mut state = State::default();
            state.gather("a".to_owned(), write(0, b"mark"));
            state.gather(subject.to_owned(), after);
            assert_eq!(gathered(&mut state).len(), 2, "{subject} {after:?}");
        }
        let mut state = State::default();
        state.gather("a".to_owned(), write(0, b"mark"));
        state.gather("b".to_owned(), Change::Remove);
        state.gather("a".to_owned(), write(0, b"mark"));
        assert_eq!(state.removed[0].behind, 1);
        assert_eq!(gathered(&mut state).len(), 3);
    }
}
