//! Filters, seek, snapshots and retention: what a subscription sees, and what it can go back to.

use broker_core::*;

use crate::harness::{World, plain, seqs, snapshot_name, stream, subscription_name, topic_name};

/// A topic with five messages, of 1 to 5 bytes.
fn world(change: impl FnOnce(&mut SubscriptionConfig)) -> World {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", change);
    publish(&mut world);
    world
}

fn publish(world: &mut World) {
    let metas: Vec<Meta> = (1..=5).map(plain).collect();
    world.publish("orders", &metas).unwrap();
}

/// Attaches, acks all that comes, and detaches.
fn consume(world: &mut World) -> Vec<u64> {
    let consumer = world.attach("payment", stream(0));
    let mut all = Vec::new();
    loop {
        let received = world.received(consumer);
        if received.is_empty() {
            break;
        }
        world.ack("payment", &received);
        all.extend(seqs(&received));
    }
    world.detach(consumer, Detach::Graceful);
    all
}

fn id_of(world: &World) -> SubscriptionId {
    world.broker.subscription(&subscription_name("payment")).unwrap().id
}

/// All dead messages are deleted, and the broker starts again.
fn restart(world: &mut World) {
    world.checkpoint();
    world.crash();
}

fn live(world: &World) -> Vec<u64> {
    let topic = world.broker.topic(&topic_name("orders")).unwrap();
    (1..=topic.last.0).filter(|seq| world.broker.is_live(topic.id, Seq(*seq))).collect()
}

#[test]
fn a_filter_keeps_out_what_does_not_match_from_the_start() {
    let mut world = world(|config| config.filter = Some("attributes.parity = \"odd\"".parse().unwrap()));
    assert_eq!(world.stats("payment").backlog_messages, 3);
    assert_eq!(world.stats("payment").totals.filtered, 2);
    restart(&mut world);
    assert_eq!(consume(&mut world), [1, 3, 5]);
}

#[test]
fn attributes_are_not_looked_at_without_a_filter() {
    let mut world = world(|_| {});
    let topic = world.broker.topic(&topic_name("orders")).unwrap().id;
    assert!(!world.broker.has_filters(topic));
    let (now, mut out) = (world.now, Output::new());
    let look = |_: usize, _: &str| panic!("nobody has a filter");
    world.broker.handle_publish(&topic_name("orders"), &[plain(1)], look, now, &mut out).unwrap();
    let mut world = self::world(|_| {});
    world.subscription("filtered", "orders", |config| config.filter = Some("attributes:a".parse().unwrap()));
    assert!(world.broker.has_filters(topic));
}

#[test]
fn what_the_filter_kept_out_does_not_come_by_a_seek_or_a_snapshot() {
    let mut world = world(|config| {
        config.filter = Some("attributes.parity = \"odd\"".parse().unwrap());
        config.retain_acked = true;
    });
    world.subscription("all", "orders", |_| {});
    publish(&mut world);
    world.create_snapshot("monday", "all", 1_000).unwrap();
    assert_eq!(consume(&mut world), [1, 3, 5, 6, 8, 10]);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    restart(&mut world);
    assert_eq!(consume(&mut world), [1, 3, 5, 6, 8, 10]);
    world.seek("payment", SeekTo::Snapshot(snapshot_name("monday"))).unwrap();
    assert_eq!(consume(&mut world), [6, 8, 10]);
}

#[test]
fn a_seek_forward_drops_and_one_to_behind_the_end_purges() {
    let mut world = world(|_| {});
    world.seek("payment", SeekTo::After(Seq(3))).unwrap();
    restart(&mut world);
    assert_eq!(consume(&mut world), [4, 5]);
    publish(&mut world);
    world.seek("payment", SeekTo::After(Seq(u64::MAX))).unwrap();
    assert!(consume(&mut world).is_empty());
    publish(&mut world);
    assert_eq!(consume(&mut world), [11, 12, 13, 14, 15], "what comes later is seen");
}

#[test]
fn a_seek_back_finds_acked_messages_only_if_they_are_kept() {
    for (retain_acked, again) in [(false, vec![]), (true, vec![3, 4, 5])] {
        let mut world = world(|config| config.retain_acked = retain_acked);
        assert_eq!(consume(&mut world), [1, 2, 3, 4, 5]);
        restart(&mut world);
        world.seek("payment", SeekTo::After(Seq(2))).unwrap();
        assert_eq!(consume(&mut world), again);
    }
}

#[test]
fn what_was_acked_before_it_was_to_be_kept_does_not_come_back() {
    let mut world = world(|_| {});
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    world.ack("payment", &received);
    world.update("payment", |config| config.retain_acked = true).unwrap();
    world.detach(consumer, Detach::ConnectionLost);
    assert_eq!(consume(&mut world), [3, 4, 5]);
    restart(&mut world);
    assert_eq!(live(&world), [3, 4, 5]);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert_eq!(consume(&mut world), [3, 4, 5]);
    world.update("payment", |config| config.retain_acked = false).unwrap();
    assert!(live(&world).is_empty());
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert!(consume(&mut world).is_empty());
}

#[test]
fn a_topic_with_retention_lets_even_a_new_subscription_go_back() {
    let mut world = World::new();
    let mut config = TopicConfig::new(topic_name("orders"));
    world.topic("orders");
    publish(&mut world);
    config.retention = Some(Retention::default());
    world.update_topic(config.clone()).unwrap();
    publish(&mut world);
    restart(&mut world);
    assert_eq!(live(&world), [6, 7, 8, 9, 10]);
    world.subscription("payment", "orders", |_| {});
    assert!(consume(&mut world).is_empty());
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    restart(&mut world);
    assert_eq!(consume(&mut world), [6, 7, 8, 9, 10]);
    world.seek("payment", SeekTo::After(Seq(8))).unwrap();
    assert_eq!(consume(&mut world), [9, 10]);
    config.retention = None;
    world.update_topic(config).unwrap();
    assert!(live(&world).is_empty());
    world.seek("payment", SeekTo::After(Seq(8))).unwrap();
    assert!(consume(&mut world).is_empty());
}

#[test]
fn after_a_seek_leases_are_over_and_failures_are_forgotten() {
    let mut world = world(|config| config.retry = Some(RetryPolicy::new(60_000, 60_000).unwrap()));
    let consumer = world.attach("payment", stream(0));
    let old = world.received(consumer);
    world.nack("payment", &old[..1]);
    assert_eq!(world.stats("payment").delayed_messages, 1);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    let new = world.received(consumer);
    assert_eq!(seqs(&new), [1, 2, 3, 4, 5]);
    assert!(new.iter().all(|received| received.attempt == 1));
    assert_eq!(world.ack("payment", &old), [AckOutcome::Stale; 5]);
    assert_eq!(world.modify("payment", &old, 0), Ok(vec![ModifyOutcome::Stale; 5]));
    world.crash();
    assert_eq!(world.ack("payment", &old), [AckOutcome::Stale; 5], "also after a restart");
    assert_eq!(world.ack("payment", &new), [AckOutcome::Acked; 5]);
}

#[test]
fn a_snapshot_keeps_what_was_unacked_then_and_all_that_came_later() {
    let mut world = world(|_| {});
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    let view = world.create_snapshot("monday", "payment", 1_000).unwrap();
    assert_eq!((view.topic_name, view.expires), (Some(topic_name("orders")), world.now.plus_ms(1_000)));
    world.detach(consumer, Detach::ConnectionLost);
    consume(&mut world);
    publish(&mut world);
    consume(&mut world);
    restart(&mut world);
    assert_eq!(live(&world), (2..=10).collect::<Vec<u64>>());
    world.seek("payment", SeekTo::Snapshot(snapshot_name("monday"))).unwrap();
    world.delete_snapshot("monday").unwrap();
    restart(&mut world);
    assert_eq!(consume(&mut world), (2..=10).collect::<Vec<u64>>());
    assert!(live(&world).is_empty());
}

#[test]
fn what_a_snapshot_brought_back_is_kept_without_it() {
    let mut world = world(|config| config.retain_acked = true);
    let id = id_of(&world);
    world.create_snapshot("monday", "payment", 1_000).unwrap();
    world.cut(Keeper::Subscription(id), 6);
    assert_eq!(world.stats("payment").backlog_messages, 0);
    world.seek("payment", SeekTo::Snapshot(snapshot_name("monday"))).unwrap();
    world.delete_snapshot("monday").unwrap();
    restart(&mut world);
    assert_eq!(consume(&mut world), [1, 2, 3, 4, 5]);
    world.cut(Keeper::Subscription(id), 6);
    assert!(live(&world).is_empty());
}

#[test]
fn a_snapshot_expires_and_outlives_its_subscription_and_topic() {
    let mut world = world(|_| {});
    world.create_snapshot("monday", "payment", 60_000).unwrap();
    world.create_snapshot("friday", "payment", 1_000).unwrap();
    let topic = world.broker.topic(&topic_name("orders")).unwrap().id;
    world.delete_subscription("payment").unwrap();
    world.delete_topic("orders").unwrap();
    restart(&mut world);
    assert!(world.broker.is_live(topic, Seq(5)));
    assert_eq!(world.broker.snapshot_view(&snapshot_name("monday")).unwrap().topic_name, None);
    world.update_snapshot("monday", 120_000).unwrap();
    world.advance_ms(119_999);
    let project: ProjectName = "projects/test".parse().unwrap();
    let names = |world: &World| -> Vec<String> {
        world.broker.snapshots(&project, None, 9).iter().map(|view| view.name.id().to_owned()).collect()
    };
    assert_eq!(names(&world), ["monday"]);
    world.advance_ms(1);
    assert!(names(&world).is_empty());
    assert_eq!(world.broker.topic_by_id(topic), None, "nobody needs it any more");
}

#[test]
fn snapshots_have_names_limits_and_a_topic() {
    let mut world = World::with_limits(Limits { snapshots_max: 2, ..Limits::default() });
    world.topic("orders");
    world.topic("other");
    world.subscription("payment", "orders", |_| {});
    world.subscription("elsewhere", "other", |_| {});
    let monday = snapshot_name("monday");
    let missing = Error::SnapshotNotFound(monday.clone());
    assert_eq!(world.seek("payment", SeekTo::Snapshot(monday.clone())), Err(missing.clone()));
    assert_eq!(world.delete_snapshot("monday"), Err(missing.clone()));
    assert_eq!(world.update_snapshot("monday", 1), Err(missing));
    world.create_snapshot("monday", "payment", 1_000).unwrap();
    assert_eq!(world.create_snapshot("monday", "payment", 1_000), Err(Error::SnapshotExists(monday.clone())));
    let passed = world.create_snapshot("friday", "payment", 0);
    assert!(matches!(passed, Err(Error::InvalidArgument { field: "expire_time", .. })), "{passed:?}");
    world.create_snapshot("friday", "payment", 1_000).unwrap();
    let full = Error::ResourceExhausted { what: "snapshots", max: 2 };
    assert_eq!(world.create_snapshot("sunday", "payment", 1_000), Err(full));
    let listed = |after: Option<&SnapshotName>| world.broker.topic_snapshots(&topic_name("orders"), after, 1).unwrap();
    assert_eq!(listed(None), [snapshot_name("friday")]);
    assert_eq!(listed(Some(&snapshot_name("friday"))), std::slice::from_ref(&monday));
    assert_eq!(listed(Some(&monday)), []);
    let misfit = world.seek("elsewhere", SeekTo::Snapshot(monday));
    assert!(matches!(misfit, Err(Error::InvalidArgument { field: "snapshot", .. })), "{misfit:?}");
}

#[test]
fn what_is_too_old_is_settled_and_never_comes_back() {
    let mut world = world(|config| config.retain_acked = true);
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    let id = id_of(&world);
    world.cut(Keeper::Subscription(id), 4);
    assert_eq!(world.stats("payment").totals.too_old, 2);
    assert_eq!(world.ack("payment", &received[1..]), [AckOutcome::AlreadyAcked], "its lease is over");
    world.detach(consumer, Detach::Graceful);
    restart(&mut world);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert_eq!(consume(&mut world), [4, 5]);
    let records = world.records.len();
    world.cut(Keeper::Subscription(id), 4);
    world.cut(Keeper::Subscription(id), 0);
    world.cut(Keeper::Subscription(SubscriptionId(99)), 4);
    assert_eq!(world.records.len(), records, "a cut that changes nothing leaves no record");
}

#[test]
fn a_topic_keeps_for_its_own_time() {
    let mut world = world(|_| {});
    let mut config = TopicConfig::new(topic_name("orders"));
    config.retention = Some(Retention::default());
    world.update_topic(config).unwrap();
    publish(&mut world);
    let topic = world.broker.topic(&topic_name("orders")).unwrap().id;
    let subscription = id_of(&world);
    world.cut(Keeper::Subscription(subscription), 9);
    assert_eq!(consume(&mut world), [9, 10]);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert_eq!(consume(&mut world), [6, 7, 8, 9, 10], "the topic still has them");
    world.cut(Keeper::Topic(topic), 8);
    restart(&mut world);
    world.seek("payment", SeekTo::After(Seq(0))).unwrap();
    assert_eq!(consume(&mut world), [8, 9, 10]);
}

#[test]
fn the_caller_is_told_who_keeps_messages_and_from_where() {
    let mut world = world(|_| {});
    let topic = world.broker.topic(&topic_name("orders")).unwrap().id;
    let id = id_of(&world);
    let of = |keeper, oldest, last| {
        let (oldest, last) = (Seq(oldest), Seq(last));
        Retained { keeper, topic, retention: Retention::default(), oldest, last }
    };
    assert_eq!(world.broker.retained(), [of(Keeper::Subscription(id), 1, 5)]);
    world.cut(Keeper::Subscription(id), 3);
    assert_eq!(world.broker.retained(), [of(Keeper::Subscription(id), 3, 5)]);
    consume(&mut world);
    assert_eq!(world.broker.retained(), []);
    let mut config = TopicConfig::new(topic_name("orders"));
    config.retention = Some(Retention::default());
    world.update_topic(config).unwrap();
    assert_eq!(world.broker.retained(), []);
    publish(&mut world);
    assert_eq!(world.broker.retained(), [of(Keeper::Topic(topic), 6, 10), of(Keeper::Subscription(id), 6, 10)]);
}
