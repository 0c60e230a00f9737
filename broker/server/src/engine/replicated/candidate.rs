//! From a follower to the owner.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use broker_log::{Disk, OsDisk};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

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
/// How long whoever held the directory last may take to let go of it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

/// A front in its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    cluster: Cluster,
    options: Options,
    owner: Owner,
}

/// A front that follows the journal, and would own it.
#[derive(Debug)]
pub(crate) struct Candidate {
    member: Member,
    copy: Copy,
}

/// The owner's place: a running engine, and the claim that has to be kept.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) running: Running,
    pub(crate) claim: Claim,
    pub(crate) way: Way,
}

/// The owner's way to the stream.
#[derive(Debug)]
pub(crate) struct Way {
    publisher: Arc<Publisher>,
    over: CancellationToken,
}

/// Joins a cluster. What the directory of the copy holds is discarded.
pub(crate) async fn join(options: Options) -> Result<Candidate, Failure> {
    let cluster = Cluster::join(&options.target).await?;
    let owner = Owner { id: cluster.client.new_inbox(), address: options.advertise.to_string(), draining: false };
    let copy = Copy::empty(options.dir(), &cluster)?;
    Ok(Candidate { member: Member { cluster, options, owner }, copy })
}

impl Member {
    /// Follows the journal from its start, with an empty copy. An engine that was just ended may still let go of the
    /// directory.
    pub(crate) async fn follow(self) -> Result<Candidate, Failure> {
        let begun = Instant::now();
        loop {
            match Copy::empty(self.options.dir(), &self.cluster) {
                Ok(copy) => return Ok(Candidate { member: self, copy }),
                Err(Failure::Directory { source, .. })
                    if source.kind() == ErrorKind::WouldBlock && begun.elapsed() < RELEASE_PATIENCE => {}
                Err(failure) => return Err(failure),
            }
            sleep(FOLLOW_PAUSE).await;
        }
    }
}

impl Way {
    /// Whether an engine that failed did so because the cluster did not take a change of it, and may take one again.
    pub(crate) fn has_lost(&self) -> bool {
        self.publisher.has_lost()
    }

    /// Publishes nothing any more. The engine fails with its next change.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }
}

impl Candidate {
    /// The front, for when it has lost the journal.
    pub(crate) fn member(&self) -> Member {
        self.member.clone()
    }

    /// Follows the journal until nobody owns it, and then takes it. `tell` hears meanwhile who does. Safe to cancel.
    pub(crate) async fn elected(mut self, tell: &(impl Fn(Option<String>) + Sync)) -> Result<Seat, Failure> {
        let mut watched = Watched::default();
        let mut looked: Option<Instant> = None;
        // Whoever takes the journal before has to read all of it first, and nobody is served meanwhile.
        let mut is_ready = false;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= WATCH_PERIOD) {
                looked = Some(Instant::now());
                match self.stand(&mut watched, is_ready, tell).await {
                    Ok(Some(claim)) => return self.take_over(claim).await,
                    Ok(None) => {}
                    Err(failure @ Failure::Request { .. }) => trouble(&failure).await,
                    Err(failure) => return Err(failure),
                }
            }
            match self.follow().await {
                Ok(true) => {}
                Ok(false) if !is_ready => (is_ready, looked) = (true, None),
                Ok(false) => sleep(FOLLOW_PAUSE).await,
                Err(failure @ Failure::Request { .. }) => trouble(&failure).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Looks who owns the journal, and tries to when nobody does and this front is ready.
    async fn stand(
        &self,
        watched: &mut Watched,
        is_ready: bool,
        tell: &(impl Fn(Option<String>) + Sync),
    ) -> Result<Option<Claim>, Failure> {
        let Member { cluster, owner: own, .. } = &self.member;
        let owner = watched.look(cluster).await?;
        if !watched.is_free(own).await {
            // A copy has it that is at work, and answers nobody.
            tell(owner.map(|owner| owner.address).filter(|address| !address.is_empty()));
            return Ok(None);
        }
        tell(None);
        if is_ready { watched.take(cluster, own.clone()).await } else { Ok(None) }
    }

    /// Applies what has come. Answers whether there was something.
    async fn follow(&mut self) -> Result<bool, Failure> {
        let changes = self.member.cluster.after(self.copy.last).await?;
        if changes.is_empty() {
            return Ok(false);
        }
        tokio::task::block_in_place(|| self.copy.apply(changes))?;
        Ok(true)
    }

    /// Ends the old owner's writing, then opens the journal as it is by then.
    async fn take_over(mut self, mut claim: Claim) -> Result<Seat, Failure> {
        let claimed = tokio::select! {
            claimed = self.claim() => claimed,
            failure = claim.keep() => Err(failure),
        };
        let over = CancellationToken::new();
        let opened = match claimed {
            Ok(number) => {
                let mut opening = Box::pin(self.open(number, over.clone()));
                tokio::select! {
                    opened = &mut opening => opened,
                    failure = claim.keep() => {
                        over.cancel();
                        // What it has begun goes on in the background, and has the directory, which is followed in next.
                        if let Ok((running, _)) = opening.await {
                            // It fails, since it can't write its last checkpoint.
                            drop(running.close().await);
                        }
                        Err(failure)
                    }
                }
            }
            Err(failure) => Err(failure),
        };
        match opened {
            Ok((running, publisher)) => Ok(Seat { running, claim, way: Way { publisher, over } }),
            Err(failure) => {
                over.cancel();
                if !failure.is_of_ownership() {
                    claim.release().await;
                }
                Err(failure)
            }
        }
    }

    /// Opens the journal behind the message by which this front became the owner.
    async fn open(self, claim: u64, over: CancellationToken) -> Result<(Running, Arc<Publisher>), Failure> {
        let begun = Instant::now();
        let Self { member: Member { cluster, options, .. }, copy } = self;
        drop(copy);
        let publisher = Arc::new(Publisher::new(cluster.clone(), claim, Handle::current(), over));
        let mirror: Arc<dyn Mirror> = publisher.clone();
        let dir = options.dir();
        let engine = embedded::Options { dir: dir.clone(), mirror: Some(mirror), ..options.engine };
        let opened = loop {
            match embedded::open(engine.clone()).await {
                // A process that was just forked from this one has what this one has open, until it is another program.
                Err(embedded::Failure::Locked { .. }) if begun.elapsed() < RELEASE_PATIENCE => {
                    sleep(FOLLOW_PAUSE).await;
                }
                opened => break opened,
            }
        };
        let running = match opened {
            Ok(running) => running,
            Err(failure) if publisher.has_lost() => return Err(Failure::Lost(failure.to_string())),
            Err(failure) => return Err(failure.into()),
        };
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(claim, took_ms, "This broker owns the journal now.");
        tokio::spawn(async move {
            if let Err(error) = sweep(&cluster, &dir).await {
                tracing::warn!(%error, "Space of files that are gone was not given back.");
            }
        });
        Ok((running, publisher))
    }

    /// Follows to the end of the stream, and says there that there is a new owner.
    async fn claim(&mut self) -> Result<u64, Failure> {
        loop {
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
            let Member { cluster, owner, .. } = &self.member;
            if self.copy.is_partial {
                return Err(Failure::Partial(cluster.name.clone()));
            }
            if let Some(claim) = publisher::claim(cluster, &owner.id, self.copy.last).await? {
                return Ok(claim);
            }
            // What came behind is not known here yet.
            sleep(FOLLOW_PAUSE).await;
        }
    }
}

/// Gives back the space of files that an owner removed and could not purge any more.
async fn sweep(cluster: &Cluster, dir: &std::path::Path) -> Result<(), Failure> {
    // In this order: what is listed and has no file here was removed before.
    let listed = cluster.files().await?;
    let directory = |source| Failure::Directory { dir: dir.to_owned(), source };
    let there = OsDisk::new(dir).and_then(|disk| disk.list()).map_err(directory)?;
    let there: HashSet<String> = there.into_iter().collect();
    // Of some only the message is left that says that they are gone.
    let listed = listed.into_iter().filter(|(_, messages)| *messages > 1).map(|(file, _)| file);
    for file in listed.filter(|file| !there.contains(file)) {
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
