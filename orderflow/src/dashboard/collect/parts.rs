//! Asks each part, again and again, whether it can work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::super::live::Live;
use super::super::site::{self, Seen, Watched};
use crate::acquirer::AcquirerClient;
use crate::health;
use crate::part::Part;

/// How long a part may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers that must be missing in a row: one alone may be a machine that is busy.
const MISSES: u32 = 2;

/// Watches a part for as long as the server runs.
pub(super) async fn watch(live: Arc<Live>, part: Watched) {
    let Some(door) = Door::of(&part) else { return };
    let mut misses = 0;
    loop {
        // A process that is known to have ended need not be asked.
        let answer = match live.site.has_process(part.instance) {
            Some(false) => {
                door.forget(&live);
                Some(Seen::default())
            }
            _ => door.ask(&live).await,
        };
        misses = if answer.is_some() { 0 } else { misses + 1 };
        if answer.is_some() || misses >= MISSES {
            live.set_seen(part.instance, answer.unwrap_or_default());
        }
        time::sleep(PAUSE).await;
    }
}

/// How a part is asked.
enum Door {
    /// By the health service of gRPC.
    Grpc(HealthClient<Channel>),
    /// How it behaves shows that it is there.
    Acquirer(AcquirerClient),
    /// By the first words of a session with a server that others wrote.
    Server(Part, SocketAddr),
}

impl Door {
    fn of(part: &Watched) -> Option<Self> {
        Some(match part.instance.part {
            Part::Acquirer => Self::Acquirer(AcquirerClient::new(&part.url, ANSWER_WITHIN)),
            server @ (Part::Nats | Part::Postgres) => {
                Self::Server(server, part.url.strip_prefix("http://")?.parse().ok()?)
            }
            _ => Self::Grpc(HealthClient::new(site::channel(&part.url).ok()?)),
        })
    }

    /// What only the running part knows is not known any more.
    fn forget(&self, live: &Live) {
        if matches!(self, Self::Acquirer(_)) {
            live.set_acquirer(None);
        }
    }

    /// What the part says of itself; nothing when it does not answer.
    async fn ask(&self, live: &Live) -> Option<Seen> {
        match self {
            Self::Grpc(client) => {
                let mut client = client.clone();
                let answer = client.check(HealthCheckRequest::default());
                let answer = time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()?;
                Some(Seen { alive: true, healthy: answer.into_inner().status() == ServingStatus::Serving })
            }
            Self::Acquirer(client) => {
                let behaviour = client.behaviour().await.ok();
                live.set_acquirer(behaviour);
                behaviour.map(|_| Seen { alive: true, healthy: true })
            }
            Self::Server(part, address) => match health::check(*part, *address, ANSWER_WITHIN).await {
                Ok(()) => Some(Seen { alive: true, healthy: true }),
                Err(health::Error::NotServing { .. }) => Some(Seen { alive: true, healthy: false }),
                Err(health::Error::Unreachable { .. }) => None,
            },
        }
    }
}
