//! Messages that are pushed one after the other: those of one ordering key, or a single one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_core::SubscriptionName;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Answer, Client};
use super::request::Form;
use crate::engine::{AckId, DeadlineChange, Engine, Error, Lease};

/// How much longer than a request a lease lasts, so that the answer comes before its end.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How old a lease may be when its request begins; an older one is extended first. Less than [`LEASE_MARGIN`].
const LEASE_AGE_MAX: Duration = Duration::from_secs(2);
/// How long a message waits for a place among the requests of all subscriptions before it goes back.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);

/// What all lanes of a subscription share.
#[derive(Debug)]
pub(super) struct Way<E> {
    pub(super) engine: E,
    pub(super) client: Client,
    /// Places for the requests of all subscriptions.
    pub(super) requests: Arc<Semaphore>,
    pub(super) form: Form,
    pub(super) subscription: SubscriptionName,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// Told when nothing more is to be sent.
    pub(super) stop: CancellationToken,
}

/// What became of messages.
#[derive(Debug)]
pub(super) struct Report {
    /// None for those that were not tried.
    pub(super) answer: Option<Answer>,
    pub(super) round: u64,
    pub(super) messages: u32,
    pub(super) bytes: u64,
}

/// Pushes messages in their order, until it is told to stop. The first one that does not get through takes those behind it back as well: the
/// engine has taken them back already if it was refused.
pub(super) async fn push<E: Engine>(
    way: Arc<Way<E>>,
    leases: Vec<Lease>,
    begun: Instant,
    round: u64,
    reports: UnboundedSender<Report>,
) {
    let mut extended = begun;
    let mut rest: VecDeque<Lease> = leases.into();
    while !way.stop.is_cancelled()
        && let Some(lease) = rest.pop_front()
    {
        let bytes = bytes_of(&lease);
        let id = lease.ack_id.clone();
        let Some(place) = way.place().await else {
            rest.push_front(lease);
            break;
        };
        if extended.elapsed() > LEASE_AGE_MAX {
            way.extend([&id].into_iter().chain(rest.iter().map(|lease| &lease.ack_id))).await;
            extended = Instant::now();
        }
        let answer = way.client.post(way.form.request(lease), way.patience).await;
        way.settle(id, answer).await;
        drop(place);
        reports.send(Report { answer: Some(answer), round, messages: 1, bytes }).ok();
        if answer != Answer::Acked {
            break;
        }
    }
    if !rest.is_empty() {
        let (messages, bytes) = (u32::try_from(rest.len()).unwrap_or(u32::MAX), rest.iter().map(bytes_of).sum());
        way.engine.give_back(rest.into_iter().map(|lease| lease.ack_id).collect());
        reports.send(Report { answer: None, round, messages, bytes }).ok();
    }
}

pub(super) fn bytes_of(lease: &Lease) -> u64 {
    let attributes: usize = lease.message.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    (lease.message.data.len() + attributes + lease.message.ordering_key.len()) as u64
}

impl<E: Engine> Way<E> {
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        timeout(PLACE_PATIENCE, self.requests.clone().acquire_owned()).await.ok()?.ok()
    }

    async fn extend(&self, ids: impl Iterator<Item = &AckId>) {
        let deadline_ms = u32::try_from((self.patience + LEASE_MARGIN).as_millis()).unwrap_or(u32::MAX);
        let change = |id: &AckId| DeadlineChange { ack_id: id.clone(), deadline_ms };
        let changes = ids.map(change).collect();
        self.note(self.engine.modify_ack_deadline(self.subscription.clone(), changes).await);
    }

    /// Tells the engine. If it does not hear it, the lease ends by itself.
    async fn settle(&self, id: AckId, answer: Answer) {
        match answer {
            Answer::Acked => self.note(self.engine.acknowledge(self.subscription.clone(), vec![id]).await),
            Answer::Refused => {
                let nack = vec![DeadlineChange { ack_id: id, deadline_ms: 0 }];
                self.note(self.engine.modify_ack_deadline(self.subscription.clone(), nack).await);
            }
            Answer::Unreached | Answer::Later(_) => self.engine.give_back(vec![id]),
        }
    }

    fn note<T>(&self, outcome: Result<T, Error>) {
        if let Err(error) = outcome {
            tracing::debug!(subscription = %self.subscription, %error, "A pushed message can't be settled.");
        }
    }
}
