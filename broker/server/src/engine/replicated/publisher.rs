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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last message that the cluster has confirmed.
    last: u64,
    gathered: Vec<Message>,
    gathered_bytes: usize,
    /// Files whose messages may be purged once their removal is confirmed.
    removed: Vec<Removal>,
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
        Self { cluster, runtime, files, claim, over, failed: AtomicBool::new(false), state }
    }

    /// Whether it was the cluster that did not take a change.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn flush_state(&self, state: &mut State) -> io::Result<()> {
        if self.has_failed() {
            return Err(io::Error::other("a change was not confirmed before"));
        }
        let messages = mem::take(&mut state.gathered);
        state.gathered_bytes = 0;
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

impl Mirror for Publisher {
    fn note(&self, file: &str, change: Change<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = format!("{}{file}", self.files);
        if change == Change::Remove {
            let behind = state.gathered.len();
            state.removed.push(Removal { subject: subject.clone(), behind });
        }
        for payload in encode(change) {
            state.gathered_bytes += payload.len();
            state.gathered.push(Message { subject: subject.clone(), payload });
        }
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
    match publish(cluster, &[message], last, |sequence| format!("claim.{owner}.{sequence}")).await {
        Ok(claim) => Ok(Some(claim)),
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
        publish_one(cluster, message, last, PATIENCE, &id(last + 1)).await?;
        last += 1;
    }
    Ok(last)
}

/// Publishes a message right behind `last`, and sends it again until it is confirmed or can't be any more.
async fn publish_one(
    cluster: &Cluster,
    message: &Message,
    last: u64,
    patience: Duration,
    id: &str,
) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let (kind, why) = match send(cluster, message, last, id).await {
            Ok(sequence) if sequence == last + 1 => return Ok(()),
            Ok(sequence) => return Err(Failure::Lost(format!("change {} was stored as {sequence}", last + 1))),
            Err(error) => (error.kind(), error.to_string()),
        };
        if kind == PublishErrorKind::WrongLastSequence {
            match cluster.id_of(last + 1).await {
                // It had been stored, and its confirmation was lost.
                Some(found) if found == id => return Ok(()),
                Some(_) => return Err(Failure::Lost(why)),
                None => {}
            }
        }
        if begun.elapsed() >= patience {
            return Err(Failure::Unconfirmed { waited: patience, why });
        }
        tracing::warn!(why, "The cluster has not confirmed a change yet; it is sent again.");
        sleep(PAUSE).await;
    }
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
