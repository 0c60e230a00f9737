//! Dead letters go back to where they came from, and to nobody else.

use broker_core::*;

use crate::harness::{World, keyed, plain, seqs, stream, subscription_name, topic_name};

/// Two subscriptions on a topic, one of which has given a message up, and an operator who looks at it.
fn world() -> World {
    let mut world = World::new();
    world.topic("orders");
    world.topic("dead-letters");
    world.subscription("payment", "orders", |config| {
        config.dead_letter = Some(DeadLetterPolicy::new(topic_name("dead-letters"), ATTEMPTS_MIN).unwrap());
    });
    world.subscription("other", "orders", |config| config.retain_acked = true);
    world.subscription("operator", "dead-letters", |_| {});
    world.publish("orders", &[plain(10)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    for _ in 0..ATTEMPTS_MIN {
        let received = world.received(consumer);
        world.nack("payment", &received);
    }
    world.detach(consumer, Detach::Graceful);
    assert_eq!(world.stats("operator").backlog_messages, 1);
    world
}

fn take(world: &mut World, subscription: &str) -> Vec<u64> {
    let consumer = world.attach(subscription, stream(0));
    let received = world.received(consumer);
    world.ack(subscription, &received);
    world.detach(consumer, Detach::Graceful);
    seqs(&received)
}

#[test]
fn a_dead_letter_goes_back_to_its_subscription_alone_and_its_attempts_start_anew() {
    let mut world = world();
    assert_eq!(take(&mut world, "other"), [1]);
    let outcome = world.redrive("operator", 1, "payment").unwrap();
    let topic = world.broker.topic(&topic_name("orders")).unwrap().id;
    assert_eq!(outcome, RedriveOutcome::Redriven(topic, Seq(2)));
    assert_eq!((world.stats("operator").backlog_messages, world.stats("operator").totals.redriven), (0, 1));
    assert_eq!(world.stats("other").backlog_messages, 0);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    assert_eq!((received[0].seq, received[0].attempt), (2, 1));
    assert!(take(&mut world, "other").is_empty());
}

#[test]
fn no_seek_shows_a_redriven_message_to_another_subscription() {
    let mut world = world();
    world.create_snapshot("before", "other", 1_000_000).unwrap();
    world.redrive("operator", 1, "payment").unwrap();
    world.publish("orders", &[plain(10)]).unwrap();
    world.crash();
    world.seek("other", SeekTo::After(Seq::ZERO)).unwrap();
    assert_eq!(take(&mut world, "other"), [1, 3]);
    world.seek("other", SeekTo::Snapshot(crate::harness::snapshot_name("before"))).unwrap();
    assert_eq!(take(&mut world, "other"), [1, 3]);
    assert_eq!(take(&mut world, "payment"), [2, 3]);
}

#[test]
fn a_subscription_that_is_created_later_never_sees_a_redriven_message() {
    let mut world = world();
    let mut config = TopicConfig::new(topic_name("orders"));
    config.retention = Some(Retention::default());
    world.update_topic(config).unwrap();
    world.redrive("operator", 1, "payment").unwrap();
    world.publish("orders", &[plain(10)]).unwrap();
    world.checkpoint();
    world.crash();
    world.subscription("late", "orders", |_| {});
    world.seek("late", SeekTo::After(Seq::ZERO)).unwrap();
    assert_eq!(take(&mut world, "late"), [3], "it goes back as far as the topic keeps messages");
}

#[test]
fn a_message_that_is_redriven_when_nobody_keeps_an_older_one_is_seen_by_its_subscription_alone() {
    let mut world = world();
    world.update("other", |config| config.retain_acked = false).unwrap();
    assert_eq!(take(&mut world, "other"), [1]);
    world.create_snapshot("before", "other", 1_000_000).unwrap();
    world.redrive("operator", 1, "payment").unwrap();
    world.checkpoint();
    world.crash();
    world.seek("other", SeekTo::Snapshot(crate::harness::snapshot_name("before"))).unwrap();
    assert!(take(&mut world, "other").is_empty());
    assert_eq!(take(&mut world, "payment"), [2]);
}

#[test]
fn a_redriven_message_that_is_the_first_that_its_topic_keeps_is_not_for_a_later_subscription() {
    let mut world = world();
    world.update("other", |config| config.retain_acked = false).unwrap();
    assert_eq!(take(&mut world, "other"), [1]);
    let mut config = TopicConfig::new(topic_name("orders"));
    config.retention = Some(Retention::default());
    world.update_topic(config).unwrap();
    world.redrive("operator", 1, "payment").unwrap();
    world.checkpoint();
    world.crash();
    world.subscription("late", "orders", |_| {});
    world.seek("late", SeekTo::After(Seq::ZERO)).unwrap();
    assert!(take(&mut world, "late").is_empty());
    assert_eq!(take(&mut world, "payment"), [2]);
}

#[test]
fn a_redrive_that_was_not_durable_has_not_happened_and_one_that_was_has() {
    let mut world = world();
    world.prompt = false;
    world.redrive("operator", 1, "payment").unwrap();
    world.crash();
    assert_eq!((world.stats("operator").backlog_messages, world.stats("payment").backlog_messages), (1, 0));
    world.redrive("operator", 1, "payment").unwrap();
    world.sync();
    world.crash();
    assert_eq!((world.stats("operator").backlog_messages, world.stats("payment").backlog_messages), (0, 1));
    assert_eq!(world.stats("operator").totals.redriven, 1);
}

#[test]
fn what_is_out_stays_and_what_has_nowhere_to_go_stays() {
    let mut world = world();
    let operator = world.attach("operator", stream(0));
    assert_eq!(world.redrive("operator", 1, "payment").unwrap(), RedriveOutcome::Outstanding);
    world.detach(operator, Detach::ConnectionLost);
    assert_eq!(world.redrive("operator", 1, "nobody").unwrap(), RedriveOutcome::TargetNotFound);
    world.detach_subscription("payment").unwrap();
    assert_eq!(world.redrive("operator", 1, "payment").unwrap(), RedriveOutcome::TargetDetached);
    assert_eq!(world.redrive("operator", 2, "other").unwrap(), RedriveOutcome::NotUnacked);
    assert_eq!(world.redrive("operator", 0, "other").unwrap(), RedriveOutcome::NotUnacked);
    assert_eq!(world.stats("operator").backlog_messages, 1);
    assert!(matches!(world.redrive("payment", 1, "other"), Err(Error::Detached(_))));
    assert!(matches!(world.redrive("nobody", 1, "other"), Err(Error::SubscriptionNotFound(_))));
}

#[test]
fn a_dead_letter_goes_back_also_when_the_topic_was_deleted_and_whatever_the_filter_says() {
    let mut world = world();
    // It keeps out what has an even number of bytes.
    world.subscription("odd", "orders", |config| config.filter = Some("attributes.parity = \"odd\"".parse().unwrap()));
    world.publish("dead-letters", &[plain(20)]).unwrap();
    world.delete_topic("orders").unwrap();
    world.redrive("operator", 1, "payment").unwrap();
    world.redrive("operator", 2, "odd").unwrap();
    world.crash();
    assert_eq!(take(&mut world, "payment"), [2]);
    assert_eq!(take(&mut world, "odd"), [3]);
}

#[test]
fn a_key_goes_on_behind_a_message_that_was_redriven() {
    let mut world = World::new();
    world.topic("orders");
    world.topic("dead-letters");
    world.subscription("payment", "orders", |config| config.ordering = true);
    world.subscription("operator", "dead-letters", |config| config.ordering = true);
    world.publish("dead-letters", &[keyed(7), keyed(7), keyed(7)]).unwrap();
    let operator = world.attach("operator", stream(1));
    let first = world.received(operator);
    // The second one waits behind the first, which is out.
    world.redrive("operator", 2, "payment").unwrap();
    world.ack("operator", &first);
    assert_eq!(seqs(&world.received(operator)), [3]);
    assert_eq!(take(&mut world, "payment"), [1]);
}

#[test]
fn a_look_takes_nothing_and_tells_where_each_message_is() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |config| {
        config.retry = Some(RetryPolicy::new(1_000, 1_000).unwrap());
    });
    world.publish("orders", &[plain(10); 4]).unwrap();
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    world.nack("payment", &received[1..]);
    let name = subscription_name("payment");
    let shown = world.broker.peek(&name, Seq::ZERO, 10, world.now).unwrap();
    let until = world.now.plus_ms(1_000);
    let lease = world.now.plus_ms(u64::from(ACK_DEADLINE_MS_DEFAULT));
    let states: Vec<(u64, MessageState)> = shown.iter().map(|peeked| (peeked.seq.0, peeked.state)).collect();
    let out = MessageState::Outstanding(lease);
    assert_eq!(states, [(2, MessageState::Delayed(until)), (3, out), (4, out)]);
    assert_eq!(shown[0].failure.map(|failure| failure.attempts), Some(1));
    let page = world.broker.peek(&name, Seq(2), 1, world.now).unwrap();
    assert_eq!(page[0].seq, Seq(3));
    assert_eq!(world.broker.peek_at(&name, Seq(1), world.now), Ok(None));
    assert_eq!(world.broker.peek_at(&name, Seq(9), world.now), Ok(None));
    // After a restart nobody has looked at the message yet, and it waits all the same.
    world.crash();
    let shown = world.broker.peek(&name, Seq::ZERO, 1, world.now).unwrap();
    assert_eq!(shown[0].state, MessageState::Delayed(until));
}
