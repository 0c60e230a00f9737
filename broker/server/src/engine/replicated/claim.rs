//! Who owns the journal: an entry in the cluster that the owner renews.
//!
//! It keeps two fronts from serving at a time. It does not keep the journal whole: that is done by the stream, which takes
//! nothing from an old owner, so no clock has to be right for it.

use std::iter::successors;
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, UpdateError, UpdateErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::failure::Failure;
use super::options::EngineName;

/// The key of the entry in its bucket.
const KEY: &str = "owner";
/// An entry that was not renewed for so long is anybody's.
pub(super) const CLAIM_TTL: Duration = Duration::from_secs(15);
/// An owner that could not renew it for so long serves no more. The rest of the time to live is for clocks that run apart
/// and for answers that are under way.
const CLAIM_GIVE_UP: Duration = Duration::from_secs(12);
/// An entry with this front's own address is that of a process before it here, if it was not renewed for so long.
const CLAIM_TTL_HERE: Duration = Duration::from_secs(3);
/// How often the owner renews it.
const RENEW_PERIOD: Duration = Duration::from_secs(1);
/// How long the pause is after a renewal that failed.
const RENEW_PAUSE: Duration = Duration::from_millis(100);
/// How long an owner tries to write what has to be known at that moment, as that it stops.
const INSIST_PATIENCE: Duration = Duration::from_secs(3);
/// How long one try to reach an owner waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A front, as the others know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Empty once the owner has given the journal up.
    pub(super) id: String,
    /// Where the others forward to, as `host:port`.
    pub(super) address: String,
    /// It is about to give the journal up, and may not be listening any more.
    #[serde(default)]
    pub(super) draining: bool,
}

/// The entry as it stood when it was read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) owner: Owner,
}

/// What a front has seen of the owner, and since when.
#[derive(Debug, Default)]
pub(super) struct Watched {
    seen: Option<(Entry, Instant)>,
}

/// The entry in the hands of the owner.
#[derive(Debug)]
pub(crate) struct Claim {
    cluster: Cluster,
    owner: Owner,
    revision: u64,
    renewed: Instant,
}

impl Watched {
    /// Reads the entry, and answers with it if it stands.
    pub(super) async fn look(&mut self, cluster: &Cluster) -> Result<Option<Owner>, Failure> {
        let entry = read(cluster).await?;
        match (&mut self.seen, entry) {
            (Some((seen, _)), Some(entry)) if seen.revision == entry.revision => {}
            (seen, entry) => *seen = entry.map(|entry| (entry, Instant::now())),
        }
        Ok(self.seen.as_ref().map(|(entry, _)| entry.owner.clone()).filter(|owner| !owner.id.is_empty()))
    }

    /// Whether this front may take the journal: nobody has it, nobody renews it, or its owner does not listen any more where
    /// it did.
    pub(super) async fn is_free(&self, own: &Owner) -> bool {
        let Some((Entry { owner, .. }, since)) = &self.seen else { return true };
        // An answer that was lost may have been the one that this front has it.
        let is_own = owner.id == own.id;
        is_own
            || owner.id.is_empty()
            || since.elapsed() >= CLAIM_TTL
            // Nobody else can listen where this front does.
            || (is_same_place(owner, own) && since.elapsed() >= CLAIM_TTL_HERE)
            || (!owner.draining && is_refused(&owner.address).await)
    }

    /// Waits until nobody has the journal, and takes it. Answers with an owner that goes on renewing its claim.
    pub(super) async fn wait(&mut self, cluster: &Cluster, own: &Owner) -> Result<Result<Claim, Owner>, Failure> {
        let mut first: Option<u64> = None;
        loop {
            let owner = self.look(cluster).await?;
            if self.is_free(own).await {
                if let Some(claim) = self.take(cluster, own.clone()).await? {
                    return Ok(Ok(claim));
                }
            } else if let (Some((entry, _)), Some(owner)) = (&self.seen, owner)
                && *first.get_or_insert(entry.revision) != entry.revision
            {
                return Ok(Err(owner));
            }
            sleep(RENEW_PERIOD).await;
        }
    }

    /// Takes the entry, if it is still the one that was seen.
    pub(super) async fn take(&self, cluster: &Cluster, owner: Owner) -> Result<Option<Claim>, Failure> {
        let revision = self.seen.as_ref().map_or(0, |(entry, _)| entry.revision);
        let renewed = Instant::now();
        match cluster.owners.update(KEY, text(&owner)?.into(), revision).await {
            Ok(revision) => Ok(Some(Claim { cluster: cluster.clone(), owner, revision, renewed })),
            Err(error) if is_wrong_revision(&error) => Ok(None),
            Err(error) => Err(Failure::Request { what: "take the claim", why: error.to_string() }),
        }
    }
}

impl Claim {
    /// Renews the claim until that does not go any more.
    pub(crate) async fn keep(&mut self) -> Failure {
        loop {
            sleep(RENEW_PERIOD).await;
            let mut is_told = false;
            while let Err(failure) = self.renew().await {
                match failure {
                    Failure::Lost(_) => return failure,
                    other if self.renewed.elapsed() >= CLAIM_GIVE_UP => return Failure::Lost(other.to_string()),
                    other if !is_told => tracing::warn!(error = %other, "The claim on the journal is not renewed yet."),
                    _ => {}
                }
                is_told = true;
                sleep(RENEW_PAUSE).await;
            }
        }
    }

    /// Tells the others not to take the journal although nothing will listen here: it is given up in order.
    pub(crate) async fn drain(&mut self) {
        self.owner.draining = true;
        if let Err(error) = self.confirm().await {
            tracing::warn!(%error, "The other brokers don't know that this one is stopping.");
        }
    }

    /// Lets another front take the journal at once.
    pub(crate) async fn release(mut self) {
        match self.insist(&Owner::default()).await {
            // When it is another's by now there is nothing to give up, or it was given up and that was not confirmed.
            Ok(()) | Err(Failure::Lost(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "The claim on the journal was not given up; others wait until it has run out.");
            }
        }
    }

    /// Makes sure that the journal is still this front's.
    pub(super) async fn confirm(&mut self) -> Result<(), Failure> {
        self.insist(&self.owner.clone()).await
    }

    /// Renews the claim once.
    async fn renew(&mut self) -> Result<(), Failure> {
        let left = CLAIM_GIVE_UP.saturating_sub(self.renewed.elapsed());
        self.write_within(left, &self.owner.clone()).await
    }

    /// Writes the entry, and tries that again for a moment.
    async fn insist(&mut self, owner: &Owner) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let left = INSIST_PATIENCE.saturating_sub(begun.elapsed());
            match self.write_within(left, owner).await {
                Err(Failure::Request { .. }) if begun.elapsed() < INSIST_PATIENCE => sleep(RENEW_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn write_within(&mut self, patience: Duration, owner: &Owner) -> Result<(), Failure> {
        let text = text(owner)?;
        timeout(patience, self.write(&text)).await.map_err(|_| renewal("no answer came in time"))?
    }

    /// Writes the entry, if it is this front's. Safe to cancel: what was written by then is found by the next one.
    async fn write(&mut self, text: &str) -> Result<(), Failure> {
        loop {
            let begun = Instant::now();
            match self.cluster.owners.update(KEY, text.to_owned().into(), self.revision).await {
                Ok(revision) => {
                    self.revision = revision;
                    self.renewed = begun;
                    return Ok(());
                }
                // Something that was written, but not confirmed here, looks like this. It need not be what is written now.
                Err(error) if is_wrong_revision(&error) => {
                    let found = read(&self.cluster).await?;
                    self.revision = next_revision(self.revision, &self.owner, found)?;
                }
                Err(error) => return Err(renewal(error)),
            }
        }
    }
}

/// Whether both listen, or listened, at one address. Copies listen nowhere.
fn is_same_place(one: &Owner, other: &Owner) -> bool {
    !one.address.is_empty() && one.address == other.address
}

/// The revision of an owner's entry, when it is not `known` any more.
fn next_revision(known: u64, own: &Owner, found: Option<Entry>) -> Result<u64, Failure> {
    // A server may answer that is behind the one which has refused the write.
    let Some(Entry { revision, owner }) = found.filter(|entry| entry.revision > known) else {
        return Err(renewal("what stands in its entry is not known yet"));
    };
    if owner.id == own.id {
        return Ok(revision);
    }
    if owner.id.is_empty() {
        return Err(Failure::Lost("its entry was deleted".to_owned()));
    }
    Err(Failure::Lost(format!("another broker has it, at `{}`", owner.address)))
}

fn renewal(why: impl ToString) -> Failure {
    Failure::Request { what: "renew the claim", why: why.to_string() }
}

/// Whether an entry was not written because it is not the one that was expected. While another write of it is under way the
/// server has a code for that which the client does not know.
fn is_wrong_revision(error: &UpdateError) -> bool {
    let mut causes = successors(std::error::Error::source(error), |cause| cause.source());
    let in_cause = causes.any(|cause| {
        let answer = cause.downcast_ref::<jetstream::Error>();
        answer.is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
    });
    in_cause || error.kind() == UpdateErrorKind::WrongLastRevision
}

/// Where the owner of a journal is reached, for somebody who only looks; none while nobody owns it, or nobody can tell.
pub(super) async fn owner_in(context: &Context, name: &EngineName) -> Option<String> {
    let owners = context.get_key_value(name.bucket()).await.ok()?;
    let value = timeout(super::cluster::REQUEST_TIMEOUT, owners.get(KEY)).await.ok()?.ok()??;
    let owner: Owner = serde_json::from_slice(&value).ok()?;
    (!owner.id.is_empty()).then_some(owner.address)
}

async fn read(cluster: &Cluster) -> Result<Option<Entry>, Failure> {
    let failed = |why: String| Failure::Request { what: "say who owns the journal", why };
    let entry = timeout(super::cluster::REQUEST_TIMEOUT, cluster.owners.entry(KEY)).await;
    let entry = entry.map_err(|_| failed("no answer came in time".to_owned()))?;
    let Some(entry) = entry.map_err(|error| failed(error.to_string()))? else { return Ok(None) };
    let owner = match entry.operation {
        Operation::Put => serde_json::from_slice(&entry.value).map_err(|error| failed(error.to_string()))?,
        // Somebody has deleted it.
        Operation::Delete | Operation::Purge => Owner::default(),
    };
    Ok(Some(Entry { revision: entry.revision, owner }))
}

fn text(owner: &Owner) -> Result<String, Failure> {
    serde_json::to_string(owner).map_err(|error| Failure::Request { what: "take the claim", why: error.to_string() })
}

/// Whether nothing listens at an address: the process that did is gone. No answer at all proves nothing.
async fn is_refused(address: &str) -> bool {
    match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::context::{PublishError, PublishErrorKind};

    use super::*;

    fn owner(id: &str, address: &str) -> Owner {
        Owner { id: id.to_owned(), address: address.to_owned(), draining: false }
    }

    fn entry(revision: u64, id: &str) -> Option<Entry> {
        Some(Entry { revision, owner: owner(id, "other:8085") })
    }

    #[test]
    fn an_owner_adopts_a_newer_entry_of_its_own_and_loses_the_claim_to_a_newer_one_of_another() {
        let own = owner("own", "here:8085");
        assert_eq!(next_revision(7, &own, entry(8, "own")).unwrap(), 8);
        assert!(
            matches!(next_revision(7, &own, entry(8, "other")), Err(Failure::Lost(why)) if why.contains("other:8085"))
        );
    }

    #[test]
    fn an_entry_that_is_no_newer_than_what_was_written_says_nothing() {
        let own = owner("own", "here:8085");
        for found in [None, entry(7, "own"), entry(6, "other")] {
            assert!(matches!(next_revision(7, &own, found), Err(Failure::Request { .. })));
        }
    }

    /// The time is the runtime's.
    #[tokio::test(start_paused = true)]
    async fn an_entry_with_the_own_address_is_free_after_a_moment_and_that_of_a_copy_is_not() {
        for (address, is_free) in [("here:8085", true), ("", false)] {
            let there = Owner { draining: true, ..owner("other", address) };
            let watched = Watched { seen: Some((Entry { revision: 7, owner: there }, Instant::now())) };
            let own = owner("own", address);
            assert!(!watched.is_free(&own).await, "{address}");
            tokio::time::advance(CLAIM_TTL_HERE).await;
            assert_eq!(watched.is_free(&own).await, is_free, "{address}");
            tokio::time::advance(CLAIM_TTL).await;
            assert!(watched.is_free(&own).await, "{address}");
        }
    }

    #[test]
    fn both_answers_to_a_write_behind_the_wrong_entry_are_understood() {
        let answer = |code: u64| -> jetstream::Error {
            serde_json::from_str(&format!(r#"{{"code":400,"err_code":{code},"description":"wrong"}}"#)).unwrap()
        };
        let refused = |kind, code| UpdateError::from(PublishError::with_source(kind, answer(code)));
        assert!(is_wrong_revision(&refused(PublishErrorKind::WrongLastSequence, 10_071)));
        assert!(is_wrong_revision(&refused(PublishErrorKind::Other, 10_164)));
        assert!(!is_wrong_revision(&refused(PublishErrorKind::Other, 10_077)));
        assert!(!is_wrong_revision(&PublishError::new(PublishErrorKind::TimedOut).into()));
    }
}
