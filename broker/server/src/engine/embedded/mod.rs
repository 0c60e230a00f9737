//! The engine inside the broker: `broker_core` decides, `broker_log` remembers.

mod ack_id;
#[cfg(feature = "benching")]
pub(crate) mod benching;
mod carry;
mod clock;
mod codec;
mod dead_letter;
mod failure;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handover;
mod inspect;
mod leases;
mod open;
mod place;
#[cfg(test)]
mod power;
mod pull;
mod scrub;
mod store;
mod task;
mod topology;
mod upkeep;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker_core::{
    AckOutcome, AckRef, Attach, ConsumerId, ConsumerKind, Delivery, Detach, Labels, Meta, ModifyOutcome, Policy,
    ProjectName, ResourceName, Seq, SnapshotName, SubscriptionConfig, SubscriptionName, Time, TopicConfig, TopicId,
    TopicName,
};
use fail_points::Point;
use tokio::sync::mpsc::{Sender, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};

use codec::Bodies;
pub(crate) use failure::Failure;
use inspect::Figures;
use leases::{Attached, Attachment, EmbeddedLeases, lease_of};
pub(crate) use open::{Options, Running, check, open};
use store::Reader;
pub(crate) use store::{Change, Mirror};
use task::{Act, Command, Consumer, Event, Signal, State};
use topology::subscription_of;
use writer::Release;

use super::{
    AckId, Body, Confirmation, DeadlineChange, Engine, Error, Flow, Lease, MessageId, MessageIds, Page, Peek, Peeked,
    Pull, Redrive, Redriven, Seek, Snapshot, Stats, Subscription, Taker,
};

/// Commands that wait for the engine task.
const QUEUE_COMMANDS_MAX: usize = 4_096;
/// Bytes of messages that wait for the engine task or for the disk.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// What the journal adds to a small message, roughly.
const BODY_MARGIN_BYTES: usize = 8;
/// The bits of a message id that number the message in its topic. The bits above number the topic.
const MESSAGE_ID_SEQ_BITS: u32 = 40;

/// A handle on the engine task.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    commands: Sender<Command>,
    /// For what must not be lost because the queue is full.
    signal: UnboundedSender<Signal>,
    queue_bytes: Arc<Semaphore>,
    consumer_last: Arc<AtomicU64>,
    figures: Arc<Figures>,
    /// Counts the changes of subscriptions.
    changes: watch::Sender<u64>,
    reader: Reader,
}

impl Embedded {
    /// Has the engine task do something, and waits until that is durable. Waits for a place in the queue as well.
    async fn ask<T: Send + 'static, E: Into<Error> + Send + 'static>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Error> {
        let (command, answer) = command(Bodies::default(), act);
        self.commands.send(command).await.map_err(|_| Error::Unavailable)?;
        answer.await.map_err(|_| Error::Unavailable)?.map_err(E::into)
    }

    /// Like [`ask`](Self::ask), but a full queue is an error, for callers who can slow down.
    async fn ask_now<T: Send + 'static, E: Into<Error> + Send + 'static>(
        &self,
        bodies: Bodies,
        act: impl FnOnce(&mut State) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Error> {
        let bytes = u32::try_from(bodies.bytes()).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queue_bytes).try_acquire_many_owned(bytes);
        let (mut command, answer) = command(bodies, act);
        command.permit = Some(permit.map_err(|_| Error::Busy("the queue of messages"))?);
        self.commands.try_send(command).map_err(|error| match error {
            tokio::sync::mpsc::error::TrySendError::Full(_) => Error::Busy("the queue of commands"),
            tokio::sync::mpsc::error::TrySendError::Closed(_) => Error::Unavailable,
        })?;
        answer.await.map_err(|_| Error::Unavailable)?.map_err(E::into)
    }

    /// Attaches a consumer that hears of its messages by `events`. The attachment ends it when it is dropped, also while
    /// this is under way; messages may have come by then.
    async fn attach(
        &self,
        subscription: SubscriptionName,
        attach: Attach,
        taker: Taker,
        events: UnboundedSender<Event>,
    ) -> Result<(Attachment, Attached), Error> {
        let consumer = ConsumerId(self.consumer_last.fetch_add(1, Ordering::Relaxed));
        let attachment = Attachment { engine: self.clone(), consumer, detach: Detach::Graceful, seen: 0 };
        let attached = self
            .ask(move |state| {
                let view = state.core.subscription(&subscription)?;
                if view.config.push.is_some() != (taker == Taker::Pusher) {
                    return Err(Error::Taker { subscription, by: taker });
                }
                state.core.handle_attach(consumer, &subscription, attach, state.now, &mut state.out)?;
                let exactly_once = Arc::new(AtomicBool::new(view.config.exactly_once));
                let once = attach.kind == ConsumerKind::Pull;
                let hears = Consumer { events, once, subscription, exactly_once: exactly_once.clone() };
                state.consumers.insert(consumer, hears);
                let shows_attempts = view.config.dead_letter.is_some();
                Ok::<_, Error>(Attached { ordered: view.config.ordering, shows_attempts, exactly_once })
            })
            .await?;
        Ok((attachment, attached))
    }

    /// Detaches a consumer. What it has on leases after `seen` never left the broker, and goes to others.
    fn detach(&self, consumer: ConsumerId, detach: Detach, seen: u64) {
        let command = Command::internal(Bodies::default(), move |state| {
            state.consumers.remove(&consumer);
            state.core.handle_detach_unseen(consumer, detach, seen, state.now, &mut state.out);
        });
        // An engine that has ended has no consumers.
        self.signal.send(Signal::Command(command)).ok();
    }

    /// Gives back messages that never left the broker, so that they count no attempt.
    fn give_back(&self, refs: Vec<AckRef>) {
        if refs.is_empty() {
            return;
        }
        let command = Command::internal(Bodies::default(), move |state| {
            state.core.handle_give_back(&refs, state.now, &mut state.out);
        });
        // An engine that has ended has no leases.
        self.signal.send(Signal::Command(command)).ok();
    }

    /// Moves deadlines; the outcomes stand in the order of the leases, group by group. Tells as well whether the
    /// subscription delivers exactly once.
    async fn modify(
        &self,
        subscription: SubscriptionName,
        groups: Vec<(u32, Vec<AckRef>)>,
    ) -> Result<(bool, Vec<ModifyOutcome>), Error> {
        self.ask(move |state| {
            let exactly_once = state.core.is_exactly_once(&subscription)?;
            let mut outcomes = Vec::new();
            for (deadline_ms, refs) in groups {
                let group = state.core.handle_modify(&subscription, &refs, deadline_ms, state.now, &mut state.out)?;
                outcomes.extend(group);
            }
            Ok::<_, broker_core::Error>((exactly_once, outcomes))
        })
        .await
    }

    /// Reads from the journal on a thread that may block. A failed read ends the engine.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.reader.clone();
        match tokio::task::spawn_blocking(move || read(&reader)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(failure)) => {
                self.signal.send(Signal::Failed(failure)).ok();
                Err(Error::Unavailable)
            }
            Err(_) => Err(Error::Unavailable),
        }
    }

    /// The messages of deliveries. One that was settled meanwhile may be missing; one that was not ends the engine.
    async fn leases(&self, batch: Vec<(AckRef, TopicId, Delivery)>, shows_attempts: bool) -> Result<Vec<Lease>, Error> {
        let read = move |reader: &Reader| {
            let mut leases = Vec::with_capacity(batch.len());
            let mut missing = Vec::new();
            for run in batch.chunk_by(|(_, one, _), (_, other, _)| one == other) {
                let Some(&(AckRef { subscription, .. }, topic, _)) = run.first() else { continue };
                let deliveries: Vec<Delivery> = run.iter().map(|(_, _, delivery)| *delivery).collect();
                for (delivery, fetched) in deliveries.iter().zip(fetch::fetch(reader, topic, &deliveries)?) {
                    let reference = AckRef { subscription, seq: delivery.seq, lease: delivery.lease };
                    match fetched {
                        Some(fetched) => leases.push(lease_of(reference, topic, shows_attempts, fetched)),
                        None => missing.push((topic, delivery.seq)),
                    }
                }
            }
            Ok((leases, missing))
        };
        let (leases, missing) = self.read(read).await?;
        self.check_settled(missing).await?;
        Ok(leases)
    }

    /// Ends the engine if one of the messages, which are not in the journal, is needed still.
    async fn check_settled(&self, missing: Vec<(TopicId, Seq)>) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let is_live = move |state: &mut State| {
            Ok::<_, Error>(missing.into_iter().find(|(topic, seq)| state.core.is_live(*topic, *seq)))
        };
        let Some((topic, seq)) = self.ask(is_live).await? else { return Ok(()) };
        self.signal.send(Signal::Failed(Failure::Missing { topic, seq })).ok();
        Err(Error::Unavailable)
    }
}

impl Engine for Embedded {
    type Leases = EmbeddedLeases;

    async fn create_topic(&self, config: TopicConfig) -> Result<(), Error> {
        self.ask_now(Bodies::default(), |state| state.core.handle_create_topic(config, &mut state.out).map(drop)).await
    }

    async fn topic(&self, name: TopicName) -> Result<TopicConfig, Error> {
        self.ask(move |state| state.core.topic(&name).map(|view| view.config)).await
    }

    async fn topics(&self, project: ProjectName, page: Page<TopicName>) -> Result<Vec<TopicConfig>, Error> {
        self.ask(move |state| {
            let found = state.core.topics(&project, page.after.as_ref(), page.limit);
            Ok::<_, Error>(found.into_iter().map(|view| view.config).collect())
        })
        .await
    }

    async fn update_topic(
        &self,
        name: TopicName,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Error> + Send + 'static,
    ) -> Result<TopicConfig, Error> {
        self.change_topic(name, change).await
    }

    async fn delete_topic(&self, name: TopicName) -> Result<(), Error> {
        self.ask_now(Bodies::default(), move |state| state.core.handle_delete_topic(&name, &mut state.out)).await
    }

    async fn create_subscription(&self, config: SubscriptionConfig) -> Result<(), Error> {
        let create =
            |state: &mut State| state.core.handle_create_subscription(config, state.now, &mut state.out).map(drop);
        self.ask_now(Bodies::default(), create).await
    }

    async fn subscription(&self, name: SubscriptionName) -> Result<Subscription, Error> {
        self.ask(move |state| Ok::<_, Error>(subscription_of(&state.core, state.core.subscription(&name)?))).await
    }

    async fn subscriptions(
        &self,
        project: ProjectName,
        page: Page<SubscriptionName>,
    ) -> Result<Vec<Subscription>, Error> {
        self.ask(move |state| {
            let found = state.core.subscriptions(&project, page.after.as_ref(), page.limit);
            Ok::<_, Error>(found.into_iter().map(|view| subscription_of(&state.core, view)).collect())
        })
        .await
    }

    async fn topic_subscriptions(
        &self,
        topic: TopicName,
        page: Page<SubscriptionName>,
    ) -> Result<Vec<SubscriptionName>, Error> {
        self.ask(move |state| state.core.topic_subscriptions(&topic, page.after.as_ref(), page.limit)).await
    }

    async fn update_subscription(
        &self,
        name: SubscriptionName,
        change: impl FnOnce(&SubscriptionConfig) -> Result<SubscriptionConfig, Error> + Send + 'static,
    ) -> Result<Subscription, Error> {
        self.change_subscription(name, change).await
    }

    async fn detach_subscription(&self, name: SubscriptionName) -> Result<(), Error> {
        self.ask_now(Bodies::default(), move |state| state.core.handle_detach_subscription(&name, &mut state.out)).await
    }

    async fn seek(&self, name: SubscriptionName, to: Seek) -> Result<(), Error> {
        self.go_to(name, to).await
    }

    async fn create_snapshot(
        &self,
        name: SnapshotName,
        subscription: SubscriptionName,
        labels: Labels,
    ) -> Result<Snapshot, Error> {
        self.take_snapshot(name, subscription, labels).await
    }

    async fn snapshot(&self, name: SnapshotName) -> Result<Snapshot, Error> {
        self.ask(move |state| state.core.snapshot_view(&name).map(Snapshot::from)).await
    }

    async fn snapshots(&self, project: ProjectName, page: Page<SnapshotName>) -> Result<Vec<Snapshot>, Error> {
        self.ask(move |state| {
            let found = state.core.snapshots(&project, page.after.as_ref(), page.limit);
            Ok::<_, Error>(found.into_iter().map(Snapshot::from).collect())
        })
        .await
    }

    async fn topic_snapshots(&self, topic: TopicName, page: Page<SnapshotName>) -> Result<Vec<SnapshotName>, Error> {
        self.ask(move |state| state.core.topic_snapshots(&topic, page.after.as_ref(), page.limit)).await
    }

    async fn update_snapshot(
        &self,
        name: SnapshotName,
        change: impl FnOnce(&Snapshot) -> Result<(Labels, Time), Error> + Send + 'static,
    ) -> Result<Snapshot, Error> {
        self.change_snapshot(name, change).await
    }

    async fn delete_snapshot(&self, name: SnapshotName) -> Result<(), Error> {
        self.ask_now(Bodies::default(), move |state| state.core.handle_delete_snapshot(&name, &mut state.out)).await
    }

    async fn delete_subscription(&self, name: SubscriptionName) -> Result<(), Error> {
        self.ask_now(Bodies::default(), move |state| state.core.handle_delete_subscription(&name, &mut state.out)).await
    }

    async fn publish(&self, topic: TopicName, messages: Vec<Body>) -> Result<MessageIds, Error> {
        let mut metas = Vec::with_capacity(messages.len());
        let bytes = messages.iter().map(|body| body.encoded().len() + BODY_MARGIN_BYTES);
        let mut bodies = Bodies::with_capacity(bytes.sum());
        // Where no message has any, none are kept.
        let mut attributes = Vec::new();
        for (at, body) in messages.iter().enumerate() {
            let encoded = body.encoded();
            bodies.push(encoded);
            let bytes = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
            if body.is_plain() {
                metas.push(Meta { bytes, key: None });
                continue;
            }
            metas.push(Meta { bytes, key: codec::hash_of(body.ordering_key()) });
            let its_attributes: HashMap<String, String> =
                body.attributes().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            if !its_attributes.is_empty() {
                attributes.resize_with(at, HashMap::new);
                attributes.push(its_attributes);
            }
        }
        drop(messages);
        let publish = move |state: &mut State| {
            let attribute = |at: usize, key: &str| attributes.get(at)?.get(key).map(String::as_str);
            state.core.handle_publish(&topic, &metas, attribute, state.now, &mut state.out)
        };
        let published = self.ask_now(bodies, publish).await?;
        Ok(MessageIds { first: id_number(published.topic, published.first), count: published.count })
    }

    async fn pull(&self, subscription: SubscriptionName, pull: Pull) -> Result<Vec<Lease>, Error> {
        self.pull_once(subscription, pull).await
    }

    async fn subscribe(&self, subscription: SubscriptionName, flow: Flow) -> Result<EmbeddedLeases, Error> {
        let Flow { messages_max, bytes_max, ack_deadline } = flow;
        let attach = Attach { messages_max, bytes_max, ack_deadline, kind: ConsumerKind::Stream };
        let (events, deliveries) = unbounded_channel();
        let (attachment, attached) = self.attach(subscription.clone(), attach, Taker::Client, events).await?;
        Ok(EmbeddedLeases::start(attachment, subscription, &attached, ack_deadline, deliveries))
    }

    async fn acknowledge(&self, subscription: SubscriptionName, ack_ids: Vec<AckId>) -> Result<Confirmation, Error> {
        fail_points::pass(Point::BrokerAcked);
        let refs = ack_ids.iter().map(ack_id::decode).collect::<Result<Vec<_>, _>>()?;
        let acknowledge = move |state: &mut State| {
            let exactly_once = state.core.is_exactly_once(&subscription)?;
            let outcomes = state.core.handle_ack(&subscription, &refs, state.now, &mut state.out)?;
            Ok::<_, broker_core::Error>((exactly_once, outcomes))
        };
        let (exactly_once, outcomes) = self.ask(acknowledge).await?;
        let is_done = |outcome| match outcome {
            AckOutcome::Acked | AckOutcome::AlreadyAcked => true,
            AckOutcome::Stale | AckOutcome::Unknown => false,
        };
        Ok(confirmation(exactly_once, ack_ids, outcomes.into_iter().map(is_done)))
    }

    async fn modify_ack_deadline(
        &self,
        subscription: SubscriptionName,
        mut changes: Vec<DeadlineChange>,
    ) -> Result<Confirmation, Error> {
        changes.sort_by_key(|change| change.deadline_ms);
        let mut groups = Vec::new();
        for group in changes.chunk_by(|one, other| one.deadline_ms == other.deadline_ms) {
            let refs = group.iter().map(|change| ack_id::decode(&change.ack_id)).collect::<Result<Vec<_>, _>>()?;
            groups.extend(group.first().map(|change| (change.deadline_ms, refs)));
        }
        let (exactly_once, outcomes) = self.modify(subscription, groups).await?;
        let is_done = |outcome| match outcome {
            ModifyOutcome::Extended | ModifyOutcome::Nacked => true,
            ModifyOutcome::Stale => false,
        };
        let ids = changes.into_iter().map(|change| change.ack_id).collect();
        Ok(confirmation(exactly_once, ids, outcomes.into_iter().map(is_done)))
    }

    fn give_back(&self, ack_ids: Vec<AckId>) {
        Embedded::give_back(self, ack_ids.iter().filter_map(|id| ack_id::decode(id).ok()).collect());
    }

    async fn pushed(&self) -> Result<Vec<Subscription>, Error> {
        self.ask(|state| {
            let views = state.core.subscription_ids().filter_map(|id| state.core.subscription_by_id(id));
            let pushed = views.filter(|view| view.config.push.is_some() && !view.detached);
            Ok::<_, Error>(pushed.map(|view| subscription_of(&state.core, view)).collect())
        })
        .await
    }

    fn push_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn policy(&self, resource: ResourceName) -> Result<Policy, Error> {
        self.ask(move |state| state.core.policy(&resource)).await
    }

    async fn update_policy(
        &self,
        resource: ResourceName,
        change: impl FnOnce(&Policy) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Result<Policy, Error> {
        self.ask_now(Bodies::default(), move |state| {
            let body = change(&state.core.policy(&resource)?)?;
            Ok::<_, Error>(state.core.handle_set_policy(&resource, body, &mut state.out)?)
        })
        .await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.figures().await
    }

    async fn peek(&self, subscription: SubscriptionName, peek: Peek) -> Result<Peeked, Error> {
        self.look_at(subscription, peek).await
    }

    async fn redrive(&self, subscription: SubscriptionName, redrive: Redrive) -> Result<Redriven, Error> {
        self.take_back(subscription, redrive).await
    }
}

fn confirmation(exactly_once: bool, ids: Vec<AckId>, is_done: impl Iterator<Item = bool>) -> Confirmation {
    let mut confirmation = Confirmation { exactly_once, ..Default::default() };
    if exactly_once {
        for (id, is_done) in ids.into_iter().zip(is_done) {
            if is_done { confirmation.done.push(id) } else { confirmation.failed.push(id) }
        }
    }
    confirmation
}

/// A command, and where its answer comes.
fn command<T: Send + 'static, E: Send + 'static>(
    bodies: Bodies,
    act: impl FnOnce(&mut State) -> Result<T, E> + Send + 'static,
) -> (Command, oneshot::Receiver<Result<T, E>>) {
    let (reply, answer) = oneshot::channel();
    let act: Act = Box::new(move |state| {
        // Whoever went away while this was in the queue wants nothing done, and would never learn what was.
        if reply.is_closed() {
            return Box::new(|| {}) as Release;
        }
        let result = act(state);
        Box::new(move || {
            // The caller may have gone; what was done stays done.
            reply.send(result).ok();
        })
    });
    (Command { act, bodies, permit: None }, answer)
}

fn message_id(topic: TopicId, seq: Seq) -> MessageId {
    MessageId(id_number(topic, seq).to_string())
}

fn id_number(topic: TopicId, seq: Seq) -> u64 {
    (u64::from(topic.0) << MESSAGE_ID_SEQ_BITS) | seq.0
}

#[cfg(test)]
mod tests;
