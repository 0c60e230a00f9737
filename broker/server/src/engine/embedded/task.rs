//! The engine task: the one owner of the core. What comes of its commands gathers while the writer syncs, and is one batch
//! when the writer is free.
//!
//! **Invariant:** replies and effects reach nobody but through a batch, behind the records that they rest on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use broker_core::{
    AckRef, ConsumerId, Delivery, Effect, Meta, Output, Record, Seq, SubscriptionId, SubscriptionName, Time, TopicId,
};
use fail_points::Fault;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::carry::{Carried, Carry, Step};
use super::clock::Clock;
use super::codec::{self, Bodies};
use super::dead_letter::Provenance;
use super::failure::Failure;
use super::fetch::{Forward, Load};
use super::handover::Giver;
use super::leases::closed;
use super::store::Reader;
use super::writer::{Batch, Checkpoint, Done, Release};
use crate::engine::Error;

/// Commands that are taken from the queue at a time.
const TAKE_COMMANDS_MAX: usize = 256;

/// Something that changes or reads the state, and what it answers once that is durable.
pub(super) struct Command {
    pub(super) act: Act,
    /// The messages that the records of the command publish.
    pub(super) bodies: Bodies,
    /// Room in the queue, given back when the command is durable.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

pub(super) type Act = Box<dyn FnOnce(&mut State) -> Release + Send>;

/// What comes from inside the engine.
pub(super) enum Signal {
    /// Like a command from outside, but never refused.
    Command(Command),
    /// Something failed that can't be repaired here.
    Failed(Failure),
    /// A segment was read whose messages are to be written again.
    Carried(Carried),
}

/// What a consumer hears.
#[derive(Debug)]
pub(super) enum Event {
    /// It got leases.
    Delivered { subscription: SubscriptionId, topic: TopicId, messages: Vec<Delivery> },
    /// It is not attached any more.
    Closed(Error),
}

impl Event {
    /// The leases that it gives.
    pub(super) fn refs(&self) -> Vec<AckRef> {
        let Self::Delivered { subscription, messages, .. } = self else { return Vec::new() };
        let reference =
            |delivery: &Delivery| AckRef { subscription: *subscription, seq: delivery.seq, lease: delivery.lease };
        messages.iter().map(reference).collect()
    }
}

/// What a command works on.
pub(super) struct State {
    pub(super) core: broker_core::Broker,
    pub(super) out: Output,
    pub(super) now: Time,
    /// Where the deliveries of each consumer go.
    pub(super) consumers: HashMap<ConsumerId, Consumer>,
}

/// Where deliveries go.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) events: UnboundedSender<Event>,
    /// The core forgets it with its first delivery.
    pub(super) once: bool,
    pub(super) subscription: SubscriptionName,
    /// Whether the subscription delivers exactly once; follows its settings.
    pub(super) exactly_once: Arc<AtomicBool>,
}

/// The engine task.
pub(super) struct Task {
    pub(super) state: State,
    pub(super) clock: Clock,
    pub(super) commands: Receiver<Command>,
    pub(super) signals: UnboundedReceiver<Signal>,
    /// The other end of `signals`, for the jobs that answer through it.
    pub(super) signal: UnboundedSender<Signal>,
    pub(super) reader: Reader,
    pub(super) batches: Giver,
    pub(super) done: UnboundedReceiver<Done>,
    pub(super) stop: CancellationToken,
    /// Counts the changes of subscriptions.
    pub(super) changes: watch::Sender<u64>,
    /// A checkpoint is written when the journal has grown by this much.
    pub(super) checkpoint_bytes: u64,
    /// What was done since the last handover.
    pub(super) batch: Batch,
    pub(super) bytes_since_checkpoint: u64,
    /// Segments that are looked through for messages that are still alive.
    pub(super) carry: Option<Carry>,
    /// Segments that are not needed any more once the batch that is gathered is durable.
    pub(super) evacuated: BTreeSet<u64>,
}

impl Task {
    /// Takes over what the core put out when it began.
    pub(super) fn begin(&mut self) {
        self.write_records(Bodies::default());
        self.release_effects();
    }

    /// Works until it is told to stop, or something fails.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut taken = Vec::with_capacity(TAKE_COMMANDS_MAX);
        loop {
            let has_room = self.batches.has_room();
            if has_room && !self.batch.is_empty() {
                self.submit();
            }
            let timeout = self.state.core.poll_timeout().map(|time| self.clock.instant_of(time));
            tokio::select! {
                biased;
                done = self.done.recv() => self.written(done)?,
                () = self.batches.emptied(), if !has_room => {}
                Some(signal) = self.signals.recv() => self.hear(signal)?,
                () = sleep_until(timeout), if has_room => self.take_timeout(),
                () = self.stop.cancelled() => break,
                count = self.commands.recv_many(&mut taken, TAKE_COMMANDS_MAX), if has_room => {
                    if count == 0 {
                        break;
                    }
                    taken.drain(..).for_each(|command| self.take(command));
                }
                () = std::future::ready(()), if has_room && self.carry.is_some() => {}
            }
            if has_room {
                self.carry_on();
            }
        }
        self.finish().await
    }

    /// Takes what is queued already, and writes it with a checkpoint.
    async fn finish(mut self) -> Result<(), Failure> {
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.take(command);
        }
        while !self.batches.has_room() {
            tokio::select! {
                done = self.done.recv() => self.written(done)?,
                () = self.batches.emptied() => {}
            }
        }
        self.bytes_since_checkpoint = self.checkpoint_bytes;
        self.submit();
        // The writer closes the journal when there is nothing more to come, and its channel after that.
        drop(self.batches);
        while let Some(done) = self.done.recv().await {
            done?;
        }
        Ok(())
    }

    fn submit(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.bytes_since_checkpoint += batch.bytes();
        if self.bytes_since_checkpoint >= self.checkpoint_bytes {
            self.bytes_since_checkpoint = 0;
            batch.checkpoint = Some(self.checkpoint());
        }
        self.batches.put(batch);
    }

    /// The state after everything that the batch will make durable.
    fn checkpoint(&self) -> Checkpoint {
        let core = &self.state.core;
        let floor = |topic: TopicId| core.topic_floor(topic).map(|floor| (topic.0, floor.0));
        Checkpoint {
            state: codec::encode_checkpoint(&core.snapshot()),
            floors: core.topic_ids().filter_map(floor).collect::<BTreeMap<_, _>>(),
            evacuated: self.evacuated.clone(),
        }
    }

    fn written(&mut self, done: Option<Done>) -> Result<(), Failure> {
        if let Some(segments) = done.ok_or(Failure::Ended("the writer thread"))?? {
            self.evacuated.retain(|id| segments.iter().any(|segment| segment.id == *id));
            self.carry = Carry::choose(&segments, &self.evacuated);
        }
        Ok(())
    }

    fn hear(&mut self, signal: Signal) -> Result<(), Failure> {
        match signal {
            Signal::Command(command) => self.take(command),
            Signal::Failed(failure) => return Err(failure),
            Signal::Carried(Carried { segment, entries }) => {
                for (key, payload) in entries {
                    self.batch.put(Some(key), payload);
                }
                self.evacuated.insert(segment);
            }
        }
        Ok(())
    }

    fn take(&mut self, command: Command) {
        let Command { act, bodies, permit } = command;
        self.state.now = self.clock.now();
        let reply = act(&mut self.state);
        self.write_records(bodies);
        self.batch.release(reply);
        self.release_effects();
        if let Some(permit) = permit {
            self.batch.keep(permit);
        }
    }

    fn take_timeout(&mut self) {
        self.state.now = self.clock.now();
        self.state.core.handle_timeout(self.state.now, &mut self.state.out);
        self.write_records(Bodies::default());
        self.release_effects();
    }

    fn carry_on(&mut self) {
        let Some(carry) = self.carry.take() else { return };
        match carry.look(&self.state.core) {
            Step::More(carry) => self.carry = Some(carry),
            Step::End => {}
            Step::Move(load, carry) => {
                self.carry = Some(carry);
                let (reader, signal) = (self.reader.clone(), self.signal.clone());
                Handle::current().spawn_blocking(move || {
                    let answer = match load.run(&reader) {
                        Ok(Some(carried)) => Signal::Carried(carried),
                        Ok(None) => return,
                        Err(failure) => Signal::Failed(failure),
                    };
                    signal.send(answer).ok();
                });
            }
        }
    }

    /// Of the records that a command brings, one at most has messages.
    fn write_records(&mut self, mut bodies: Bodies) {
        for record in self.state.out.records.drain(..) {
            if fail_points::broken(Fault::BrokerForgetsAcks) && matches!(record, Record::Acked { .. }) {
                continue;
            }
            let bodies = match &record {
                Record::Published { .. } | Record::Forwarded { .. } | Record::Redriven { .. } => {
                    std::mem::take(&mut bodies)
                }
                _ => Bodies::default(),
            };
            codec::encode_record(&record, bodies, |key, payload| self.batch.put(key, payload));
            if changes_subscriptions(&record) {
                let changes = self.changes.clone();
                self.batch.release(Box::new(move || changes.send_modify(|count| *count += 1)));
            }
        }
    }

    fn release_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.state.out.effects);
        for effect in effects.drain(..) {
            if let Some(release) = self.release_of(effect) {
                self.batch.release(release);
            }
        }
        // Keeps the memory for the next time.
        self.state.out.effects = effects;
    }

    fn release_of(&mut self, effect: Effect) -> Option<Release> {
        let core = &self.state.core;
        match effect {
            Effect::Deliver { consumer, subscription, topic, messages } => {
                let events = self.state.deliver_to(consumer)?;
                let signal = self.signal.clone();
                Some(Box::new(move || {
                    let Err(unsent) = events.send(Event::Delivered { subscription, topic, messages }) else { return };
                    // The consumer has gone, and has never seen these.
                    let refs = unsent.0.refs();
                    let give_back = Command::internal(Bodies::default(), move |state| {
                        state.core.handle_give_back(&refs, state.now, &mut state.out);
                    });
                    signal.send(Signal::Command(give_back)).ok();
                }))
            }
            Effect::Load { subscription, topic, from, messages_max } => {
                let last = core.topic_by_id(topic)?.last;
                let signal = self.signal.clone();
                Some(self.job(Load { topic, from, messages_max, last }, move |load, reader| {
                    let (metas, next) = load.run(reader)?;
                    Ok(Command::internal(Bodies::default(), move |state: &mut State| {
                        if let Some(seq) = state.missing(subscription, from, &metas, next) {
                            signal.send(Signal::Failed(Failure::Missing { topic, seq })).ok();
                        }
                        state.core.handle_loaded(subscription, from, &metas, next, state.now, &mut state.out);
                    }))
                }))
            }
            Effect::Forward { subscription, topic, seq, to: _, attempts, reason } => {
                let source = core.subscription_by_id(subscription)?.config.name;
                let provenance = Provenance { source, attempts, reason };
                let forward = Forward { topic, seq, provenance };
                Some(self.job(forward, move |forward, reader| {
                    let (body, meta, attributes) = forward.run(reader)?;
                    Ok(Command::internal(body.into(), move |state: &mut State| {
                        let attribute = |key: &str| attributes.get(key).map(String::as_str);
                        state.core.handle_forwarded(subscription, seq, meta, attribute, state.now, &mut state.out);
                    }))
                }))
            }
            Effect::ConsumerClosed { consumer, reason } => {
                let Consumer { events, subscription, .. } = self.state.consumers.remove(&consumer)?;
                Some(Box::new(move || {
                    events.send(Event::Closed(closed(subscription, reason))).ok();
                }))
            }
        }
    }

    /// Reads from the journal, once that is allowed, and answers with a command.
    fn job<J: Send + 'static>(
        &self,
        job: J,
        run: impl FnOnce(&J, &Reader) -> Result<Command, Failure> + Send + 'static,
    ) -> Release {
        let (reader, signal, runtime) = (self.reader.clone(), self.signal.clone(), Handle::current());
        Box::new(move || {
            runtime.spawn_blocking(move || {
                let answer = run(&job, &reader).map_or_else(Signal::Failed, Signal::Command);
                signal.send(answer).ok();
            });
        })
    }
}

impl Command {
    /// A command that nobody waits for.
    pub(super) fn internal(bodies: Bodies, act: impl FnOnce(&mut State) + Send + 'static) -> Self {
        let act: Act = Box::new(move |state| {
            act(state);
            Box::new(|| {})
        });
        Self { act, bodies, permit: None }
    }
}

impl State {
    /// Of what a load has looked at and not found, the first message that its subscription has not settled. There is none
    /// unless the journal has lost something.
    pub(super) fn missing(
        &self,
        subscription: SubscriptionId,
        from: Seq,
        metas: &[(Seq, Meta)],
        next: Seq,
    ) -> Option<Seq> {
        let mut after = from;
        for end in metas.iter().map(|(seq, _)| *seq).chain([next]) {
            if after < end {
                let unacked = self.core.next_unacked(subscription, after).filter(|seq| *seq < end);
                if unacked.is_some() {
                    return unacked;
                }
            }
            after = end.next();
        }
        None
    }

    fn deliver_to(&mut self, consumer: ConsumerId) -> Option<UnboundedSender<Event>> {
        if self.consumers.get(&consumer)?.once {
            return self.consumers.remove(&consumer).map(|consumer| consumer.events);
        }
        self.consumers.get(&consumer).map(|consumer| consumer.events.clone())
    }
}

/// Whether a record may start or end a push.
fn changes_subscriptions(record: &Record) -> bool {
    matches!(
        record,
        Record::SubscriptionCreated { .. }
            | Record::SubscriptionUpdated { .. }
            | Record::SubscriptionDetached { .. }
            | Record::SubscriptionDeleted { .. }
    )
}

async fn sleep_until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
