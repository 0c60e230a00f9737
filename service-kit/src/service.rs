//! A service while it runs: it serves, consumes, relays, keeps its tables small, and ends when one of these cannot go on.

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::broker::BrokerConfig;
use crate::db::Database;
use crate::grpc::Server;
use crate::outbox::Relay;
use crate::{config, consumer, db, grpc, inbox, outbox};

/// What is the same in every service, opened and ready to run.
#[derive(Debug)]
pub struct Frame {
    /// The service's database.
    pub database: Database,
    /// Where the broker is.
    pub broker: BrokerConfig,
    /// What publishes the service's events, if it has any.
    pub relay: Option<Relay>,
    /// The server that has its address.
    pub server: Server,
}

/// What a service serves.
#[derive(Debug)]
pub struct Served {
    /// Its RPCs.
    pub routes: Routes,
    /// The full name of its gRPC service, for the health service.
    pub name: &'static str,
    /// The encoded file descriptor set, for reflection.
    pub descriptors: &'static [u8],
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The database is unfit.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// Events cannot be published.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// Messages cannot be consumed.
    #[error(transparent)]
    Consumer(#[from] consumer::Error),
    /// The gRPC server does not serve.
    #[error(transparent)]
    Server(#[from] grpc::Error),
    /// Something that only this service has is unfit.
    #[error(transparent)]
    Own(Box<dyn std::error::Error + Send + Sync>),
}

impl Frame {
    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    ///
    /// `consuming` is what the service's consumers do; it ends when the token is cancelled.
    pub async fn run(
        self,
        served: Served,
        consuming: impl Future<Output = Result<(), consumer::Error>>,
        token: CancellationToken,
    ) -> Result<(), Error> {
        let Self { database, broker, relay, server } = self;
        let Served { routes, name, descriptors } = served;
        let watching = broker.watch(token.clone());
        let pruning = inbox::keep_small(database.clone(), token.clone());
        // The relay goes last, so that the events of the last changes still leave.
        let relay_token = CancellationToken::new();
        let work = async {
            tokio::try_join!(
                async { Ok::<_, Error>(server.serve(routes, &[name], descriptors, token.clone()).await?) },
                async { Ok(consuming.await?) },
                async { Ok(tokio::join!(watching, pruning)) },
            )?;
            relay_token.cancel();
            Ok::<_, Error>(())
        };
        let relaying = async {
            match relay {
                Some(relay) => Ok(relay.run(relay_token.clone()).await?),
                None => Ok(()),
            }
        };
        tokio::select! {
            done = async { tokio::try_join!(work, relaying) } => done.map(drop),
            error = database.poisoned() => Err(error.into()),
        }
    }
}
