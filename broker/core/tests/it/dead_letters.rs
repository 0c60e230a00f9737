//! What fails: backoff, and the way to the dead-letter topic.

use broker_core::*;

use crate::harness::{Received, World, plain, seqs, stream, topic_name};

const BACKOFF_MS: u32 = 1_000;

/// A subscription that gives a message up after five failed attempts, and one on the dead-letter topic.
fn world(ordering: bool) -> World {
    let mut world = World::new();
    world.topic("orders");
    world.topic("dead-letters");
    world.subscription("payment", "orders", |config| {
        config.ordering = ordering;
        config.retry = Some(RetryPolicy::new(BACKOFF_MS, BACKOFF_MS).unwrap());
        config.dead_letter = Some(DeadLetterPolicy::new(topic_name("dead-letters"), ATTEMPTS_MIN).unwrap());
    });
    world.subscription("operator", "dead-letters", |_| {});
    world
}

/// Fails the next delivery `times` times and gives the last one.
fn fail(world: &mut World, consumer: ConsumerId, times: u32) -> Received {
    let mut last = None;
    for _ in 0..times {
        let received = world.received(consumer);
        last = Some(received[0]);
        world.nack("payment", &received[..1]);
        world.advance_ms(u64::from(BACKOFF_MS));
    }
    last.unwrap()
}

#[test]
fn a_message_that_fails_too_often_goes_to_the_dead_letter_topic() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let operator = world.attach("operator", stream(0));
    let consumer = world.attach("payment", stream(0));
    let last = fail(&mut world, consumer, ATTEMPTS_MIN);
    assert_eq!(last.attempt, ATTEMPTS_MIN);
    assert!(world.received(consumer).is_empty());
    assert_eq!(seqs(&world.received(operator)), [1]);
    let stats = world.stats("payment");
    assert_eq!((stats.backlog_messages, stats.totals.dead_lettered, stats.totals.acked), (0, 1, 0));
    let dead_letters = world.broker.topic(&topic_name("dead-letters")).unwrap();
    let forwarded = Record::Forwarded {
        subscription: last.subscription,
        seq: Seq(1),
        to: dead_letters.id,
        as_seq: Seq(1),
        time: Time(1_004_000),
        bytes: 10,
        source_bytes: Some(10),
        filtered: Vec::new(),
    };
    assert!(world.records.contains(&forwarded), "{:?}", world.records);
    world.crash();
    assert_eq!(world.stats("payment").totals.dead_lettered, 1, "the count outlives a crash");
}

#[test]
fn an_outage_never_dead_letters_a_good_message() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    for round in 0..20 {
        let consumer = world.attach("payment", stream(0));
        assert_eq!(world.received(consumer)[0].attempt, 1);
        if round % 2 == 0 {
            world.detach(consumer, Detach::ConnectionLost);
        } else {
            world.crash();
        }
    }
    assert_eq!(world.stats("payment").totals, Totals::default());
}

#[test]
fn attempts_outlive_a_crash() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, 3);
    world.checkpoint();
    world.crash();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(fail(&mut world, consumer, 2).attempt, 5);
    assert_eq!(world.stats("payment").totals.dead_lettered, 1);
}

#[test]
fn a_crash_on_the_way_to_the_dead_letter_topic_is_made_up_for() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, ATTEMPTS_MIN - 1);
    world.prompt = false;
    world.sync();
    fail(&mut world, consumer, 1);
    world.sync();
    assert_eq!(world.stats("payment").forwarding_messages, 1);
    world.crash();
    world.prompt = true;
    let consumer = world.attach("payment", stream(0));
    assert!(world.received(consumer).is_empty());
    assert_eq!(world.stats("payment").totals.dead_lettered, 1);
    assert_eq!(world.stats("operator").backlog_messages, 1);
}

#[test]
fn a_stale_ack_overtakes_the_way_to_the_dead_letter_topic() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, ATTEMPTS_MIN - 1);
    world.prompt = false;
    let last = fail(&mut world, consumer, 1);
    assert_eq!(world.ack("payment", &[last]), [AckOutcome::Acked]);
    world.sync();
    world.answer_all();
    assert_eq!(world.stats("payment").totals.dead_lettered, 0);
    assert_eq!(world.stats("operator").backlog_messages, 0);
}

#[test]
fn without_its_dead_letter_topic_a_message_waits_and_is_tried_again() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, ATTEMPTS_MIN - 1);
    world.delete_topic("dead-letters").unwrap();
    fail(&mut world, consumer, 1);
    world.advance_ms(u64::from(FORWARD_RETRY_MS));
    assert!(world.received(consumer).is_empty());
    let stats = world.stats("payment");
    assert_eq!((stats.delayed_messages, stats.run.forward_retries), (1, 2));
    world.topic("dead-letters");
    world.advance_ms(u64::from(FORWARD_RETRY_MS));
    assert_eq!(world.stats("payment").totals.dead_lettered, 1);
}

#[test]
fn a_dead_letter_topic_that_goes_while_the_body_is_read_leaves_the_message_in_place() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, ATTEMPTS_MIN - 1);
    world.prompt = false;
    fail(&mut world, consumer, 1);
    world.delete_topic("dead-letters").unwrap();
    world.sync();
    world.answer_all();
    let stats = world.stats("payment");
    assert_eq!((stats.backlog_messages, stats.delayed_messages, stats.run.forward_retries), (1, 1, 1));
}

#[test]
fn a_dead_letter_unblocks_its_key() {
    let mut world = world(true);
    let key = Meta { bytes: 10, key: Some(KeyHash(1)) };
    world.publish("orders", &[key, key]).unwrap();
    let consumer = world.attach("payment", stream(0));
    fail(&mut world, consumer, ATTEMPTS_MIN - 1);
    world.prompt = false;
    fail(&mut world, consumer, 1);
    world.sync();
    assert!(world.received(consumer).is_empty(), "the key waits for the body to be read");
    world.answer_all();
    assert_eq!(seqs(&world.received(consumer)), [2]);
}

#[test]
fn a_failed_message_waits_for_the_end_of_its_backoff() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |config| {
        config.retry = Some(RetryPolicy::new(1_000, 4_000).unwrap());
    });
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    for (least_ms, most_ms) in [(1_000, 1_250), (2_000, 2_500), (4_000, 4_000), (4_000, 4_000)] {
        let received = world.received(consumer);
        world.nack("payment", &received);
        world.advance_ms(least_ms - 1);
        assert!(world.received(consumer).is_empty());
        world.advance_ms(most_ms - least_ms + 1);
        assert_eq!(world.stats("payment").outstanding_messages, 1);
    }
}

#[test]
fn a_message_that_is_acked_during_its_backoff_leaves_no_timer_behind() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.nack("payment", &received);
    assert_eq!(world.ack("payment", &received), [AckOutcome::Acked]);
    assert_eq!(world.broker.poll_timeout(), None);
}

#[test]
fn a_clock_that_went_back_between_two_runs_delays_no_longer_than_a_backoff_can() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.now = Time(1_000_000_000);
    world.nack("payment", &received);
    world.sync();
    let mut recovery = Recovery::new();
    for record in &world.records {
        recovery.apply(record).unwrap();
    }
    let (mut out, now) = (Output::new(), Time(5_000));
    let mut broker = recovery.begin(Limits::default(), 1, Time(0), &mut out);
    let name = broker.subscription_by_id(received[0].subscription).unwrap().config.name;
    broker.handle_attach(ConsumerId(1), &name, stream(0), now, &mut out).unwrap();
    broker.handle_loaded(received[0].subscription, Seq(1), &[(Seq(1), plain(10))], Seq(2), now, &mut out);
    assert_eq!(broker.poll_timeout(), Some(now.plus_ms(u64::from(BACKOFF_MS_MAX))));
    out.clear();
    broker.handle_timeout(now.plus_ms(u64::from(BACKOFF_MS_MAX)), &mut out);
    assert!(matches!(&out.effects[..], [Effect::Deliver { messages, .. }] if messages[0].attempt == 2));
}
