//! The commands.

use broker_core::*;
use proptest::prelude::*;

use super::{SNAPSHOTS, SUBSCRIPTIONS, TOPICS, create_subscription, create_topic};
use crate::harness::{Received, World, snapshot_name, subscription_name, topic_name};

#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish {
        topic: usize,
        messages: Vec<(u32, u64)>,
    },
    Attach {
        subscription: usize,
        messages_max: u32,
        bytes_max: u64,
        pull: bool,
    },
    Detach {
        consumer: usize,
        connection_lost: bool,
    },
    ConsumerDeadline {
        consumer: usize,
        ms: u32,
    },
    Ack {
        picks: Vec<usize>,
    },
    Nack {
        picks: Vec<usize>,
    },
    GiveBack {
        picks: Vec<usize>,
    },
    NackAll {
        subscription: usize,
    },
    WearOut {
        subscription: usize,
    },
    Extend {
        picks: Vec<usize>,
        ms: u32,
    },
    Nonsense {
        subscription: usize,
        seq: u64,
        epoch: u32,
        number: u64,
    },
    Advance {
        ms: u64,
    },
    AdvanceToNext,
    Sync,
    Answer,
    Settle,
    CreateTopic {
        topic: usize,
    },
    DeleteTopic {
        topic: usize,
    },
    CreateSubscription {
        subscription: usize,
    },
    DeleteSubscription {
        subscription: usize,
    },
    KeepTopic {
        topic: usize,
        keep: bool,
    },
    Update {
        subscription: usize,
        retain_acked: bool,
        exactly_once: bool,
        retry_ms: Option<u32>,
    },
    DetachSubscription {
        subscription: usize,
    },
    SeekAfter {
        subscription: usize,
        percent: u64,
    },
    SeekSnapshot {
        subscription: usize,
        snapshot: usize,
    },
    CreateSnapshot {
        snapshot: usize,
        subscription: usize,
        lives_ms: u64,
    },
    UpdateSnapshot {
        snapshot: usize,
        lives_ms: u64,
    },
    DeleteSnapshot {
        snapshot: usize,
    },
    CutTopic {
        topic: usize,
        percent: u64,
    },
    CutSubscription {
        subscription: usize,
        percent: u64,
    },
    /// A dead letter goes back.
    Redrive {
        subscription: usize,
        place: usize,
        target: usize,
    },
    /// Streams that die some seconds after they came, one after the other.
    CrashLoop {
        subscription: usize,
        times: u32,
        lives_ms: u64,
    },
    Checkpoint,
    Crash,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let picks = || prop::collection::vec(0..1_000_usize, 1..6);
    let messages = prop::collection::vec((1..60_u32, 0..5_u64), 1..12);
    let topic = 0..TOPICS.len();
    let subscription = 0..SUBSCRIPTIONS.len();
    let attach = (subscription.clone(), 0..6_u32, prop_oneof![Just(0), 40..200_u64], prop::bool::weighted(0.3));
    prop_oneof![
        12 => (topic.clone(), messages).prop_map(|(topic, messages)| Op::Publish { topic, messages }),
        8 => attach.prop_map(|(subscription, messages_max, bytes_max, pull)| {
            Op::Attach { subscription, messages_max, bytes_max, pull }
        }),
        4 => (0..9_usize, any::<bool>())
            .prop_map(|(consumer, connection_lost)| Op::Detach { consumer, connection_lost }),
        1 => (0..9_usize, 10_000..40_000_u32).prop_map(|(consumer, ms)| Op::ConsumerDeadline { consumer, ms }),
        14 => picks().prop_map(|picks| Op::Ack { picks }),
        12 => picks().prop_map(|picks| Op::Nack { picks }),
        4 => picks().prop_map(|picks| Op::GiveBack { picks }),
        9 => subscription.clone().prop_map(|subscription| Op::NackAll { subscription }),
        6 => subscription.clone().prop_map(|subscription| Op::WearOut { subscription }),
        3 => (picks(), 1..30_000_u32).prop_map(|(picks, ms)| Op::Extend { picks, ms }),
        1 => (subscription.clone(), 0..40_u64, 0..4_u32, 0..60_u64)
            .prop_map(|(subscription, seq, epoch, number)| Op::Nonsense { subscription, seq, epoch, number }),
        5 => (0..30_000_u64).prop_map(|ms| Op::Advance { ms }),
        8 => Just(Op::AdvanceToNext),
        14 => Just(Op::Sync),
        14 => Just(Op::Answer),
        14 => Just(Op::Settle),
        1 => topic.clone().prop_map(|topic| Op::CreateTopic { topic }),
        1 => topic.prop_map(|topic| Op::DeleteTopic { topic }),
        2 => Just(Op::DeleteTopic { topic: 2 }),
        2 => subscription.clone().prop_map(|subscription| Op::CreateSubscription { subscription }),
        1 => subscription.prop_map(|subscription| Op::DeleteSubscription { subscription }),
        2 => (0..TOPICS.len(), any::<bool>()).prop_map(|(topic, keep)| Op::KeepTopic { topic, keep }),
        4 => (0..SUBSCRIPTIONS.len(), any::<bool>(), any::<bool>(), prop::option::of(500..4_000_u32)).prop_map(
            |(subscription, retain_acked, exactly_once, retry_ms)| {
                Op::Update { subscription, retain_acked, exactly_once, retry_ms }
            }
        ),
        1 => (0..SUBSCRIPTIONS.len()).prop_map(|subscription| Op::DetachSubscription { subscription }),
        3 => (0..SUBSCRIPTIONS.len(), 0..120_u64)
            .prop_map(|(subscription, percent)| Op::SeekAfter { subscription, percent }),
        3 => (0..SUBSCRIPTIONS.len(), 0..SNAPSHOTS.len())
            .prop_map(|(subscription, snapshot)| Op::SeekSnapshot { subscription, snapshot }),
        4 => (0..SNAPSHOTS.len(), 0..SUBSCRIPTIONS.len(), 1..100_000_u64)
            .prop_map(|(snapshot, subscription, lives_ms)| Op::CreateSnapshot { snapshot, subscription, lives_ms }),
        1 => (0..SNAPSHOTS.len(), 1..100_000_u64)
            .prop_map(|(snapshot, lives_ms)| Op::UpdateSnapshot { snapshot, lives_ms }),
        1 => (0..SNAPSHOTS.len()).prop_map(|snapshot| Op::DeleteSnapshot { snapshot }),
        2 => (0..TOPICS.len(), 0..120_u64).prop_map(|(topic, percent)| Op::CutTopic { topic, percent }),
        3 => (0..SUBSCRIPTIONS.len(), 0..120_u64)
            .prop_map(|(subscription, percent)| Op::CutSubscription { subscription, percent }),
        4 => (0..SUBSCRIPTIONS.len(), 1..6_u32, 0..8_000_u64)
            .prop_map(|(subscription, times, lives_ms)| Op::CrashLoop { subscription, times, lives_ms }),
        8 => (0..SUBSCRIPTIONS.len(), 0..9_usize, 0..SUBSCRIPTIONS.len())
            .prop_map(|(subscription, place, target)| Op::Redrive { subscription, place, target }),
        2 => Just(Op::Checkpoint),
        3 => Just(Op::Crash),
    ]
}

pub(super) fn step(world: &mut World, op: &Op) {
    match op {
        Op::Publish { topic, messages } => {
            let key = |key: u64| (key > 0).then_some(KeyHash(key));
            let metas: Vec<Meta> = messages.iter().map(|(bytes, k)| Meta { bytes: *bytes, key: key(*k) }).collect();
            let exists = world.model.topic_id(&topic_name(TOPICS[*topic])).is_some();
            assert_eq!(world.publish(TOPICS[*topic], &metas).is_ok(), exists);
        }
        Op::Attach { subscription, messages_max, bytes_max, pull } => {
            let kind = if *pull { ConsumerKind::Pull } else { ConsumerKind::Stream };
            let ack_deadline = AckDeadline::default();
            let attach = Attach { messages_max: *messages_max, bytes_max: *bytes_max, ack_deadline, kind };
            let exists = attached(world, *subscription).is_some();
            assert_eq!(world.try_attach(SUBSCRIPTIONS[*subscription], attach).is_ok(), exists);
        }
        Op::Detach { consumer: index, connection_lost } => {
            if let Some(id) = consumer(world, *index) {
                let leases = world.run.leases.values().filter(|lease| lease.consumer == id);
                let mut numbers: Vec<u64> = leases.map(|lease| lease.id.number).collect();
                numbers.sort_unstable();
                // About half of the consumers have not got the later half of what they were sent.
                let seen = numbers.get(numbers.len() / 2).filter(|number| *number % 2 == 0);
                let detach = if *connection_lost { Detach::ConnectionLost } else { Detach::Graceful };
                world.detach_unseen(id, detach, seen.copied().unwrap_or(u64::MAX));
            }
        }
        Op::ConsumerDeadline { consumer: index, ms } => {
            if let Some(id) = consumer(world, *index) {
                world.consumer_deadline(id, AckDeadline::from_ms(*ms).unwrap());
            }
        }
        Op::Ack { picks } => {
            if let Some((name, received)) = pick(world, picks) {
                world.ack(&name, &received);
            }
        }
        Op::Nack { picks } => {
            if let Some((name, received)) = pick(world, picks) {
                world.nack(&name, &received);
            }
        }
        Op::GiveBack { picks } => {
            if let Some((_, received)) = pick(world, picks) {
                world.give_back(&received);
            }
        }
        Op::NackAll { subscription } => nack_all(world, *subscription),
        Op::WearOut { subscription } => {
            for _ in 0..ATTEMPTS_MIN {
                nack_all(world, *subscription);
                world.sync();
                world.answer_all();
                world.advance_ms(8_000);
            }
        }
        Op::Extend { picks, ms } => {
            if let Some((name, received)) = pick(world, picks) {
                world.modify(&name, &received, *ms).unwrap();
            }
        }
        Op::Nonsense { subscription, seq, epoch, number } => nonsense(world, *subscription, *seq, *epoch, *number),
        Op::Advance { ms } => world.advance_ms(*ms),
        Op::AdvanceToNext => {
            world.advance_to_next();
        }
        Op::Sync => world.sync(),
        Op::Answer => {
            world.answer();
        }
        Op::Settle => {
            world.sync();
            world.answer_all();
        }
        Op::CreateTopic { topic } => create_topic(world, *topic),
        Op::DeleteTopic { topic } => {
            let _ = world.delete_topic(TOPICS[*topic]);
        }
        Op::CreateSubscription { subscription } => create_subscription(world, *subscription),
        Op::DeleteSubscription { subscription } => {
            let _ = world.delete_subscription(SUBSCRIPTIONS[*subscription]);
        }
        Op::Checkpoint => world.checkpoint(),
        Op::Crash => world.crash(),
        other => step_beyond(world, other),
    }
}

/// What an operator does, or time.
fn step_beyond(world: &mut World, op: &Op) {
    match op {
        Op::KeepTopic { topic, keep } => {
            let mut config = TopicConfig::new(topic_name(TOPICS[*topic]));
            config.retention = keep.then(Retention::default);
            let exists = world.model.topic_id(&config.name).is_some();
            assert_eq!(world.update_topic(config).is_ok(), exists);
        }
        Op::Update { subscription, retain_acked, exactly_once, retry_ms } => {
            let changed = world.update(SUBSCRIPTIONS[*subscription], |config| {
                config.retain_acked = *retain_acked;
                config.exactly_once = *exactly_once;
                config.retry = retry_ms.map(|ms| RetryPolicy::new(ms, 8_000).unwrap());
            });
            assert_eq!(
                changed.is_ok(),
                world.model.subscription_id(&subscription_name(SUBSCRIPTIONS[*subscription])).is_some()
            );
        }
        Op::DetachSubscription { subscription } => {
            let _ = world.detach_subscription(SUBSCRIPTIONS[*subscription]);
        }
        Op::SeekAfter { subscription, percent } => {
            let after = attached(world, *subscription).map_or(0, |id| last_of(world, id) * percent / 100);
            let sought = world.seek(SUBSCRIPTIONS[*subscription], SeekTo::After(Seq(after)));
            assert_eq!(sought.is_ok(), attached(world, *subscription).is_some());
        }
        Op::SeekSnapshot { subscription, snapshot } => {
            let name = snapshot_name(SNAPSHOTS[*snapshot]);
            let topic = attached(world, *subscription).map(|id| world.model.subscriptions[&id].topic);
            let fits = topic.is_some_and(|topic| world.model.topics[&topic].bookmarks.contains_key(&name));
            assert_eq!(world.seek(SUBSCRIPTIONS[*subscription], SeekTo::Snapshot(name)).is_ok(), fits);
        }
        Op::CreateSnapshot { snapshot, subscription, lives_ms } => {
            let _ = world.create_snapshot(SNAPSHOTS[*snapshot], SUBSCRIPTIONS[*subscription], *lives_ms);
        }
        Op::UpdateSnapshot { snapshot, lives_ms } => {
            let _ = world.update_snapshot(SNAPSHOTS[*snapshot], *lives_ms);
        }
        Op::DeleteSnapshot { snapshot } => {
            let _ = world.delete_snapshot(SNAPSHOTS[*snapshot]);
        }
        Op::CutTopic { topic, percent } => {
            if let Some(id) = world.model.topic_id(&topic_name(TOPICS[*topic])) {
                world.cut(Keeper::Topic(id), world.model.topics[&id].last * percent / 100);
            }
        }
        Op::CutSubscription { subscription, percent } => {
            if let Some(id) = world.model.subscription_id(&subscription_name(SUBSCRIPTIONS[*subscription])) {
                world.cut(Keeper::Subscription(id), last_of(world, id) * percent / 100);
            }
        }
        Op::CrashLoop { subscription, times, lives_ms } => {
            for _ in 0..*times {
                let Ok(consumer) = world.try_attach(SUBSCRIPTIONS[*subscription], crate::harness::stream(0)) else {
                    return;
                };
                world.sync();
                world.answer_all();
                world.advance_ms(*lives_ms);
                world.detach(consumer, Detach::ConnectionLost);
            }
        }
        Op::Redrive { subscription, place, target } => redrive(world, *subscription, *place, *target),
        other => panic!("not here: {other:?}"),
    }
}

/// A subscription that is there and not detached.
fn attached(world: &World, index: usize) -> Option<SubscriptionId> {
    let id = world.model.subscription_id(&subscription_name(SUBSCRIPTIONS[index]))?;
    (!world.model.subscriptions[&id].detached).then_some(id)
}

fn last_of(world: &World, id: SubscriptionId) -> u64 {
    world.model.topics[&world.model.subscriptions[&id].topic].last
}

/// Acks what was never delivered, with a lease that cannot have been given.
fn nonsense(world: &mut World, subscription: usize, seq: u64, epoch: u32, number: u64) {
    let Some(id) = attached(world, subscription) else { return };
    let name = SUBSCRIPTIONS[subscription];
    let lease = match epoch {
        0 => LeaseId { epoch: 0, number },
        1 => LeaseId { epoch: world.model.epoch + 1, number },
        2 => LeaseId { epoch: world.model.epoch, number: world.run.lease_last + 1 + number },
        _ => LeaseId { epoch: world.model.epoch, number: 0 },
    };
    let subscription = if number.is_multiple_of(2) { id } else { SubscriptionId(id.0 + 100) };
    world.ack_refs(name, &[AckRef { subscription, seq: Seq(seq), lease }]).unwrap();
}

fn redrive(world: &mut World, subscription: usize, place: usize, target: usize) {
    let Some(id) = attached(world, subscription) else { return };
    let seq = world.model.unacked(id).nth(place);
    let is_out = |seq: u64| world.run.leases.contains_key(&(id, Seq(seq)));
    let expected = match seq {
        None => Some(RedriveOutcome::NotUnacked),
        Some(seq) if is_out(seq) => Some(RedriveOutcome::Outstanding),
        _ if attached(world, target).is_some() => None,
        _ => {
            let name = subscription_name(SUBSCRIPTIONS[target]);
            let exists = world.model.subscription_id(&name).is_some();
            Some(if exists { RedriveOutcome::TargetDetached } else { RedriveOutcome::TargetNotFound })
        }
    };
    let seq = seq.unwrap_or(1_000_000);
    let outcome = world.redrive(SUBSCRIPTIONS[subscription], seq, SUBSCRIPTIONS[target]).unwrap();
    match (outcome, expected) {
        (RedriveOutcome::Redriven(..), None) => assert!(world.model.is_settled(id, Seq(seq))),
        // It may be on its way to the dead-letter topic as well.
        (RedriveOutcome::Outstanding, _) => assert!(!world.model.is_settled(id, Seq(seq))),
        (outcome, expected) => assert_eq!(Some(outcome), expected),
    }
}

fn nack_all(world: &mut World, index: usize) {
    let Some(id) = attached(world, index) else { return };
    let received = leased(world, |received| received.subscription == id);
    world.nack(SUBSCRIPTIONS[index], &received);
}

/// The deliveries whose leases stand.
fn leased(world: &World, filter: impl Fn(&Received) -> bool) -> Vec<Received> {
    let stands = |received: &&Received| {
        let lease = world.run.leases.get(&(received.subscription, Seq(received.seq)));
        lease.is_some_and(|lease| lease.id == received.lease)
    };
    world.history.iter().filter(stands).filter(|received| filter(received)).copied().collect()
}

/// Picks among the deliveries whose leases stand, or among all ever; all of the same subscription as the first.
fn pick(world: &World, picks: &[usize]) -> Option<(String, Vec<Received>)> {
    let first = *picks.first()?;
    let from = if first.is_multiple_of(3) { world.history.clone() } else { leased(world, |_| true) };
    let first = *from.get(first % from.len().max(1))?;
    let state = world.model.subscriptions.get(&first.subscription).filter(|state| !state.detached)?;
    let name = state.config.name.id().to_owned();
    let same: Vec<Received> = from.into_iter().filter(|other| other.subscription == first.subscription).collect();
    Some((name, picks.iter().map(|pick| same[pick % same.len()]).collect()))
}

fn consumer(world: &World, index: usize) -> Option<ConsumerId> {
    world.run.consumers.keys().copied().nth(index)
}
