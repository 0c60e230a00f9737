//! Asking a part whether it is ready to work.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::acquirer::AcquirerClient;
use crate::part::Part;

/// How a NATS server greets.
const NATS_GREETING: [u8; 5] = *b"INFO ";
/// How a session with a PostgreSQL server begins: the length of the message, version 3.0 of the protocol, and a user.
const POSTGRES_STARTUP: &[u8] = b"\0\0\0\x18\0\x03\0\0user\0orderflow\0\0";
/// The kind of message by which it asks who that is.
const POSTGRES_ASKS: u8 = b'R';

/// Why a part is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there, or not in time.
    #[error("no answer from {address}: {source}")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers that it can't take work now.
    #[error("{address} answers that it is not serving")]
    NotServing {
        /// Who was asked.
        address: SocketAddr,
    },
}

/// What can be asked for its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A part of the stack.
    Part(Part),
    /// The page.
    Dashboard,
}

impl clap::ValueEnum for Subject {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Part(Part::Nats),
            Self::Part(Part::Postgres),
            Self::Part(Part::Broker),
            Self::Part(Part::Acquirer),
            Self::Part(Part::OrderService),
            Self::Part(Part::PaymentService),
            Self::Part(Part::NotificationService),
            Self::Part(Part::InvoiceWorker),
            Self::Dashboard,
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Part(part) => part.to_possible_value(),
            Self::Dashboard => Some(clap::builder::PossibleValue::new("dashboard").help("The page")),
        }
    }
}

impl Subject {
    /// Asks it whether it is ready.
    pub async fn check(self, address: SocketAddr, timeout: Duration) -> Result<(), Error> {
        match self {
            Self::Part(part) => check(part, address, timeout).await,
            // The page answers to the same question as the acquirer.
            Self::Dashboard => check(Part::Acquirer, address, timeout).await,
        }
    }
}

/// Asks a part by the protocol that it speaks: gRPC's health service, HTTP `GET /healthz` for the acquirer, or the first
/// words of a session with a server that others wrote.
pub async fn check(part: Part, address: SocketAddr, timeout: Duration) -> Result<(), Error> {
    let in_time = |source| Error::Unreachable { address, source };
    match part {
        Part::Acquirer => AcquirerClient::new(&format!("http://{address}"), timeout)
            .healthy()
            .await
            .map_err(|source| Error::Unreachable { address, source: source.into() }),
        Part::Nats | Part::Postgres => {
            let answer = time::timeout(timeout, greet(part, address)).await.map_err(|late| in_time(late.into()))?;
            answer.map_err(|error| in_time(error.into()))?.then_some(()).ok_or(Error::NotServing { address })
        }
        _ => check_grpc(address, timeout).await,
    }
}

/// Whether a server answers the first words of a session as one does that takes it.
async fn greet(part: Part, address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    if part == Part::Nats {
        // It speaks first.
        let mut first = [0; NATS_GREETING.len()];
        stream.read_exact(&mut first).await?;
        return Ok(first == NATS_GREETING);
    }
    stream.write_all(POSTGRES_STARTUP).await?;
    // A server that is starting or stopping answers with an error, one that serves asks who we are.
    Ok(stream.read_u8().await? == POSTGRES_ASKS)
}

async fn check_grpc(address: SocketAddr, timeout: Duration) -> Result<(), Error> {
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreachable { address, source };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| unreachable(error.into()))?;
    let channel = endpoint
        .connect_timeout(timeout)
        .timeout(timeout)
        .connect()
        .await
        .map_err(|error| unreachable(error.into()))?;
    let reply = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .map_err(|status| unreachable(status.into()))?;
    match reply.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        _ => Err(Error::NotServing { address }),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_part_and_the_page_can_be_asked() {
        for part in Part::ALL {
            assert_eq!(Subject::from_str(part.name(), false), Ok(Subject::Part(part)));
        }
        assert_eq!(Subject::from_str("dashboard", false), Ok(Subject::Dashboard));
    }
}
