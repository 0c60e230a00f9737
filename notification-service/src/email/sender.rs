use std::time::Duration;

use lettre::message::Mailbox;
use service_kit::CancellationToken;
use service_kit::breaker::{self, Breaker, Interrupted};
use service_kit::status::chain;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::message::{self, compose};
use super::transport::{Answer, CONNECTIONS_MAX, SEND_MS_MAX, Transport};
use crate::app::{App, Emails, Notifications, Settled, StoreError};
use crate::domain::{Email, InvoiceNumber, Kind, TimestampUs};

/// How often a mail server may put one mail off before it counts as refused.
const ATTEMPTS_MAX: u32 = 50;

/// How long a mail waits for an unreachable mail server in one go, in milliseconds.
const WAIT_MS_MAX: u64 = 30_000;

/// How long nobody else may take a mail that is being sent, in milliseconds: a wait, a try, and time to write it down.
const CLAIM_MS: u64 = WAIT_MS_MAX + SEND_MS_MAX + 10_000;

/// How long the sender sleeps at most when nothing is due, in milliseconds. New mails wake it.
const IDLE_MS: u64 = 5_000;

/// How long new mails gather before the sender looks, in milliseconds. Every notification wakes it, and a look for each
/// of them would cost as much as keeping it.
const GATHER_MS: u64 = 20;

/// How long the sender waits after the database failed, in milliseconds.
const DATABASE_RETRY_MS: u64 = 1_000;

/// How fast the sender tries again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How long a mail that was put off waits the first time, in milliseconds. Each further time doubles it.
    pub(crate) retry_ms: u64,
    /// How long it waits at most, in milliseconds.
    pub(crate) retry_ms_max: u64,
    /// How long one try may take, in milliseconds: not more than a claim allows for.
    pub(crate) send_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retry_ms: 10_000, retry_ms_max: 15 * 60 * 1_000, send_ms_max: SEND_MS_MAX }
    }
}

/// Sends what is queued, at least once. A crash between the sending and the note of it, or an answer that does not come
/// in time, makes a repeat with the same Message-ID.
#[derive(Debug)]
pub(crate) struct Sender<S> {
    app: App<S>,
    post_office: PostOffice,
}

/// What is needed to send one mail. Clones share the breaker and the connections.
#[derive(Clone, Debug)]
struct PostOffice {
    transport: Transport,
    from: Mailbox,
    server: Breaker,
    settings: Settings,
}

/// What came of trying to send a mail.
enum Tried {
    Answered(Answer),
    /// The mail server was not reached.
    Interrupted,
}

impl<S: Notifications + Emails> Sender<S> {
    /// A sender of what `app` queues.
    pub(crate) fn new(app: App<S>, (transport, from): (Transport, Mailbox)) -> Self {
        let server = Breaker::new("mail server", breaker::Settings::default());
        Self { app, post_office: PostOffice { transport, from, server, settings: Settings::default() } }
    }

    #[cfg(test)]
    pub(crate) fn with(mut self, settings: Settings) -> Self {
        self.post_office.settings = settings;
        self
    }

    /// Sends until the token is cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        while !token.is_cancelled() {
            let pause = match self.round(&token).await {
                Ok(pause) => pause,
                Err(error) => {
                    warn!(error = chain(&error), "the queue of e-mails cannot be read; it is tried again");
                    Duration::from_millis(DATABASE_RETRY_MS)
                }
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.more_post() => {}
            }
        }
    }

    /// Waits for new mails, and a moment for those that come right behind.
    async fn more_post(&self) {
        self.app.more_post().await;
        tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
    }

    /// Sends what is due, and says how long to wait for the next one.
    async fn round(&self, token: &CancellationToken) -> Result<Duration, StoreError> {
        let emails = self.app.emails();
        let now = self.app.time();
        match emails.next_due().await? {
            Some(due) if due <= now => {}
            Some(due) => {
                let wait_us = u64::try_from(due.0.saturating_sub(now.0)).unwrap_or_default();
                return Ok(Duration::from_micros(wait_us).min(Duration::from_millis(IDLE_MS)));
            }
            None => return Ok(Duration::from_millis(IDLE_MS)),
        }
        let mut sending = JoinSet::new();
        for email in emails.claim(now, later(now, CLAIM_MS), CONNECTIONS_MAX).await? {
            let (app, post_office, token) = (self.app.clone(), self.post_office.clone(), token.clone());
            sending.spawn(async move {
                let tried = match attachment(app.emails(), &email).await {
                    Ok(invoice) => Ok(post_office.send(&email, invoice, &token).await),
                    Err(error) => Err(error),
                };
                (email, tried)
            });
        }
        // An error waits for the others: returning would drop the set, and with it mails that are on the wire.
        let mut outcome = Ok(Duration::ZERO);
        while let Some(sent) = sending.join_next().await {
            let settled = match sent {
                Ok((email, Ok(tried))) => self.settle(email, tried).await,
                Ok((_, Err(error))) => Err(error),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => continue,
                },
            };
            if let Err(error) = settled {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn settle(&self, email: Email, tried: Tried) -> Result<(), StoreError> {
        let now = self.app.time();
        let order_id = &email.notification.draft.order_id;
        let settled = match tried {
            Tried::Interrupted => Settled::Returned,
            Tried::Answered(Answer::Taken) => Settled::Sent,
            Tried::Answered(Answer::Refused(reason)) => {
                // The reason may repeat the address: it is kept with the e-mail, not logged.
                info!(order_id, "the mail server refused an e-mail for good");
                Settled::Refused { reason }
            }
            Tried::Answered(Answer::PutOff(reason)) if email.attempts + 1 >= ATTEMPTS_MAX => {
                info!(order_id, attempts = ATTEMPTS_MAX, "an e-mail was put off too often and is given up");
                Settled::Refused { reason: format!("put off {ATTEMPTS_MAX} times: {reason}") }
            }
            Tried::Answered(Answer::PutOff(reason)) => {
                let Settings { retry_ms, retry_ms_max, .. } = self.post_office.settings;
                let wait_ms = retry_ms.saturating_mul(1 << email.attempts.min(32)).min(retry_ms_max);
                Settled::PutOff { reason, due_at: later(now, wait_ms) }
            }
        };
        self.app.emails().settle(email, settled, now).await
    }
}

impl PostOffice {
    async fn send(
        &self,
        email: &Email,
        invoice: Option<(InvoiceNumber, Vec<u8>)>,
        stopping: &CancellationToken,
    ) -> Tried {
        let mail = match compose(&self.from, email, invoice) {
            Ok(mail) => mail,
            Err(error) => return Tried::Answered(Answer::Refused(error.to_string())),
        };
        let id = message::id(&email.notification.draft.event_id);
        // Ends the waiting for an unreachable server before somebody else may take the mail, not a try that has begun.
        let waiting = stopping.child_token();
        let timer = async {
            tokio::time::sleep(Duration::from_millis(WAIT_MS_MAX)).await;
            waiting.cancel();
            std::future::pending::<()>().await;
        };
        let time_limit = Duration::from_millis(self.settings.send_ms_max);
        let tried = self.server.until_answered(&waiting, || self.transport.send(mail.clone(), &id, time_limit));
        tokio::select! {
            tried = tried => tried.map_or_else(|Interrupted| Tried::Interrupted, Tried::Answered),
            () = timer => Tried::Interrupted,
        }
    }
}

/// The invoice that goes with an e-mail.
async fn attachment(store: &impl Notifications, email: &Email) -> Result<Option<(InvoiceNumber, Vec<u8>)>, StoreError> {
    let draft = &email.notification.draft;
    if draft.kind != Kind::InvoiceReady {
        return Ok(None);
    }
    let found = store.invoice(&draft.order_id).await?;
    Ok(found.map(|(kept, pdf)| (kept.invoice.number, pdf)))
}

fn later(now: TimestampUs, wait_ms: u64) -> TimestampUs {
    let wait_us = i64::try_from(wait_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    TimestampUs(now.0.saturating_add(wait_us))
}
