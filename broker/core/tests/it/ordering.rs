//! Messages of one ordering key arrive in the order of their publication.

use broker_core::*;

use crate::harness::{World, keyed, plain, pull, seqs, stream};

fn world(limits: Limits) -> World {
    let mut world = World::with_limits(limits);
    world.topic("orders");
    world.subscription("payment", "orders", |config| config.ordering = true);
    world
}

fn keys(world: &mut World, keys: &[u64]) {
    let metas: Vec<Meta> = keys.iter().map(|key| if *key == 0 { plain(10) } else { keyed(*key) }).collect();
    world.publish("orders", &metas).unwrap();
}

#[test]
fn several_of_a_key_may_be_out_but_only_to_one_consumer() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1, 1, 2, 2, 2]);
    let first = world.attach("payment", stream(2));
    let second = world.attach("payment", stream(10));
    let received = world.received(first);
    assert_eq!(seqs(&received), [1, 2]);
    assert_eq!(seqs(&world.received(second)), [4, 5, 6], "the third of the first key waits for its consumer");
    world.ack("payment", &received[..1]);
    assert_eq!(seqs(&world.received(first)), [3]);
}

#[test]
fn a_key_is_free_for_any_consumer_when_nothing_of_it_is_out() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1]);
    let first = world.attach("payment", stream(1));
    let received = world.received(first);
    let second = world.attach("payment", stream(1));
    keys(&mut world, &[2]);
    assert_eq!(seqs(&world.received(second)), [3]);
    world.detach(first, Detach::Graceful);
    assert!(world.received(second).is_empty());
    let third = world.attach("payment", stream(1));
    assert!(world.received(third).is_empty(), "the first message is still out");
    world.ack("payment", &received);
    assert_eq!(seqs(&world.received(third)), [2]);
}

#[test]
fn a_failed_message_takes_the_later_ones_of_its_key_back_without_a_failed_attempt() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1, 2, 1, 0, 1]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1, 2, 3, 4, 5, 6]);
    world.ack("payment", &received[5..]);
    world.nack("payment", &received[1..2]);
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [2, 4], "not what is acked, of another key, or earlier");
    assert_eq!((again[0].attempt, again[1].attempt), (2, 1));
    assert_eq!(world.stats("payment").run.revoked, 1);
    assert_eq!(world.ack("payment", &received[3..4]), [AckOutcome::Stale]);
    assert_eq!(world.ack("payment", &received[..1]), [AckOutcome::Acked]);
    assert_eq!(world.ack("payment", &again), [AckOutcome::Acked; 2]);
}

#[test]
fn of_messages_of_one_key_that_are_nacked_together_only_the_first_has_failed() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1, 1]);
    let consumer = world.attach("payment", stream(0));
    let mut received = world.received(consumer);
    received.reverse();
    let outcomes = world.nack("payment", &received);
    assert_eq!(outcomes, [ModifyOutcome::Stale, ModifyOutcome::Stale, ModifyOutcome::Nacked]);
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [1, 2, 3]);
    assert_eq!(again.iter().map(|received| received.attempt).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn an_expired_message_takes_the_later_ones_of_its_key_back() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.modify("payment", &received[1..], 600_000).unwrap();
    world.advance_ms(10_000);
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [1, 2]);
    assert_eq!((again[0].attempt, again[1].attempt), (2, 1));
    assert_eq!(world.ack("payment", &received[1..]), [AckOutcome::Stale]);
}

#[test]
fn a_delayed_message_blocks_its_key_and_no_other() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |config| {
        config.ordering = true;
        config.retry = Some(RetryPolicy::new(5_000, 5_000).unwrap());
    });
    keys(&mut world, &[1, 1, 2]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.nack("payment", &received[..1]);
    assert!(world.received(consumer).is_empty());
    keys(&mut world, &[1, 2, 0]);
    assert_eq!(seqs(&world.received(consumer)), [5, 6]);
    world.advance_ms(5_000);
    assert_eq!(seqs(&world.received(consumer)), [1, 2, 4]);
}

#[test]
fn a_lost_connection_returns_a_key_in_order() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 2, 1, 2, 1]);
    let lost = world.attach("payment", stream(0));
    let received = world.received(lost);
    world.ack("payment", &received[2..3]);
    world.detach(lost, Detach::ConnectionLost);
    keys(&mut world, &[1]);
    let consumer = world.attach("payment", stream(0));
    let again = world.received(consumer);
    assert!(again.iter().all(|received| received.attempt == 1));
    let of_key = |wanted: &[u64]| {
        let found: Vec<u64> = seqs(&again).into_iter().filter(|seq| wanted.contains(seq)).collect();
        assert_eq!(found, wanted);
    };
    of_key(&[1, 5, 6]);
    of_key(&[2, 4]);
    assert_eq!(again.len(), 5);
}

#[test]
fn what_is_given_back_unseen_comes_again_in_order() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 2, 1, 1]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    world.give_back(&received[2..3]);
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [3, 4], "the later one of the key is taken back with it");
    assert_eq!((again[0].attempt, again[1].attempt), (1, 1));
    let run = world.stats("payment").run;
    assert_eq!((run.returned, run.revoked), (1, 1));
}

#[test]
fn a_lease_of_an_earlier_run_acks_nothing_in_order() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.crash();
    assert_eq!(world.ack("payment", &received), [AckOutcome::Stale]);
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn a_key_blocked_by_a_failure_of_an_earlier_run_stays_in_order() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |config| {
        config.ordering = true;
        config.retry = Some(RetryPolicy::new(5_000, 5_000).unwrap());
    });
    keys(&mut world, &[1, 1, 2]);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.nack("payment", &received[..1]);
    world.crash();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [3]);
    world.advance_ms(5_000);
    let again = world.received(consumer);
    assert_eq!((seqs(&again), again[0].attempt), (vec![1, 2], 2));
}

#[test]
fn keys_do_not_count_where_ordering_is_off() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    let first = world.attach("payment", stream(1));
    let second = world.attach("payment", stream(1));
    keys(&mut world, &[1, 1]);
    assert_eq!((seqs(&world.received(first)), seqs(&world.received(second))), (vec![1], vec![2]));
}

#[test]
fn first_deliveries_stall_at_the_limit_of_parked_messages() {
    let mut world = world(Limits { parked_messages_max: 3, ..Limits::default() });
    keys(&mut world, &[1, 1, 1, 1, 1, 2, 2]);
    let slow = world.attach("payment", stream(1));
    let received = world.received(slow);
    let quick = world.attach("payment", stream(10));
    assert!(world.received(quick).is_empty(), "what the slow consumer must take stands in front");
    assert_eq!(world.stats("payment").parked_messages, 3);
    world.ack("payment", &received);
    assert_eq!(seqs(&world.received(quick)), [2, 3, 4, 5], "the key is free, so the next consumer takes it whole");
    assert_eq!(seqs(&world.received(slow)), [6]);
}

#[test]
fn a_pull_may_take_several_of_a_key_and_blocks_it_until_they_are_settled() {
    let mut world = world(Limits::default());
    keys(&mut world, &[1, 1, 1]);
    let first = world.attach("payment", pull(2));
    let received = world.received(first);
    assert_eq!(seqs(&received), [1, 2]);
    let second = world.attach("payment", pull(2));
    assert!(world.received(second).is_empty());
    world.ack("payment", &received[1..]);
    assert!(world.received(second).is_empty());
    world.ack("payment", &received[..1]);
    assert_eq!(seqs(&world.received(second)), [3]);
}
