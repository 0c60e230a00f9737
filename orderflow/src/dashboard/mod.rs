//! The page that shows the flow while it runs, and lets people break it: served by `orderflow up` for the stack that it
//! runs, and by `orderflow dashboard` for one that others run.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /`, `/assets/NAME` | the page itself |
//! | `GET /api/state`, `/api/history` | the present; the last minutes |
//! | `GET /api/events` | both, as they go on: server-sent events |
//! | `POST /api/orders`, `PUT /api/load`, `DELETE /api/load` | orders, and a steady load of them |
//! | `POST /api/parts/NAME/kill`, `stop`, `start` | what happens to a part, where this process runs it |
//! | `PUT /api/acquirer`, `POST /api/poison` | what goes wrong on purpose |
//! | `GET /api/orders`, `/api/orders/ID`, `/api/orders/ID/invoice.pdf` | orders, and the way of one |
//! | `POST /api/orders/ID/cancel`, `retry` | what a customer does with an order |
//! | `GET /api/dead-letters`, `POST /api/dead-letters/redrive`, `discard` | what nobody could handle |
//!
//! Collectors watch the parts, each for itself and each with its pauses; what is away is shown as away and costs the
//! others nothing. `guard.rs` keeps other sites out.

mod assets;
mod collect;
mod command;
mod connection;
mod control;
mod flow;
mod guard;
mod headline;
mod http;
mod journey;
mod letters;
mod live;
mod outages;
mod proto_json;
mod refusal;
mod site;
mod steady;
mod stream;
mod wire;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use service_kit::CancellationToken;
use tokio::net::TcpListener;
use tokio::time;
use tokio_util::task::TaskTracker;

use self::connection::{CONNECTIONS_MAX, Crowd, IDLE_MAX};
use self::http::{Page, router};
use self::live::Live;
use self::refusal::Refusal;
use crate::audit;

pub use self::command::Config;
pub(crate) use self::command::run;
pub(crate) use self::site::Site;

/// The flag and the variable that say where the page of `orderflow up` is.
const FLAG: &str = "--dashboard-listen (ORDERFLOW_DASHBOARD_LISTEN)";
/// How long requests that are under way may take when the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long the collectors get to tidy up behind themselves.
const TIDY_WITHIN: Duration = Duration::from_secs(2);

/// Where the page is served, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// There is no page.
    Off,
    /// On this address.
    On(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::On).map_err(|_| format!("`{text}` is neither an address nor `off`")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(address) => address.fmt(f),
        }
    }
}

/// Where the page is unless it is told otherwise.
pub(crate) fn usual_address() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080)
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can listen there.
    #[error("the page can't be served on {address}: {source}; choose another address with {flag}{or}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// What sets it.
        flag: &'static str,
        /// What else may be said there.
        or: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An address of a part is none.
    #[error(transparent)]
    Part(#[from] audit::Error),
    /// Whoever reaches the page can kill processes.
    #[error(
        "the page lets people kill processes, so that it is served on a loopback address only, not on {address}: {FLAG}"
    )]
    NotLoopback {
        /// Where.
        address: SocketAddr,
    },
}

/// An address that is taken, before anything is served on it.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Takes an address for a page that lets people kill processes: one that only this machine reaches.
    pub(crate) async fn on_loopback(address: SocketAddr) -> Result<Self, Error> {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback { address });
        }
        Self::open(address, FLAG, ", or `off`").await
    }

    async fn open(address: SocketAddr, flag: &'static str, or: &'static str) -> Result<Self, Error> {
        let refused = |source| Error::Address { address, flag, or, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where the page is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the page of a stack until the token is cancelled.
    pub(crate) async fn serve(self, site: Site, names: Vec<String>, token: CancellationToken) {
        let live = Arc::new(Live::new(site));
        let collectors = TaskTracker::new();
        collect::start(&live, &collectors, &token);
        collectors.close();

        let page = Page::new(Arc::clone(&live), token.clone());
        let listener = Crowd::new(self.listener, CONNECTIONS_MAX, IDLE_MAX);
        let server = axum::serve(listener, router(page, names.into()));
        let server = server.with_graceful_shutdown(token.clone().cancelled_owned());
        let ended = async {
            token.cancelled().await;
            time::sleep(DRAIN_WITHIN).await;
        };
        tokio::select! {
            served = server => {
                if let Err(error) = served {
                    tracing::warn!(%error, "the page is not served any more");
                }
            }
            () = ended => tracing::warn!("requests that are still under way end with the process"),
        }
        token.cancelled().await;
        // What is left behind expires by itself.
        let _ = time::timeout(TIDY_WITHIN, collectors.wait()).await;
    }
}
