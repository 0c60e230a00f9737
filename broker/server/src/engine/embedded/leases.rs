//! Streams of leases: from the engine task's deliveries to messages, at the speed of the reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use broker_core::{
    AckDeadline, AckRef, CloseReason, ConsumerId, Delivery, Detach, ModifyOutcome, SubscriptionId, SubscriptionName,
    TopicId,
};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::task::Event;
use super::{Embedded, ack_id, message_id};
use crate::engine::{Ending, Engine, Error, Lease, LeaseControl, Leases, Taker};

/// One response carries no more bytes than this, unless a single message does. Clients take 4 MiB by default; smaller
/// ones leave less on the way to a slow reader, where leases are not kept up.
const RESPONSE_BYTES_MAX: u64 = 256 << 10;
/// One response carries no more messages than this.
const RESPONSE_MESSAGES_MAX: usize = 1_000;
/// Batches that are read ahead of the reader.
const BATCHES_MAX: usize = 1;
/// How long leases are kept up whose messages wait for a slow reader. It is the longest that a client may hold one.
const UNSENT_HOLD_MAX: Duration = Duration::from_secs(600);

/// What is known of a subscription when a consumer attaches.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) ordered: bool,
    pub(super) shows_attempts: bool,
    pub(super) exactly_once: Arc<AtomicBool>,
}

/// Leases, and the number of the last one.
type Batch = (Vec<Lease>, u64);

/// A stream of leases.
#[derive(Debug)]
pub(crate) struct EmbeddedLeases {
    // Ends before the batches go back, so that they do not come here once more.
    attachment: Attachment,
    batches: Batches,
    ordered: bool,
    exactly_once: Arc<AtomicBool>,
    control: EmbeddedControl,
}

/// What is read ahead. What the reader does not take goes back when this is dropped, also when the core has closed the
/// consumer and would let its leases run.
#[derive(Debug)]
struct Batches {
    engine: Embedded,
    receiver: Receiver<Result<Batch, Error>>,
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.receiver.close();
        while let Ok(batch) = self.receiver.try_recv() {
            let leases = batch.map(|(leases, _)| leases).unwrap_or_default();
            Engine::give_back(&self.engine, leases.into_iter().map(|lease| lease.ack_id).collect());
        }
    }
}

/// Changes a stream of leases.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedControl {
    engine: Embedded,
    consumer: ConsumerId,
    deadline_ms: Arc<AtomicU32>,
}

/// A consumer that the core knows of, until this is dropped.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) engine: Embedded,
    pub(super) consumer: ConsumerId,
    pub(super) detach: Detach,
    /// The number of the last lease that was handed out; what is on later ones has left nothing.
    pub(super) seen: u64,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.engine.detach(self.consumer, self.detach, self.seen);
    }
}

impl EmbeddedLeases {
    /// A stream that gives what `events` delivers.
    pub(super) fn start(
        attachment: Attachment,
        subscription: SubscriptionName,
        attached: &Attached,
        deadline: AckDeadline,
        events: UnboundedReceiver<Event>,
    ) -> Self {
        let (output, receiver) = tokio::sync::mpsc::channel(BATCHES_MAX);
        let engine = attachment.engine.clone();
        let batches = Batches { engine: engine.clone(), receiver };
        let deadline_ms = Arc::new(AtomicU32::new(deadline.ms()));
        let control =
            EmbeddedControl { engine: engine.clone(), consumer: attachment.consumer, deadline_ms: deadline_ms.clone() };
        let shows_attempts = attached.shows_attempts;
        let pump = Pump { engine, subscription, shows_attempts, deadline_ms, queue: VecDeque::new() };
        tokio::spawn(pump.run(events, output));
        let exactly_once = attached.exactly_once.clone();
        Self { attachment, batches, ordered: attached.ordered, exactly_once, control }
    }
}

impl Leases for EmbeddedLeases {
    type Control = EmbeddedControl;

    async fn next(&mut self) -> Result<Vec<Lease>, Error> {
        let (leases, last) = self.batches.receiver.recv().await.unwrap_or(Err(Error::Unavailable))?;
        self.attachment.seen = last;
        Ok(leases)
    }

    fn is_ordered(&self) -> bool {
        self.ordered
    }

    fn is_exactly_once(&self) -> bool {
        self.exactly_once.load(Ordering::Relaxed)
    }

    fn control(&self) -> EmbeddedControl {
        self.control.clone()
    }

    fn end(self, ending: Ending) {
        let Self { mut attachment, .. } = self;
        attachment.detach = match ending {
            Ending::Graceful => Detach::Graceful,
            Ending::ConnectionLost => Detach::ConnectionLost,
        };
    }
}

impl LeaseControl for EmbeddedControl {
    async fn set_ack_deadline(&self, deadline: AckDeadline) -> Result<(), Error> {
        self.deadline_ms.store(deadline.ms(), Ordering::Relaxed);
        let consumer = self.consumer;
        self.engine
            .ask(move |state| {
                state.core.handle_consumer_deadline(consumer, deadline);
                Ok::<_, Error>(())
            })
            .await
    }
}

/// What a delivery needs to become a lease of the API.
#[derive(Clone, Copy, Debug)]
struct Unsent {
    subscription: SubscriptionId,
    topic: TopicId,
    delivery: Delivery,
    since: Instant,
}

impl Unsent {
    fn reference(&self) -> AckRef {
        AckRef { subscription: self.subscription, seq: self.delivery.seq, lease: self.delivery.lease }
    }
}

/// Sits between the engine task, which never waits, and a reader that may be slow. What waits here is bounded by the
/// consumer's credit, and is a few words for each message: bodies are read only when there is room for them.
struct Pump {
    engine: Embedded,
    subscription: SubscriptionName,
    shows_attempts: bool,
    deadline_ms: Arc<AtomicU32>,
    queue: VecDeque<Unsent>,
}

impl Pump {
    async fn run(mut self, mut events: UnboundedReceiver<Event>, output: Sender<Result<Batch, Error>>) {
        let outcome = self.pass_on(&mut events, &output).await;
        // The core lets the leases of a consumer run that it has closed, for the client to settle what it has; these it
        // has not.
        let mut unsent: Vec<AckRef> = self.queue.iter().map(Unsent::reference).collect();
        events.close();
        while let Ok(event) = events.try_recv() {
            unsent.extend(event.refs());
        }
        Embedded::give_back(&self.engine, unsent);
        if let Err(error) = outcome {
            output.send(Err(error)).await.ok();
        }
    }

    async fn pass_on(
        &mut self,
        events: &mut UnboundedReceiver<Event>,
        output: &Sender<Result<Batch, Error>>,
    ) -> Result<(), Error> {
        let mut period = self.hold_period();
        let mut hold = interval(period);
        hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_in(event)?,
                    None => return Ok(()),
                },
                permit = output.reserve(), if !self.queue.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let batch = self.take();
                    let refs: Vec<AckRef> = batch.iter().map(|(reference, _, _)| *reference).collect();
                    let last = refs.last().map_or(0, |reference| reference.lease.number);
                    let leases = self.engine.leases(batch, self.shows_attempts).await?;
                    if output.is_closed() {
                        Embedded::give_back(&self.engine, refs);
                        return Ok(());
                    }
                    if !leases.is_empty() {
                        permit.send(Ok((leases, last)));
                    }
                }
                _ = hold.tick(), if !self.queue.is_empty() => {
                    self.keep_up().await?;
                    if self.hold_period() != period {
                        period = self.hold_period();
                        hold = interval(period);
                        hold.reset();
                        hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                () = output.closed() => return Ok(()),
            }
        }
    }

    fn take_in(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Delivered { subscription, topic, messages } => {
                let since = Instant::now();
                let unsent = |delivery| Unsent { subscription, topic, delivery, since };
                self.queue.extend(messages.into_iter().map(unsent));
                Ok(())
            }
            Event::Closed(error) => Err(error),
        }
    }

    /// As much as goes into one response, all from one topic.
    fn take(&mut self) -> Vec<(AckRef, TopicId, Delivery)> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(unsent) = self.queue.front().copied() {
            bytes += u64::from(unsent.delivery.bytes);
            if !batch.is_empty() && (bytes > RESPONSE_BYTES_MAX || batch.len() == RESPONSE_MESSAGES_MAX) {
                break;
            }
            self.queue.pop_front();
            batch.push((unsent.reference(), unsent.topic, unsent.delivery));
        }
        batch
    }

    /// Extends what waits for the reader: a message that its consumer has not even seen must not count as failed. One
    /// whose lease has ended all the same isn't sent any more.
    async fn keep_up(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.queue.retain(|unsent| now.duration_since(unsent.since) < UNSENT_HOLD_MAX);
        let refs: Vec<AckRef> = self.queue.iter().map(Unsent::reference).collect();
        let deadline_ms = self.deadline_ms.load(Ordering::Relaxed);
        let (_, outcomes) = self.engine.modify(self.subscription.clone(), vec![(deadline_ms, refs)]).await?;
        let mut outcomes = outcomes.into_iter();
        self.queue.retain(|_| outcomes.next() == Some(ModifyOutcome::Extended));
        Ok(())
    }

    /// Leases are extended twice before they would end.
    fn hold_period(&self) -> Duration {
        Duration::from_millis(u64::from(self.deadline_ms.load(Ordering::Relaxed)) / 3)
    }
}

/// What a consumer is told that the core has closed.
pub(super) fn closed(subscription: SubscriptionName, reason: CloseReason) -> Error {
    match reason {
        CloseReason::SubscriptionDeleted => broker_core::Error::SubscriptionNotFound(subscription),
        CloseReason::SubscriptionDetached => broker_core::Error::Detached(subscription),
        // Only clients are told; the broker itself knows.
        CloseReason::Switched => return Error::Taker { subscription, by: Taker::Client },
    }
    .into()
}

/// A lease as the API gives it out.
pub(super) fn lease_of(
    reference: AckRef,
    topic: TopicId,
    shows_attempts: bool,
    fetched: super::fetch::Fetched,
) -> Lease {
    Lease {
        ack_id: ack_id::encode(reference),
        message_id: message_id(topic, fetched.delivery.seq),
        publish_time_ms: fetched.time.0,
        attempt: shows_attempts.then_some(fetched.delivery.attempt),
        message: fetched.message,
    }
}
