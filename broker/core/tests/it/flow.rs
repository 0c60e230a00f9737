//! Who gets how much: credit, fair shares, the window, and the limits of memory.

use broker_core::*;

use crate::harness::{World, plain, pull, seqs, stream, subscription_name};

fn world(limits: Limits) -> World {
    let mut world = World::with_limits(limits);
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world
}

fn publish(world: &mut World, count: usize) {
    for chunk in vec![plain(10); count].chunks(PUBLISH_MESSAGES_MAX) {
        world.publish("orders", chunk).unwrap();
    }
}

#[test]
fn a_consumer_never_holds_more_messages_than_it_asked_for() {
    let mut world = world(Limits::default());
    publish(&mut world, 10);
    let consumer = world.attach("payment", stream(3));
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1, 2, 3]);
    world.ack("payment", &received[..2]);
    assert_eq!(seqs(&world.received(consumer)), [4, 5]);
    world.advance_ms(10_000);
    assert_eq!(world.received(consumer).len(), 3, "expired leases give their credit back");
}

#[test]
fn a_consumer_never_holds_more_bytes_than_it_asked_for() {
    let mut world = world(Limits::default());
    publish(&mut world, 10);
    let consumer = world.attach("payment", Attach { bytes_max: 35, ..stream(0) });
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1, 2, 3]);
    world.ack("payment", &received[..1]);
    assert_eq!(seqs(&world.received(consumer)), [4]);
}

#[test]
fn a_message_larger_than_the_credit_goes_out_alone() {
    let mut world = world(Limits::default());
    world.publish("orders", &[plain(10), plain(1_000), plain(10)]).unwrap();
    let consumer = world.attach("payment", Attach { bytes_max: 100, ..stream(0) });
    let first = world.received(consumer);
    assert_eq!(seqs(&first), [1], "the large one waits until nothing else is out");
    world.ack("payment", &first);
    let large = world.received(consumer);
    assert_eq!(seqs(&large), [2]);
    world.ack("payment", &large);
    assert_eq!(seqs(&world.received(consumer)), [3]);
}

#[test]
fn a_consumer_without_a_limit_of_its_own_gets_the_one_of_the_broker() {
    for (asked, gets) in [(0, 50), (49, 49), (50, 50), (51, 50), (u32::MAX, 50)] {
        let mut world = world(Limits { consumer_messages_max: 50, ..Limits::default() });
        publish(&mut world, 100);
        let consumer = world.attach("payment", stream(asked));
        assert_eq!(world.received(consumer).len(), gets);
    }
    for asked in [0, CONSUMER_BYTES_MAX + 1] {
        let mut world = world(Limits::default());
        let half = u32::try_from(CONSUMER_BYTES_MAX / 2).unwrap();
        world.publish("orders", &[plain(half), plain(half), plain(1)]).unwrap();
        let consumer = world.attach("payment", Attach { bytes_max: asked, ..stream(0) });
        assert_eq!(seqs(&world.received(consumer)), [1, 2]);
    }
}

#[test]
fn competing_consumers_get_equal_shares_in_one_piece() {
    let mut world = world(Limits::default());
    let consumers: Vec<ConsumerId> = (0..4).map(|_| world.attach("payment", stream(0))).collect();
    publish(&mut world, 100);
    for (index, consumer) in consumers.iter().enumerate() {
        let first = index as u64 * 25 + 1;
        assert_eq!(seqs(&world.received(*consumer)), (first..first + 25).collect::<Vec<u64>>());
    }
    for _ in 0..8 {
        publish(&mut world, 1);
    }
    for consumer in consumers {
        assert_eq!(world.received(consumer).len(), 2, "single messages go round");
    }
}

#[test]
fn a_new_consumer_gets_from_the_backlog_at_once_while_a_slow_one_is_full() {
    let mut world = world(Limits::default());
    publish(&mut world, 10);
    let slow = world.attach("payment", stream(2));
    assert_eq!(seqs(&world.received(slow)), [1, 2]);
    let quick = world.attach("payment", stream(4));
    assert_eq!(seqs(&world.received(quick)), [3, 4, 5, 6]);
    world.advance_ms(1);
    publish(&mut world, 1);
    assert!(world.received(slow).is_empty());
}

#[test]
fn a_pull_is_answered_once_and_its_leases_run_on() {
    let mut world = world(Limits::default());
    publish(&mut world, 5);
    let first = world.attach("payment", pull(3));
    let received = world.received(first);
    assert_eq!(seqs(&received), [1, 2, 3]);
    assert_eq!(world.stats("payment").consumers, 0);
    let second = world.attach("payment", pull(10));
    assert_eq!(seqs(&world.received(second)), [4, 5]);
    let waiting = world.attach("payment", pull(10));
    assert!(world.received(waiting).is_empty());
    assert_eq!(world.ack("payment", &received[..1]), [AckOutcome::Acked]);
    world.advance_ms(10_000);
    assert_eq!(seqs(&world.received(waiting)), [2, 3, 4, 5]);
    world.detach(waiting, Detach::ConnectionLost);
    assert_eq!(world.stats("payment").run.returned, 0, "a pull that was answered is no longer attached");
}

#[test]
fn what_is_published_to_a_waiting_consumer_needs_no_load() {
    let mut world = world(Limits::default());
    let consumer = world.attach("payment", stream(0));
    publish(&mut world, 900);
    assert_eq!(world.received(consumer).len(), 900);
    assert!(!world.seen.contains("load"));
}

#[test]
fn a_backlog_is_loaded_piece_by_piece_and_never_held_whole() {
    let mut world = world(Limits::default());
    publish(&mut world, 5_000);
    assert_eq!(world.stats("payment").window_messages, WINDOW_IDLE_MESSAGES_MAX, "nobody is there to take them");
    let consumer = world.attach("payment", stream(100));
    let mut count = 0;
    loop {
        let received = world.received(consumer);
        if received.is_empty() {
            break;
        }
        let first = count + 1;
        count += received.len() as u64;
        assert_eq!(seqs(&received), (first..=count).collect::<Vec<u64>>());
        assert!(world.stats("payment").window_messages <= WINDOW_MESSAGES_MAX);
        world.ack("payment", &received);
    }
    assert_eq!(count, 5_000);
}

#[test]
fn a_subscription_has_one_load_under_way() {
    let mut world = world(Limits::default());
    publish(&mut world, 5_000);
    world.prompt = false;
    world.attach("payment", stream(10));
    world.attach("payment", stream(10));
    publish(&mut world, 10);
    world.sync();
    assert_eq!(world.todo.len(), 1);
    assert!(matches!(world.todo[0], Effect::Load { from: Seq(65), .. }), "{:?}", world.todo);
    world.answer();
    world.sync();
    assert_eq!(world.todo.len(), 0, "the window is full");
}

#[test]
fn an_answer_that_nobody_waits_for_is_ignored() {
    let mut world = world(Limits::default());
    publish(&mut world, 5_000);
    world.prompt = false;
    world.attach("payment", stream(10));
    let id = world.broker.subscription_ids().next().unwrap();
    let before = world.stats("payment");
    let mut out = Output::new();
    let metas = [(Seq(2), plain(10))];
    world.broker.handle_loaded(id, Seq(2), &metas, Seq(3), world.now, &mut out);
    world.broker.handle_loaded(SubscriptionId(99), Seq(65), &metas, Seq(3), world.now, &mut out);
    assert_eq!(world.broker.handle_forwarded(id, Seq(2), plain(10), |_| None, world.now, &mut out), None);
    assert!(out.records.is_empty() && out.effects.is_empty());
    assert_eq!(world.stats("payment"), before);
}

#[test]
fn a_load_leaps_over_what_is_acked() {
    let mut world = world(Limits { window_messages_max: 1_024, ..Limits::default() });
    publish(&mut world, 3_000);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[1..2_900]);
    world.crash();
    world.prompt = false;
    let consumer = world.attach("payment", stream(0));
    world.sync();
    world.answer();
    world.sync();
    assert_eq!(seqs(&world.received(consumer)), [1]);
    assert!(matches!(world.todo[0], Effect::Load { from: Seq(2_901), .. }), "{:?}", world.todo);
    world.answer();
    world.sync();
    assert_eq!(seqs(&world.received(consumer)), (2_901..=3_000).collect::<Vec<u64>>());
}

#[test]
fn a_subscription_has_no_more_out_than_its_limit() {
    let mut world = world(Limits { outstanding_messages_max: 5, ..Limits::default() });
    publish(&mut world, 10);
    let first = world.attach("payment", stream(4));
    let second = world.attach("payment", stream(4));
    let received = world.received(first);
    assert_eq!((received.len(), world.received(second).len()), (4, 1));
    world.ack("payment", &received[..2]);
    assert_eq!(world.received(first).len() + world.received(second).len(), 2);
}

#[test]
fn first_deliveries_stall_at_the_limit_of_delayed_messages_and_redeliveries_go_on() {
    let mut world = World::with_limits(Limits { delayed_messages_max: 3, ..Limits::default() });
    world.topic("orders");
    world.subscription("payment", "orders", |config| config.retry = Some(RetryPolicy::new(5_000, 5_000).unwrap()));
    publish(&mut world, 10);
    let consumer = world.attach("payment", stream(3));
    let received = world.received(consumer);
    world.nack("payment", &received);
    assert_eq!(world.stats("payment").delayed_messages, 3);
    assert!(world.received(consumer).is_empty(), "first deliveries stall");
    world.advance_ms(5_000);
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [1, 2, 3]);
    world.ack("payment", &again);
    assert_eq!(seqs(&world.received(consumer)), [4, 5, 6], "and go on when the delayed ones have drained");
}

#[test]
fn a_pull_that_was_answered_is_forgotten() {
    let mut world = world(Limits::default());
    publish(&mut world, 1);
    let id = world.attach("payment", pull(1));
    let mut out = Output::new();
    let again = world.broker.handle_attach(id, &subscription_name("payment"), pull(1), world.now, &mut out);
    assert!(again.is_ok(), "it would be refused if it were still attached: {again:?}");
}
