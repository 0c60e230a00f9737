//! From a follower to the owner.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use broker_log::{Disk, OsDisk};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::change::{Piece, decode};
use super::claim::{Claim, Owner, Watched};
use super::cluster::Cluster;
use super::copy::Copy;
use super::failure::Failure;
use super::options::Options;
use super::publisher::{self, Publisher};
use crate::engine::embedded::{self, Mirror, Running};

/// How long a follower that has everything waits before it looks again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);
/// How often it looks who owns the journal.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How long it pauses when the cluster did not answer.
const TROUBLE_PAUSE: Duration = Duration::from_millis(250);

/// A front that follows the journal, and would own it.
#[derive(Debug)]
pub(crate) struct Candidate {
    cluster: Cluster,
    options: Options,
    owner: Owner,
    copy: Copy,
}

/// The owner's place: a running engine, and the claim that has to be kept.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) running: Running,
    pub(crate) claim: Claim,
}

/// Joins a cluster. What the directory of the copy holds is discarded.
pub(crate) async fn join(options: Options) -> Result<Candidate, Failure> {
    let cluster = Cluster::join(&options).await?;
    let owner = Owner { id: cluster.client.new_inbox(), address: options.advertise.clone(), draining: false };
    let copy = Copy::empty(options.dir(), cluster.file_subjects())?;
    Ok(Candidate { cluster, options, owner, copy })
}

impl Candidate {
    /// Follows the journal until nobody owns it, and then takes it. `tell` hears meanwhile who does. Safe to cancel.
    pub(crate) async fn elected(mut self, tell: &(impl Fn(Option<String>) + Sync)) -> Result<Seat, Failure> {
        let mut watched = Watched::default();
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= WATCH_PERIOD) {
                looked = Some(Instant::now());
                match self.stand(&mut watched, tell).await {
                    Ok(Some(claim)) => return self.take_over(claim).await,
                    Ok(None) => {}
                    Err(failure @ Failure::Request { .. }) => trouble(&failure).await,
                    Err(failure) => return Err(failure),
                }
            }
            match self.follow().await {
                Ok(true) => {}
                Ok(false) => sleep(FOLLOW_PAUSE).await,
                Err(failure @ Failure::Request { .. }) => trouble(&failure).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Looks who owns the journal, and tries to when nobody does.
    async fn stand(
        &self,
        watched: &mut Watched,
        tell: &(impl Fn(Option<String>) + Sync),
    ) -> Result<Option<Claim>, Failure> {
        let owner = watched.look(&self.cluster).await?;
        if !watched.is_free(&self.owner).await {
            tell(owner.map(|owner| owner.address));
            return Ok(None);
        }
        tell(None);
        watched.take(&self.cluster, self.owner.clone()).await
    }

    /// Applies what has come. Answers whether there was something.
    async fn follow(&mut self) -> Result<bool, Failure> {
        let changes = self.cluster.after(self.copy.last).await?;
        if changes.is_empty() {
            return Ok(false);
        }
        tokio::task::block_in_place(|| self.copy.apply(changes))?;
        Ok(true)
    }

    /// Ends the old owner's writing, then opens the journal as it is by then.
    async fn take_over(self, mut claim: Claim) -> Result<Seat, Failure> {
        let opening = self.open();
        tokio::select! {
            opened = opening => Ok(Seat { running: opened?, claim }),
            failure = claim.keep() => Err(failure),
        }
    }

    async fn open(mut self) -> Result<Running, Failure> {
        let begun = Instant::now();
        let claim = loop {
            // The caller ends this when the cluster stays silent for too long.
            match self.follow().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(failure @ Failure::Request { .. }) => {
                    trouble(&failure).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            if let Some(claim) = publisher::claim(&self.cluster, &self.owner.id, self.copy.last).await? {
                break claim;
            }
        };
        let Self { cluster, options, copy, owner: _ } = self;
        drop(copy);
        let publisher: Arc<dyn Mirror> = Arc::new(Publisher::new(cluster.clone(), claim, Handle::current()));
        let dir = options.dir();
        let engine = embedded::Options { dir: dir.clone(), mirror: Some(publisher), ..options.engine };
        let running = embedded::open(engine).await?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(claim, took_ms, "This broker owns the journal now.");
        tokio::spawn(async move {
            if let Err(error) = sweep(&cluster, &dir).await {
                tracing::warn!(%error, "Space of files that are gone was not given back.");
            }
        });
        Ok(running)
    }
}

/// Gives back the space of files that an owner removed and could not purge any more.
async fn sweep(cluster: &Cluster, dir: &std::path::Path) -> Result<(), Failure> {
    // In this order: what is listed and has no file here was removed before.
    let listed = cluster.files().await?;
    let directory = |source| Failure::Directory { dir: dir.to_owned(), source };
    let there = OsDisk::new(dir).and_then(|disk| disk.list()).map_err(directory)?;
    let there: HashSet<String> = there.into_iter().collect();
    for file in listed.into_iter().filter(|file| !there.contains(file)) {
        let last = cluster.last_of(&file).await?;
        if decode(last.payload) == Ok(Piece::Remove) {
            cluster.purge(&last.subject, last.sequence).await?;
        }
    }
    Ok(())
}

async fn trouble(failure: &Failure) {
    tracing::warn!(error = %failure, "The NATS cluster gives no answer; this broker goes on trying.");
    sleep(TROUBLE_PAUSE).await;
}
