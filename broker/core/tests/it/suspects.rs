//! Outage and poison are told apart: see docs/adr/0007.

use broker_core::*;

use crate::harness::{Received, World, keyed, plain, pull, seqs, stream, subscription_name, topic_name};

/// A subscription with a dead-letter policy at its strictest.
fn world(ordering: bool) -> World {
    let mut world = World::new();
    world.topic("orders");
    world.topic("dead-letters");
    world.subscription("payment", "orders", |config| {
        config.ordering = ordering;
        config.dead_letter = Some(DeadLetterPolicy::new(topic_name("dead-letters"), ATTEMPTS_MIN).unwrap());
    });
    world
}

/// Streams that get messages and are lost with them, until these are suspects.
fn lose(world: &mut World, times: u32) {
    for _ in 0..times {
        let consumer = world.attach("payment", stream(0));
        world.detach(consumer, Detach::ConnectionLost);
    }
}

/// A process that acks what it gets, `batch` messages at a time, until it gets the killer. Gives what it acked.
fn work(world: &mut World, consumer: ConsumerId, killer: u64) -> (Vec<u64>, bool) {
    let mut done = Vec::new();
    loop {
        let received = world.received(consumer);
        if received.is_empty() {
            return (done, false);
        }
        for one in &received {
            if one.seq == killer {
                return (done, true);
            }
            world.ack("payment", std::slice::from_ref(one));
            done.push(one.seq);
        }
    }
}

#[test]
fn a_deployment_that_crashes_in_a_loop_dead_letters_nothing() {
    for (lives_ms, down_ms) in [(0, 100), (100, 100), (900, 100), (4_900, 100), (2_000, 10_000)] {
        let mut world = world(false);
        world.publish("orders", &[plain(10); 20]).unwrap();
        let begin = world.now;
        while world.now.0 - begin.0 < 30_000 {
            let consumer = world.attach("payment", stream(10));
            world.advance_ms(lives_ms);
            world.detach(consumer, Detach::ConnectionLost);
            world.advance_ms(down_ms);
        }
        let stats = world.stats("payment");
        assert_eq!((stats.totals.dead_lettered, stats.totals.lost), (0, 0), "after lives of {lives_ms} ms");
        // The next deployment works: everything gets through, and nothing counts as tried before.
        let consumer = world.attach("payment", stream(10));
        let mut done = Vec::new();
        while world.stats("payment").backlog_messages > 0 {
            let received = world.received(consumer);
            assert!(received.iter().all(|received| received.attempt == 1));
            world.ack("payment", &received);
            done.extend(seqs(&received));
            assert!(world.now.0 - begin.0 < 60_000, "{done:?} is not all");
            world.advance_ms(100);
        }
        done.sort_unstable();
        assert_eq!(done, (1..=20).collect::<Vec<u64>>());
    }
}

#[test]
fn a_message_that_kills_its_consumer_ends_in_the_dead_letter_topic_and_the_good_ones_get_through() {
    const KILLER: u64 = 38;
    let mut world = world(false);
    world.publish("orders", &[plain(10); 101]).unwrap();
    let begin = world.now;
    let mut done = Vec::new();
    let mut last_good = begin;
    while world.stats("payment").backlog_messages > 0 {
        let consumer = world.attach("payment", stream(50));
        loop {
            let (acked, is_dead) = work(&mut world, consumer, KILLER);
            if !acked.is_empty() {
                last_good = world.now;
            }
            done.extend(acked);
            if is_dead || world.stats("payment").backlog_messages == 0 {
                break;
            }
            world.advance_ms(100);
            assert!(world.now.0 - begin.0 < 600_000, "{done:?}, and no end");
        }
        world.detach(consumer, Detach::ConnectionLost);
        world.advance_ms(1_000);
    }
    done.sort_unstable();
    assert_eq!(done, (1..=101).filter(|seq| *seq != KILLER).collect::<Vec<u64>>());
    let totals = world.stats("payment").totals;
    assert_eq!((totals.dead_lettered, totals.lost), (1, u64::from(ATTEMPTS_MIN)));
    assert!(last_good.0 - begin.0 < 20_000, "the good ones waited {} ms", last_good.0 - begin.0);
    let is_killer = |record: &Record| matches!(record, Record::Forwarded { seq: Seq(KILLER), .. });
    assert!(world.records.iter().any(is_killer));
}

#[test]
fn a_killer_that_is_alone_in_its_queue_ends_in_the_dead_letter_topic_too() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    let begin = world.now;
    while world.stats("payment").totals.dead_lettered == 0 {
        let consumer = world.attach("payment", stream(50));
        while world.received(consumer).is_empty() && world.stats("payment").totals.dead_lettered == 0 {
            world.advance_ms(100);
        }
        world.detach(consumer, Detach::ConnectionLost);
        assert!(world.now.0 - begin.0 < 300_000);
    }
    assert_eq!(world.stats("payment").totals.lost, u64::from(ATTEMPTS_MIN));
}

#[test]
fn a_message_is_a_suspect_after_so_many_losses_in_a_row() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 2]).unwrap();
    lose(&mut world, LOSSES_MAX - 1);
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [1, 2], "at once, and both");
    world.detach(consumer, Detach::ConnectionLost);
    let stats = world.stats("payment");
    assert_eq!((stats.delayed_messages, stats.run.returned), (2, 2 * u64::from(LOSSES_MAX)));
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    assert_eq!(world.stats("payment").suspect_messages, 2);
}

#[test]
fn a_nack_shows_that_the_consumer_lives_and_clears_the_suspicion() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX - 1);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.nack("payment", &received);
    world.detach(consumer, Detach::ConnectionLost);
    lose(&mut world, 1);
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [1], "it has been lost twice in a row only");
}

#[test]
fn a_suspect_waits_for_a_stream_that_has_shown_that_it_lives() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS - 1);
    assert!(world.received(consumer).is_empty());
    world.advance_ms(1);
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn a_stream_that_has_acked_something_need_not_wait() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    let consumer = world.attach("payment", stream(0));
    world.publish("orders", &[plain(10)]).unwrap();
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [2]);
    world.ack("payment", &received);
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn a_suspect_goes_out_alone_and_nothing_follows_until_it_is_settled() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 2]).unwrap();
    lose(&mut world, LOSSES_MAX);
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS);
    let first = world.received(consumer);
    assert_eq!(seqs(&first), [1]);
    world.publish("orders", &[plain(10)]).unwrap();
    assert!(world.received(consumer).is_empty());
    world.ack("payment", &first);
    let second = world.received(consumer);
    assert_eq!(seqs(&second), [2], "the next suspect");
    world.ack("payment", &second);
    assert_eq!(seqs(&world.received(consumer)), [3]);
}

#[test]
fn a_busy_stream_is_emptied_for_a_trial_but_not_for_ever() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    world.publish("orders", &[plain(10); 2]).unwrap();
    let busy: Vec<Received> = world.received(consumer);
    assert_eq!(seqs(&busy), [2, 3]);
    world.ack("payment", &busy[..1]);
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    world.publish("orders", &[plain(10)]).unwrap();
    assert!(world.received(consumer).is_empty(), "it is to run empty");
    world.modify("payment", &busy[1..], ACK_DEADLINE_MS_MAX).unwrap();
    world.advance_ms(TRIAL_DRAIN_MS);
    let fourth = world.received(consumer);
    assert_eq!(seqs(&fourth), [4], "it did not");
    world.ack("payment", &fourth);
    world.advance_ms(TRIAL_DRAIN_MS);
    world.ack("payment", &busy[1..]);
    assert_eq!(seqs(&world.received(consumer)), [1], "it did, the next time");
}

#[test]
fn at_most_half_of_the_consumers_are_busy_with_suspects() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 10]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumers: Vec<ConsumerId> = (0..4).map(|_| world.attach("payment", stream(0))).collect();
    world.advance_ms(TRIAL_AFTER_MS);
    let busy = consumers.iter().filter(|consumer| !world.received(**consumer).is_empty()).count();
    assert_eq!(busy, 2);
}

#[test]
fn a_suspect_that_is_lost_alone_waits_longer_each_time() {
    let mut world = world(false);
    world.subscription("patient", "orders", |_| {});
    world.publish("orders", &[plain(10)]).unwrap();
    for _ in 0..LOSSES_MAX {
        let consumer = world.attach("patient", stream(0));
        world.detach(consumer, Detach::ConnectionLost);
    }
    let mut waits = Vec::new();
    for _ in 0..8 {
        let consumer = world.attach("patient", stream(0));
        while world.received(consumer).is_empty() {
            assert!(world.advance_to_next());
        }
        world.detach(consumer, Detach::ConnectionLost);
        let Some(Record::Failed { not_before, reason: FailReason::Lost, .. }) = world.records.last() else {
            panic!("{:?}", world.records.last());
        };
        waits.push(not_before.0 - world.now.0);
    }
    assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
}

#[test]
fn a_longer_backoff_of_the_retry_policy_counts() {
    let mut world = world(false);
    world.update("payment", |config| config.retry = Some(RetryPolicy::new(90_000, 600_000).unwrap())).unwrap();
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    world.advance_ms(89_999);
    let stats = world.stats("payment");
    assert_eq!((stats.delayed_messages, stats.suspect_messages), (1, 0));
    world.advance_ms(1);
    assert_eq!(world.stats("payment").suspect_messages, 1);
}

#[test]
fn a_suspect_is_a_suspect_after_a_restart() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 2]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS);
    assert_eq!(seqs(&world.received(consumer)), [1]);
    world.detach(consumer, Detach::ConnectionLost);
    world.crash();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [2], "of this one no failed attempt was known");
    world.advance_ms(TRIAL_AFTER_MS);
    assert!(world.received(consumer).is_empty(), "there is another message on the stream");
}

#[test]
fn a_suspect_of_an_earlier_run_that_has_waited_long_enough_is_not_forgotten() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS);
    assert_eq!(seqs(&world.received(consumer)), [1]);
    world.detach(consumer, Detach::ConnectionLost);
    world.crash();
    world.advance_ms(SUSPECT_BACKOFF_MS_MAX);
    let consumer = world.attach("payment", stream(0));
    assert!(world.received(consumer).is_empty());
    world.advance_ms(TRIAL_AFTER_MS);
    assert_eq!(seqs(&world.received(consumer)), [1]);
}

#[test]
fn a_suspect_that_is_given_back_unseen_stays_a_suspect_and_is_not_blamed() {
    let mut world = world(false);
    world.publish("orders", &[plain(10)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS);
    let received = world.received(consumer);
    world.detach(consumer, Detach::Graceful);
    world.give_back(&received);
    let stats = world.stats("payment");
    assert_eq!((stats.suspect_messages, stats.totals.lost), (1, 0));
}

#[test]
fn what_never_left_the_broker_is_not_lost_with_a_connection() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 4]).unwrap();
    for _ in 0..2 * LOSSES_MAX {
        let consumer = world.attach("payment", stream(0));
        let received = world.received(consumer);
        assert_eq!(received.len(), 4, "none of them is held back as a suspect");
        world.detach_unseen(consumer, Detach::ConnectionLost, received[0].lease.number - 1);
    }
    for lost in 1..=LOSSES_MAX {
        let consumer = world.attach("payment", stream(0));
        let received = world.received(consumer);
        world.detach_unseen(consumer, Detach::ConnectionLost, received[0].lease.number);
        assert_eq!(
            world.stats("payment").suspect_messages + world.stats("payment").delayed_messages,
            usize::from(lost == LOSSES_MAX)
        );
    }
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [2, 3, 4]);
    world.detach_unseen(consumer, Detach::Graceful, 0);
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [2, 3, 4], "nobody waits for the deadline of what was never sent");
}

#[test]
fn a_pull_takes_a_suspect_alone_and_when_there_is_nothing_else() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 2]).unwrap();
    lose(&mut world, LOSSES_MAX);
    world.advance_ms(SUSPECT_BACKOFF_MS_MIN);
    world.publish("orders", &[plain(10); 2]).unwrap();
    let first = world.attach("payment", pull(10));
    assert_eq!(seqs(&world.received(first)), [3, 4]);
    let second = world.attach("payment", pull(10));
    assert_eq!(seqs(&world.received(second)), [1]);
}

#[test]
fn the_order_of_a_key_stands_while_its_head_is_a_suspect() {
    let mut world = world(true);
    world.publish("orders", &[keyed(1), keyed(2), keyed(1), keyed(2)]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    world.advance_ms(TRIAL_AFTER_MS);
    let mut order = Vec::new();
    for _ in 0..4 {
        let received = world.received(consumer);
        assert_eq!(received.len(), 1, "one after the other");
        world.ack("payment", &received);
        order.extend(seqs(&received));
    }
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn a_seek_forgets_suspicion() {
    let mut world = world(false);
    world.publish("orders", &[plain(10); 2]).unwrap();
    lose(&mut world, LOSSES_MAX);
    let consumer = world.attach("payment", stream(0));
    assert!(world.received(consumer).is_empty());
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert_eq!(seqs(&world.received(consumer)), [1, 2]);
    assert_eq!(world.broker.subscription(&subscription_name("payment")).unwrap().config.name.id(), "payment");
}
