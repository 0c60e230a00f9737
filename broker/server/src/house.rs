//! What stands around an engine: the gRPC server, the metrics, pushes, and how all of it ends.
//!
//! **Invariant:** with a shared journal the server outlives the engine. A broker that loses the journal ends its engine,
//! and follows again.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::connection::CONNECTIONS_MAX;
use crate::engine::embedded::{Embedded, Failure, Running};
use crate::engine::replicated::{self, Candidate, Claim, Seat};
use crate::front::{Front, Role};
use crate::metrics::{self, Page, Requests, Source};
use crate::server::{Bound, Declared, apply};
use crate::services::{routes, set_serving};
use crate::serving::serve;
use crate::{Error, push};

/// How long a stop waits for open requests before it cuts them off.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What stands around an engine.
pub(crate) struct House {
    address: SocketAddr,
    stop: CancellationToken,
    /// Lets go of the ports however this ends.
    _stop_at_end: DropGuard,
    reporter: HealthReporter,
    requests: Requests,
    /// What the metrics are taken from.
    source: watch::Sender<Source<Embedded>>,
    counts: bool,
}

/// The gRPC server at work.
type Serving = JoinHandle<()>;

/// How a broker's time with an engine ended.
enum Ended {
    /// It was told to stop, and everything is done.
    InOrder,
    /// The engine failed.
    Engine(Error),
    /// The claim on a shared journal could not be kept.
    Claim(replicated::Failure),
}

impl House {
    /// Opens the page of the metrics, if there is one.
    pub(crate) async fn open(address: SocketAddr, metrics: Option<Bound>) -> Self {
        let (reporter, _) = tonic_health::server::health_reporter();
        set_serving(&reporter, true).await;
        let stop = CancellationToken::new();
        let (source, sources) = watch::channel(Source::Nobody);
        let (requests, counts) = (Requests::default(), metrics.is_some());
        if let Some((listener, address)) = metrics {
            let page = Page { source: sources, requests: requests.clone() };
            tokio::spawn(page.serve(listener, stop.clone()));
            tracing::info!(%address, "Metrics are served at /metrics.");
        }
        Self { address, _stop_at_end: stop.clone().drop_guard(), stop, reporter, requests, source, counts }
    }

    /// Serves an engine that is nobody else's until the token is cancelled or something fails.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        mut running: Running,
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let term = self.stop.child_token();
        let mut server = self.listen(listener, self.routes(&running.engine, &term));
        self.show_engine(&running.engine);
        tracing::info!(address = %self.address, "The broker serves.");
        match self.work(&mut running, &term, &mut None, &mut server, token).await? {
            Ended::InOrder => Ok(()),
            Ended::Engine(error) => Err(error),
            Ended::Claim(failure) => Err(failure.into()),
        }
    }

    /// Answers with what others serve, and serves whenever this broker owns the journal, until the token is cancelled or
    /// something fails that another try does not mend.
    pub(crate) async fn share(
        self,
        listener: TcpListener,
        mut candidate: Candidate,
        declared: Option<Declared>,
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let (role, roles) = watch::channel(Role::Nobody);
        let front = Front::new(roles, self.stop.clone());
        let router = Router::new().fallback(move |request: Request| front.clone().answer(request));
        let mut server = self.listen(listener, router.into());
        tracing::info!(address = %self.address, "The broker has joined its cluster.");
        let tell = |owner: Option<String>| {
            self.show(if owner.is_some() { Source::Elsewhere } else { Source::Nobody });
            role.send_replace(owner.map_or(Role::Nobody, Role::Forward));
        };
        loop {
            let member = candidate.member();
            let seat = tokio::select! {
                seat = candidate.elected(&tell) => seat,
                () = token.cancelled() => return self.close(&mut server, &mut JoinSet::new()).await,
                outcome = &mut server => return stopped(outcome),
            };
            let lost = match seat {
                Ok(seat) => match self.own(seat, declared.as_ref(), &role, &mut server, token).await? {
                    Some(lost) => lost,
                    None => return Ok(()),
                },
                Err(failure) if failure.is_of_ownership() => failure,
                Err(failure) => return Err(failure.into()),
            };
            tell(None);
            tracing::warn!(reason = %lost, "This broker has given the journal up, and follows it again.");
            candidate = member.follow().await?;
        }
    }

    /// Serves as the owner of a shared journal. Answers why it is that no more; with nothing after a stop in order.
    async fn own(
        &self,
        seat: Seat,
        declared: Option<&Declared>,
        role: &watch::Sender<Role>,
        server: &mut Serving,
        token: &CancellationToken,
    ) -> Result<Option<replicated::Failure>, Error> {
        let Seat { mut running, claim, way } = seat;
        let (mut claim, term) = (Some(claim), self.stop.child_token());
        let outcome = async {
            if let Some(declared) = declared {
                tokio::select! {
                    applied = apply(&running.engine, declared) => applied?,
                    failure = kept(&mut claim) => return Ok(Ended::Claim(failure)),
                }
            }
            role.send_replace(Role::Serve(self.routes(&running.engine, &term)));
            self.show_engine(&running.engine);
            tracing::info!(address = %self.address, "The broker serves.");
            self.work(&mut running, &term, &mut claim, server, token).await
        };
        let outcome = outcome.await;
        if let Ok(Ended::InOrder) = outcome {
            return Ok(None);
        }
        let by_cluster = way.has_lost();
        // A broker that was told to stop has ended its server, and does not follow any more.
        let goes_on = !token.is_cancelled() && !server.is_finished();
        role.send_replace(Role::Nobody);
        term.cancel();
        // From here on nothing is confirmed any more.
        way.end();
        running.stop.cancel();
        if !running.task.is_finished() {
            // It fails, since it can't write its last checkpoint.
            drop(running.task.await);
        }
        match outcome {
            Ok(Ended::Claim(failure)) if goes_on => Ok(Some(failure)),
            Ok(Ended::Claim(failure)) => Err(failure.into()),
            Ok(Ended::Engine(error)) | Err(error) if by_cluster && goes_on => {
                Ok(Some(replicated::Failure::Lost(error.to_string())))
            }
            Ok(Ended::Engine(error)) | Err(error) => {
                if let Some(claim) = claim {
                    claim.release().await;
                }
                Err(error)
            }
            Ok(Ended::InOrder) => Ok(None),
        }
    }

    /// Works until the token is cancelled and everything is done, or the engine or its claim fails.
    async fn work(
        &self,
        running: &mut Running,
        term: &CancellationToken,
        claim: &mut Option<Claim>,
        server: &mut Serving,
        token: &CancellationToken,
    ) -> Result<Ended, Error> {
        // Aborted with what it has under way unless it ends by itself.
        let mut pushes = JoinSet::new();
        pushes.spawn(push::run(running.engine.clone(), term.clone()));
        tokio::select! {
            () = token.cancelled() => {}
            outcome = &mut running.task => return Ok(Ended::Engine(ended(outcome))),
            outcome = &mut *server => return stopped(outcome).map(|()| Ended::InOrder),
            failure = kept(claim) => return Ok(Ended::Claim(failure)),
        }
        tracing::info!("The broker stops.");
        set_serving(&self.reporter, false).await;
        if let Some(claim) = claim {
            claim.drain().await;
        }
        tokio::select! {
            closed = self.close(server, &mut pushes) => closed?,
            failure = kept(claim) => return Ok(Ended::Claim(failure)),
        }
        running.stop.cancel();
        let outcome = tokio::select! {
            outcome = &mut running.task => outcome,
            // The last checkpoint may take longer than others leave the journal alone.
            failure = kept(claim) => return Ok(Ended::Claim(failure)),
        };
        outcome.map_err(|_| Failure::Ended("the engine task"))??;
        if let Some(claim) = claim.take() {
            claim.release().await;
        }
        tracing::info!("The broker has stopped.");
        Ok(Ended::InOrder)
    }

    /// Ends what is open, and cuts off what does not end within a grace period.
    async fn close(&self, server: &mut Serving, pushes: &mut JoinSet<()>) -> Result<(), Error> {
        self.stop.cancel();
        let ends = async { tokio::join!(&mut *server, pushes.join_next()).0 };
        match tokio::time::timeout(STOP_GRACE, ends).await {
            Ok(outcome) => stopped(outcome),
            Err(_) => {
                tracing::warn!(grace_s = STOP_GRACE.as_secs(), "Cut off requests that did not end in time.");
                server.abort();
                pushes.abort_all();
                Ok(())
            }
        }
    }

    /// Everything that is served of an engine.
    fn routes(&self, engine: &Embedded, stop: &CancellationToken) -> Routes {
        let health = HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()));
        let routes = routes(engine, stop).add_service(health);
        if !self.counts {
            return routes;
        }
        let counts = middleware::from_fn_with_state(self.requests.clone(), metrics::count);
        routes.into_axum_router().layer(counts).into()
    }

    fn listen(&self, listener: TcpListener, routes: Routes) -> Serving {
        tokio::spawn(serve(listener, CONNECTIONS_MAX, routes, self.stop.clone()))
    }

    fn show_engine(&self, engine: &Embedded) {
        self.show(Source::Here { engine: engine.clone(), sync_seconds: engine.sync_seconds() });
    }

    fn show(&self, source: Source<Embedded>) {
        self.source.send_replace(source);
    }
}

/// Keeps the claim, if there is one; ends only when that fails.
async fn kept(claim: &mut Option<Claim>) -> replicated::Failure {
    match claim {
        Some(claim) => claim.keep().await,
        None => std::future::pending().await,
    }
}

/// The gRPC server ends by itself only when something is wrong.
fn stopped(outcome: Result<(), JoinError>) -> Result<(), Error> {
    outcome.map_err(|_| Failure::Ended("the gRPC server").into())
}

/// The engine task ends by itself only when something is wrong.
fn ended(outcome: Result<Result<(), Failure>, JoinError>) -> Error {
    match outcome {
        Ok(Err(failure)) => failure.into(),
        Ok(Ok(())) | Err(_) => Failure::Ended("the engine task").into(),
    }
}
