//! How large a backlog is, and how fast it moves.

use broker_core::*;

use crate::harness::{World, plain, stream};

fn world() -> World {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world
}

#[test]
fn the_size_of_a_backlog_is_counted_and_outlives_checkpoint_and_crash() {
    let mut world = world();
    world.publish("orders", &[plain(10), plain(200), plain(3_000)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[1..2]);
    let size = |world: &World| (world.stats("payment").backlog_bytes, world.stats("payment").backlog_bytes_exact);
    assert_eq!(size(&world), (3_010, true));
    world.checkpoint();
    world.crash();
    assert_eq!(size(&world), (3_010, true));
    world.subscription("late", "orders", |_| {});
    assert_eq!(world.stats("late").backlog_bytes, 0);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received);
    assert_eq!(size(&world), (0, true));
}

#[test]
fn the_size_after_a_seek_is_reckoned_until_the_backlog_was_empty() {
    let mut world = world();
    world.publish("orders", &[plain(10), plain(20), plain(90)]).unwrap();
    world.seek("payment", SeekTo::After(Seq(1))).unwrap();
    let stats = world.stats("payment");
    assert_eq!((stats.backlog_bytes, stats.backlog_bytes_exact), (80, false), "twice the average of the topic");
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received);
    world.publish("orders", &[plain(7)]).unwrap();
    let stats = world.stats("payment");
    assert_eq!((stats.backlog_bytes, stats.backlog_bytes_exact), (7, true));
}

#[test]
fn a_lease_of_an_earlier_run_acks_a_message_of_unknown_size() {
    let mut world = world();
    world.publish("orders", &[plain(10), plain(30)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.crash();
    world.ack("payment", &received[..1]);
    let stats = world.stats("payment");
    assert_eq!((stats.backlog_messages, stats.backlog_bytes, stats.backlog_bytes_exact), (1, 20, false));
}

#[test]
fn a_snapshot_without_sizes_counts_again_once_the_backlog_was_empty() {
    let mut world = world();
    world.publish("orders", &[plain(10), plain(30)]).unwrap();
    let mut snapshot = world.broker.snapshot();
    snapshot.topics[0].bytes = 0;
    snapshot.subscriptions[0].settled_bytes = 0;
    snapshot.subscriptions[0].bytes_exact = false;
    let mut out = Output::new();
    let recovery = Recovery::restore(snapshot).unwrap();
    let mut broker = recovery.begin(Limits::default(), 1, world.now, &mut out);
    let id = broker.subscription_ids().next().unwrap();
    let stats = broker.stats(id, world.now).unwrap();
    assert_eq!((stats.backlog_messages, stats.backlog_bytes_exact), (2, false));
    let name = crate::harness::subscription_name("payment");
    broker.handle_seek(&name, SeekTo::After(Seq(2)), world.now, &mut out).unwrap();
    let stats = broker.stats(id, world.now).unwrap();
    assert_eq!((stats.backlog_bytes, stats.backlog_bytes_exact), (0, true));
}

#[test]
fn rates_tell_what_happened_in_the_last_ten_seconds() {
    let mut world = world();
    world.subscription("odd", "orders", |config| config.filter = Some("attributes.parity = \"odd\"".parse().unwrap()));
    world.publish("orders", &[plain(10), plain(20), plain(31)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    world.advance_ms(1_000);
    let rates = world.stats("payment").rates;
    assert_eq!((rates.published, rates.delivered, rates.acked), (0.3, 0.3, 0.1));
    assert_eq!(world.stats("odd").rates.published, 0.1, "what its filter lets through");
    let topic = world.broker.topic_ids().next().unwrap();
    let stats = world.broker.topic_stats(topic, world.now).unwrap();
    assert_eq!((stats.published_rate, stats.published_messages, stats.published_bytes), (0.3, 3, 61));
    assert_eq!((stats.subscriptions, stats.retained_messages, stats.retained_bytes), (2, 2, 40));
    world.advance_ms(11_000);
    assert_eq!(world.stats("payment").rates, Rates::default());
}
