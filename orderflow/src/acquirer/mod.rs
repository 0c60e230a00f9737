//! The simulated card acquirer: an HTTP server with a durable ledger, as card processors have. It stands outside the
//! suite; what it charged and gave back is the truth that the audit counts against.
//!
//! | request | what it does |
//! | --- | --- |
//! | `POST /v1/charges` | takes the money, or holds it with `"capture": false`; 402 when declined |
//! | `POST /v1/charges/{id}/capture` | takes what is held |
//! | `POST /v1/charges/{id}/void` | lets go what is held |
//! | `POST /v1/charges/{id}/refund` | gives back what was taken, or a part of it |
//! | `POST /v1/cancellations` | by a charge's key: voids, refunds, or blocks the key for ever |
//! | `GET /v1/charges`, `GET /v1/charges/{id}` | the ledger with each step of each charge |
//! | `PUT /v1/behaviour`, `GET /v1/behaviour` | what goes wrong with every card; see [`Mode`] |
//! | `GET /healthz` | whether it serves |
//!
//! The first four want an `Idempotency-Key`: the same request again changes nothing and is answered with the charge as
//! it stands, with the header `Idempotent-Replayed`. 400 is for what does not parse, 404 for an unknown charge, 409 for
//! a key that was used for something else and for a charge that does not stand as it must, 422 for a wrong amount.
//! A cancellation and a charge under one key meet in the ledger, so that it does not matter which comes first.
//! What single cards do stands in `cards.rs`.

mod cards;
mod client;
mod connection;
mod http;
mod ledger;
mod wire;

use std::io;
use std::net::SocketAddr;

use service_kit::config::{self, Check};
use service_kit::{CancellationToken, ProcessConfig};
use tokio::net::TcpListener;
use tracing::info;

pub use self::client::{AcquirerClient, Answer, ClientError};
use self::connection::{CuttableListener, Scissors};
use self::ledger::Ledger;
pub(crate) use self::ledger::SCHEMA_VERSION;
pub use self::wire::{
    Behaviour, CANCELLED, CancellationOutcome, CancellationReply, CancellationRequest, ChangeRequest, ChargeReply,
    ChargeRequest, ChargeStatus, LEDGER_PAGE_MAX, LedgerEntry, LedgerPage, Mode, Movement, Problem,
};

/// What the acquirer can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "ACQUIRER_LISTEN", default_value = "127.0.0.1:8070", value_parser = config::named::<SocketAddr>("ACQUIRER_LISTEN"))]
    pub listen: SocketAddr,
    /// Where the ledger is kept; made when it is missing
    #[arg(long, env = "ACQUIRER_DATABASE_URL", default_value = "sqlite://acquirer.db")]
    pub database_url: String,
    /// Logs and stopping
    #[command(flatten)]
    pub process: ProcessConfig,
}

/// Why the acquirer does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was told nonsense.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Its ledger is out of order.
    #[error("the ledger can't be used")]
    Ledger(#[from] ledger::Error),
    /// Nothing can listen there.
    #[error("--listen (ACQUIRER_LISTEN): the address {address} can't be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server failed.
    #[error("the HTTP server failed")]
    Serve(#[from] io::Error),
}

impl Config {
    /// Checks everything before anything is opened.
    pub fn validate(&self) -> Result<(), config::Error> {
        let mut check = Check::new();
        check.database_file("--database-url", "ACQUIRER_DATABASE_URL", &self.database_url);
        self.process.check(&mut check);
        check.finish()
    }
}

/// An acquirer that has its address and its ledger.
#[derive(Debug)]
pub struct Acquirer {
    listener: TcpListener,
    address: SocketAddr,
    ledger: Ledger,
}

impl Acquirer {
    /// Opens the ledger, then the port.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let ledger = Ledger::open(&config.database_url).await?;
        let refused = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, ledger })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled, then finishes the requests that it has.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        info!(address = %self.address, "the acquirer is listening");
        let service = http::router(self.ledger.clone()).into_make_service_with_connect_info::<Scissors>();
        let server =
            axum::serve(CuttableListener(self.listener), service).with_graceful_shutdown(token.cancelled_owned());
        tokio::select! {
            served = server => Ok(served?),
            error = self.ledger.broken() => Err(error.into()),
        }
    }
}
