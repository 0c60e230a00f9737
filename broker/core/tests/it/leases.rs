//! Leases end in many ways, and each way means something else.

use broker_core::*;

use crate::harness::{Received, World, plain, seqs, stream, subscription_name};

/// A topic with one subscription and `count` messages.
fn world(count: usize) -> World {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    if count > 0 {
        world.publish("orders", &vec![plain(10); count]).unwrap();
    }
    world
}

fn attempts(received: &[Received]) -> Vec<u32> {
    received.iter().map(|received| received.attempt).collect()
}

#[test]
fn an_acked_message_does_not_come_back() {
    let mut world = world(3);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1, 2, 3]);
    assert_eq!(world.ack("payment", &received), [AckOutcome::Acked; 3]);
    assert_eq!(world.ack("payment", &received), [AckOutcome::AlreadyAcked; 3]);
    assert_eq!(world.broker.poll_timeout(), None, "no lease is left");
    world.crash();
    let consumer = world.attach("payment", stream(0));
    assert!(world.received(consumer).is_empty());
    assert_eq!(world.stats("payment").totals.acked, 3);
}

#[test]
fn an_expired_lease_is_a_failed_attempt() {
    let mut world = world(2);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    world.advance_ms(u64::from(ACK_DEADLINE_MS_DEFAULT) - 1);
    assert!(world.received(consumer).is_empty(), "the deadline has not passed yet");
    world.advance_ms(1);
    let again = world.received(consumer);
    assert_eq!((seqs(&again), attempts(&again)), (vec![2], vec![2]));
    assert_ne!(again[0].lease, received[1].lease);
    assert_eq!(world.stats("payment").totals, Totals { acked: 1, expired: 1, ..Totals::default() });
}

#[test]
fn a_nack_is_a_failed_attempt_and_comes_back_at_once() {
    let mut world = world(2);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    assert_eq!(world.nack("payment", &received[1..]), [ModifyOutcome::Nacked]);
    assert_eq!(world.nack("payment", &received[1..]), [ModifyOutcome::Stale], "that lease is over");
    let again = world.received(consumer);
    assert_eq!((seqs(&again), attempts(&again)), (vec![2], vec![2]));
    assert_eq!(world.stats("payment").totals.nacked, 1);
}

#[test]
fn what_is_given_back_unseen_counts_no_attempt_and_goes_to_another_consumer() {
    let mut world = world(3);
    let first = world.attach("payment", stream(0));
    let received = world.received(first);
    world.ack("payment", &received[..1]);
    world.detach(first, Detach::Graceful);
    let second = world.attach("payment", stream(0));
    assert!(world.received(second).is_empty(), "the leases of the first run on");
    world.give_back(&received);
    let again = world.received(second);
    assert_eq!((seqs(&again), attempts(&again)), (vec![2, 3], vec![1, 1]));
    world.give_back(&received);
    assert!(world.received(second).is_empty(), "those leases are over");
    assert_eq!(world.stats("payment").totals, Totals { acked: 1, ..Totals::default() });
    assert_eq!(world.stats("payment").run.returned, 2);
}

#[test]
fn redeliveries_go_before_first_deliveries() {
    let mut world = world(4);
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1, 2]);
    world.nack("payment", &[received[1], received[0]]);
    assert_eq!(seqs(&world.received(consumer)), [1, 2]);
}

#[test]
fn an_extension_counts_from_now() {
    let mut world = world(1);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.advance_ms(9_000);
    assert_eq!(world.modify("payment", &received, 3_000), Ok(vec![ModifyOutcome::Extended]));
    world.advance_ms(2_999);
    assert!(world.received(consumer).is_empty());
    world.advance_ms(1);
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn an_extension_is_taken_up_to_its_limit_and_not_beyond() {
    let mut world = world(1);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    assert!(matches!(
        world.modify("payment", &received, ACK_DEADLINE_MS_MAX + 1),
        Err(Error::InvalidArgument { field: "ack_deadline_seconds", .. })
    ));
    assert_eq!(world.modify("payment", &received, ACK_DEADLINE_MS_MAX), Ok(vec![ModifyOutcome::Extended]));
    assert_eq!(world.broker.poll_timeout(), Some(world.now.plus_ms(u64::from(ACK_DEADLINE_MS_MAX))));
}

#[test]
fn a_stale_lease_still_acks_and_ends_the_lease_that_followed() {
    let mut world = world(1);
    let first = world.attach("payment", stream(0));
    let received = world.received(first);
    world.detach(first, Detach::Graceful);
    let second = world.attach("payment", stream(0));
    world.advance_ms(10_000);
    let again = world.received(second);
    assert_eq!(seqs(&again), [1]);
    assert_eq!(world.ack("payment", &received), [AckOutcome::Acked]);
    assert_eq!(world.stats("payment").outstanding_messages, 0);
    assert_eq!(world.modify("payment", &again, 60_000), Ok(vec![ModifyOutcome::Stale]));
    assert_eq!(world.ack("payment", &again), [AckOutcome::AlreadyAcked]);
}

#[test]
fn a_lease_of_an_earlier_run_still_acks_before_the_message_is_looked_at_again() {
    let mut world = world(3);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.crash();
    assert_eq!(world.nack("payment", &received[..1]), [ModifyOutcome::Stale]);
    let twice = [received[1], received[1], received[2]];
    assert_eq!(world.ack("payment", &twice), [AckOutcome::Acked, AckOutcome::AlreadyAcked, AckOutcome::Acked]);
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn a_message_that_is_acked_while_it_waits_for_its_first_delivery_is_passed_over() {
    let mut world = world(3);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.crash();
    let consumer = world.attach("payment", stream(1));
    assert_eq!(world.stats("payment").window_messages, 2);
    assert_eq!(world.ack("payment", &received[1..2]), [AckOutcome::Acked]);
    let first = world.received(consumer);
    world.ack("payment", &first);
    assert_eq!(seqs(&world.received(consumer)), [3]);
}

#[test]
fn a_message_that_is_acked_twice_in_one_call_is_acked_once() {
    let mut world = world(1);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    let twice = [received[0], received[0]];
    assert_eq!(world.ack("payment", &twice), [AckOutcome::Acked, AckOutcome::AlreadyAcked]);
    assert_eq!(world.stats("payment").totals.acked, 1);
}

#[test]
fn refs_that_were_never_given_ack_nothing() {
    let mut world = world(3);
    let other = world.subscription("other", "orders", |_| {});
    let consumer = world.attach("payment", stream(1));
    let received = world.received(consumer)[0];
    let good = received.ack_ref();
    let epoch = good.lease.epoch;
    let nonsense = [
        AckRef { subscription: other, ..good },
        AckRef { seq: Seq(0), ..good },
        AckRef { seq: Seq(4), ..good },
        AckRef { seq: Seq(3), ..good },
        AckRef { lease: LeaseId { epoch: epoch + 1, ..good.lease }, ..good },
        AckRef { lease: LeaseId { epoch: 0, ..good.lease }, ..good },
        AckRef { lease: LeaseId { number: 0, ..good.lease }, ..good },
        AckRef { lease: LeaseId { number: good.lease.number + 1, ..good.lease }, ..good },
    ];
    let before = world.broker.snapshot();
    assert_eq!(world.ack_refs("payment", &nonsense), Ok(vec![AckOutcome::Unknown; nonsense.len()]));
    assert_eq!(world.broker.snapshot(), before);
    assert_eq!(world.stats("payment").outstanding_messages, 1);
}

#[test]
fn a_lost_connection_returns_its_leases_at_once_and_counts_no_attempt() {
    let mut world = world(3);
    let lost = world.attach("payment", stream(0));
    let received = world.received(lost);
    world.nack("payment", &received[..1]);
    world.received(lost);
    let other = world.attach("payment", stream(0));
    world.detach(lost, Detach::ConnectionLost);
    let again = world.received(other);
    assert_eq!((seqs(&again), attempts(&again)), (vec![1, 2, 3], vec![2, 1, 1]));
    let stats = world.stats("payment");
    assert_eq!((stats.run.returned, stats.totals.nacked, stats.totals.expired), (3, 1, 0));
}

#[test]
fn the_leases_of_a_consumer_that_says_goodbye_run_on() {
    let mut world = world(2);
    let leaving = world.attach("payment", stream(0));
    let received = world.received(leaving);
    let other = world.attach("payment", stream(0));
    world.detach(leaving, Detach::Graceful);
    assert!(world.received(other).is_empty());
    assert_eq!(world.ack("payment", &received[..1]), [AckOutcome::Acked]);
    world.advance_ms(10_000);
    let again = world.received(other);
    assert_eq!((seqs(&again), attempts(&again)), (vec![2], vec![2]));
}

#[test]
fn a_new_ack_deadline_holds_for_later_leases() {
    let mut world = world(1);
    let consumer = world.attach("payment", stream(0));
    world.consumer_deadline(consumer, AckDeadline::from_ms(60_000).unwrap());
    world.publish("orders", &[plain(10)]).unwrap();
    world.received(consumer);
    world.advance_ms(10_000);
    assert_eq!(seqs(&world.received(consumer)), [1], "the first lease still had the old deadline");
    world.advance_ms(49_999);
    assert!(world.received(consumer).is_empty());
    world.advance_ms(1);
    assert_eq!(seqs(&world.received(consumer)), [2]);
}

#[test]
fn a_mass_expiry_is_worked_off_in_bounded_calls() {
    let mut world = World::with_limits(Limits { timeouts_max: 100, ..Limits::default() });
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world.publish("orders", &[plain(1); 150]).unwrap();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(world.received(consumer).len(), 150);
    let now = world.now.plus_ms(10_000);
    let mut out = Output::new();
    world.broker.handle_timeout(now, &mut out);
    assert_eq!(out.records.len(), 100);
    assert_eq!(world.broker.poll_timeout(), Some(now), "the rest is due at once");
    world.broker.handle_timeout(now, &mut out);
    assert_eq!(out.records.len(), 150);
}

#[test]
fn a_consumer_id_is_attached_once() {
    let mut world = world(0);
    let consumer = world.attach("payment", stream(1));
    let mut out = Output::new();
    let again = world.broker.handle_attach(consumer, &subscription_name("payment"), stream(1), world.now, &mut out);
    assert_eq!(again, Err(Error::ConsumerAttached(consumer)));
}
