//! Random commands, with crashes among them. What must hold at each step is asserted by the harness.

mod ops;

use std::cell::RefCell;
use std::collections::BTreeMap;

use broker_core::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{World, subscription_name, topic_name};
use ops::{Op, op, step};

const TOPICS: [&str; 3] = ["orders", "payments", "dead-letters"];
const SUBSCRIPTIONS: [&str; 8] =
    ["plain", "ordered", "retried", "ordered-retried", "operator", "filtered", "exact", "operator-filtered"];
const SNAPSHOTS: [&str; 3] = ["monday", "tuesday", "friday"];

fn small_limits() -> Limits {
    Limits {
        outstanding_messages_max: 12,
        delayed_messages_max: 5,
        parked_messages_max: 4,
        window_messages_max: 8,
        window_idle_messages_max: 3,
        consumer_messages_max: 10,
        timeouts_max: 3,
        ..Limits::default()
    }
}

fn create_subscription(world: &mut World, index: usize) {
    let (topic, ordering, retry, filter) = [
        (0, false, false, None),
        (0, true, false, None),
        (1, false, true, None),
        (0, true, true, None),
        (2, true, false, None),
        (0, false, true, Some("attributes.parity = \"odd\"")),
        (1, false, false, None),
        (2, false, false, Some("NOT attributes.parity = \"odd\"")),
    ][index];
    let exists = |index: usize| world.model.topic_id(&topic_name(TOPICS[index])).is_some();
    if !exists(topic)
        || (retry && !exists(2))
        || world.model.subscription_id(&subscription_name(SUBSCRIPTIONS[index])).is_some()
    {
        return;
    }
    world.subscription(SUBSCRIPTIONS[index], TOPICS[topic], |config| {
        config.ordering = ordering;
        config.filter = filter.map(|filter| filter.parse().unwrap());
        config.exactly_once = index == 6;
        config.retain_acked = index == 6;
        if retry {
            config.retry = Some(RetryPolicy::new(1_000, 8_000).unwrap());
            config.dead_letter = Some(DeadLetterPolicy::new(topic_name("dead-letters"), ATTEMPTS_MIN).unwrap());
        }
    });
}

fn create_topic(world: &mut World, index: usize) {
    if world.model.topic_id(&topic_name(TOPICS[index])).is_none() {
        world.topic(TOPICS[index]);
    }
}

/// Consumers that do all they should must get everything that is not settled.
fn drain(world: &mut World) {
    world.sync();
    let consumers: Vec<ConsumerId> = world.run.consumers.keys().copied().collect();
    for consumer in consumers {
        world.detach(consumer, Detach::Graceful);
    }
    for index in 0..TOPICS.len() {
        create_topic(world, index);
    }
    for name in SUBSCRIPTIONS {
        // A detached one has nothing to drain.
        let _ = world.try_attach(name, crate::harness::stream(0));
    }
    for _ in 0..2_000 {
        world.sync();
        world.answer_all();
        let consumers: Vec<(ConsumerId, SubscriptionId)> =
            world.run.consumers.iter().map(|(id, attached)| (*id, attached.subscription)).collect();
        let mut idle = true;
        for (consumer, subscription) in consumers {
            let received = world.received(consumer);
            let name = world.model.subscriptions[&subscription].config.name.id().to_owned();
            if !received.is_empty() {
                world.ack(&name, &received);
                idle = false;
            }
        }
        world.sync();
        if idle && world.todo.is_empty() && !world.advance_to_next() {
            break;
        }
    }
    for id in world.model.subscriptions.keys() {
        assert_eq!(world.model.backlog(*id), 0, "subscription {id} never got some of its messages");
    }
}

fn run(ops: &[Op]) -> World {
    let mut world = World::with_limits(small_limits());
    for index in 0..TOPICS.len() {
        create_topic(&mut world, index);
    }
    for index in 0..SUBSCRIPTIONS.len() {
        create_subscription(&mut world, index);
    }
    world.prompt = false;
    for (count, op) in ops.iter().enumerate() {
        step(&mut world, op);
        if count % 8 == 0 || matches!(op, Op::Crash | Op::Checkpoint) {
            world.check_replay();
        }
    }
    world.check_replay();
    drain(&mut world);
    world.check_replay();
    world.crash();
    drain(&mut world);
    world
}

/// What the random commands must come to, or they prove little.
const REACHED: [&str; 35] = [
    "a suspect was lost",
    "acked",
    "acked by a lease of an earlier run",
    "already acked",
    "consumer closed",
    "delayed full",
    "expired",
    "forward retried",
    "filtered",
    "forwarded",
    "forwarded and filtered",
    "load",
    "lost alone",
    "nacked",
    "outstanding full",
    "parked full",
    "reckoned",
    "records lost in a crash",
    "redriven",
    "returned",
    "revoked",
    "snapshot created",
    "snapshot deleted",
    "snapshot updated",
    "sought to a number",
    "sought to a snapshot",
    "stale",
    "subscription cut",
    "subscription detached",
    "subscription updated",
    "suspected",
    "topic cut",
    "topic updated",
    "unknown",
    "window full",
];

#[test]
fn nothing_durable_is_lost_and_nothing_acked_comes_back() {
    let config = Config { failure_persistence: None, ..Config::default() };
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let outcome = TestRunner::new(config).run(&proptest::collection::vec(op(), 1..160), |ops| {
        for what in run(&ops).seen {
            *seen.borrow_mut().entry(what).or_default() += 1;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    for what in REACHED {
        assert!(seen.contains_key(what), "no run came to `{what}`: {seen:?}");
    }
}
