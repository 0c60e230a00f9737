//! One subscription's push: as many requests at a time as its window allows, none while it pauses.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{ACK_DEADLINE_MS_MAX, AckDeadline, SubscriptionConfig};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{Answer, Client};
use super::lane::{self, LEASE_MARGIN, Report, Way, bytes_of};
use super::request::Form;
use super::window::Window;
use crate::engine::{Engine, Error, Lease, Pull, Taker};

/// The most bytes of messages of one subscription that are being pushed at a time, unless a single one has more.
const BYTES_MAX: u64 = 10 << 20;
/// The most bytes that are taken at a time, unless a single message has more.
const PULL_BYTES_MAX: u64 = 1 << 20;
/// How long a pull waits for a message before it is made anew.
const PULL_PATIENCE: Duration = Duration::from_secs(60);

type Pulled = Result<Vec<Lease>, Error>;
type Pulling = Pin<Box<dyn Future<Output = Pulled> + Send>>;

pub(super) struct Pusher<E> {
    way: Arc<Way<E>>,
    /// How long leases last.
    lease: AckDeadline,
    window: Window,
    /// Messages that are being pushed, and their bytes.
    messages: u32,
    bytes: u64,
    paused_until: Option<Instant>,
    /// Whether nobody was there at the last try.
    is_out: bool,
    reports: UnboundedSender<Report>,
    reported: UnboundedReceiver<Report>,
}

impl<E: Engine> Pusher<E> {
    /// None for a configuration without a URL.
    pub(super) fn new(
        engine: E,
        client: Client,
        requests: Arc<Semaphore>,
        config: &SubscriptionConfig,
        stop: CancellationToken,
    ) -> Option<Self> {
        let form = Form::new(config.push.as_ref()?, config.name.clone())?;
        let longest = Duration::from_millis(ACK_DEADLINE_MS_MAX.into());
        let lease = (Duration::from_millis(config.ack_deadline.ms().into()) + LEASE_MARGIN).min(longest);
        let (reports, reported) = unbounded_channel();
        let subscription = config.name.clone();
        let patience = lease.saturating_sub(LEASE_MARGIN);
        Some(Self {
            way: Arc::new(Way { engine, client, requests, form, subscription, patience, stop }),
            lease: AckDeadline::from_ms(u32::try_from(lease.as_millis()).ok()?).ok()?,
            window: Window::new(),
            messages: 0,
            bytes: 0,
            paused_until: None,
            is_out: false,
            reports,
            reported,
        })
    }

    /// Pushes until it is told to stop, and then until what was sent has its answer.
    pub(super) async fn run(mut self) {
        let stop = self.way.stop.clone();
        let mut pull: Option<Pulling> = None;
        loop {
            if self.paused_until.is_some() {
                // What is under way goes back.
                pull = None;
            } else if pull.is_none()
                && let Some(next) = self.next_pull()
            {
                let (way, subscription) = (self.way.clone(), self.way.subscription.clone());
                let pulled = async move { way.engine.pull(subscription, next).await };
                pull = Some(Box::pin(pulled));
            }
            tokio::select! {
                Some(report) = self.reported.recv() => self.account(&report),
                pulled = next(&mut pull) => {
                    pull = None;
                    self.begin(pulled);
                }
                () = until(self.paused_until) => self.paused_until = None,
                () = stop.cancelled() => break,
            }
        }
        drop(pull);
        while self.messages > 0 {
            let Some(report) = self.reported.recv().await else { break };
            self.account(&report);
        }
    }

    /// What may be pulled now.
    fn next_pull(&self) -> Option<Pull> {
        let messages_max = self.window.requests().saturating_sub(self.messages);
        let is_full = messages_max == 0 || self.bytes >= BYTES_MAX;
        (!is_full).then_some(Pull {
            messages_max,
            bytes_max: PULL_BYTES_MAX,
            ack_deadline: Some(self.lease),
            patience: PULL_PATIENCE,
            taker: Taker::Pusher,
        })
    }

    /// Sends what was pulled: each ordering key on a lane of its own, and each message without a key on another.
    fn begin(&mut self, pulled: Pulled) {
        let leases = match pulled {
            Ok(leases) => leases,
            Err(error) => {
                // The subscription changes or goes, or the engine is busy; whatever it is, it is not to be asked at once.
                tracing::debug!(subscription = %self.way.subscription, %error, "There is nothing to push.");
                self.pause(self.window.round(), None);
                return;
            }
        };
        let (mut lanes, mut of_key) = (Vec::<Vec<Lease>>::new(), HashMap::<String, usize>::new());
        for lease in leases {
            self.messages += 1;
            self.bytes += bytes_of(&lease);
            let key = &lease.message.ordering_key;
            match of_key.get(key) {
                Some(at) if !key.is_empty() => lanes[*at].push(lease),
                _ => {
                    of_key.insert(key.clone(), lanes.len());
                    lanes.push(vec![lease]);
                }
            }
        }
        let now = Instant::now();
        for lane in lanes {
            tokio::spawn(lane::push(self.way.clone(), lane, now, self.window.round(), self.reports.clone()));
        }
    }

    fn account(&mut self, report: &Report) {
        self.messages = self.messages.saturating_sub(report.messages);
        self.bytes = self.bytes.saturating_sub(report.bytes);
        let subscription = &self.way.subscription;
        match report.answer {
            Some(Answer::Acked) => {
                if std::mem::take(&mut self.is_out) {
                    tracing::info!(%subscription, "The push endpoint is back.");
                }
                self.window.succeeded();
            }
            Some(Answer::Refused) => self.pause(report.round, None),
            Some(Answer::Unreached) => {
                if !std::mem::replace(&mut self.is_out, true) {
                    tracing::warn!(%subscription, "The push endpoint can't be reached; messages wait for it.");
                }
                self.pause(report.round, None);
            }
            Some(Answer::Later(least)) => self.pause(report.round, Some(least)),
            None => {}
        }
    }

    fn pause(&mut self, round: u64, least: Option<Duration>) {
        if let Some(pause) = self.window.failed(round, least) {
            self.paused_until = Some(Instant::now() + pause);
        }
    }
}

async fn next(pull: &mut Option<Pulling>) -> Pulled {
    match pull {
        Some(pulled) => pulled.await,
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
