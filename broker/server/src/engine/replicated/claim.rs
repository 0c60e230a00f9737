//! Who owns the journal: an entry in the cluster that the owner renews.
//!
//! It keeps two fronts from serving at a time. It does not keep the journal whole: that is done by the stream, which takes
//! nothing from an old owner, so no clock has to be right for it.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::UpdateErrorKind;
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
            || (owner.address == own.address && since.elapsed() >= CLAIM_TTL_HERE)
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
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(Failure::Request { what: "take the claim", why: error.to_string() }),
        }
    }
}

impl Claim {
    /// Renews the claim until that does not go any more.
    pub(crate) async fn keep(&mut self) -> Failure {
        loop {
            sleep(RENEW_PERIOD).await;
            while let Err(failure) = self.renew().await {
                match failure {
                    Failure::Lost(_) => return failure,
                    other if self.renewed.elapsed() >= CLAIM_GIVE_UP => return Failure::Lost(other.to_string()),
                    other => tracing::warn!(error = %other, "The claim on the journal is not renewed yet."),
                }
                sleep(RENEW_PAUSE).await;
            }
        }
    }

    /// Tells the others not to take the journal although nothing will listen here: it is given up in order.
    pub(crate) async fn drain(&mut self) {
        self.owner.draining = true;
        if let Err(error) = self.renew().await {
            tracing::warn!(%error, "The other brokers don't know that this one is stopping.");
        }
    }

    /// Lets another front take the journal at once.
    pub(crate) async fn release(self) {
        let Ok(none) = text(&Owner::default()) else { return };
        if let Err(error) = self.cluster.owners.update(KEY, none.into(), self.revision).await {
            tracing::warn!(%error, "The claim on the journal was not given up; others wait until it has run out.");
        }
    }

    async fn renew(&mut self) -> Result<(), Failure> {
        let failed = |why: String| Failure::Request { what: "renew the claim", why };
        let begun = Instant::now();
        let left = CLAIM_GIVE_UP.saturating_sub(self.renewed.elapsed());
        let update = self.cluster.owners.update(KEY, text(&self.owner)?.into(), self.revision);
        match timeout(left, update).await.map_err(|_| failed("no answer came in time".to_owned()))? {
            Ok(revision) => self.revision = revision,
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                // A renewal whose answer was lost looks like this as well.
                let Some(entry) = read(&self.cluster).await? else {
                    return Err(Failure::Lost("the entry is gone".to_owned()));
                };
                if entry.owner.id != self.owner.id {
                    return Err(Failure::Lost(format!("another broker has it, at `{}`", entry.owner.address)));
                }
                self.revision = entry.revision;
                return Ok(());
            }
            Err(error) => return Err(failed(error.to_string())),
        }
        self.renewed = begun;
        Ok(())
    }
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
    let owner = serde_json::from_slice(&entry.value).map_err(|error| failed(error.to_string()))?;
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
