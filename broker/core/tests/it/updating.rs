//! Settings that change, subscriptions that are cut off or expire, and exactly-once delivery.

use broker_core::*;

use crate::harness::{World, plain, seqs, stream, subscription_name, topic_name};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn world(change: impl FnOnce(&mut SubscriptionConfig)) -> World {
    let mut world = World::new();
    world.topic("orders");
    world.topic("dead-letters");
    world.subscription("payment", "orders", change);
    world.publish("orders", &[plain(10); 3]).unwrap();
    world
}

fn invalid<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn topic_filter_and_ordering_never_change() {
    let mut world = world(|config| config.filter = Some("attributes:a".parse().unwrap()));
    assert_eq!(invalid(world.update("payment", |config| config.topic = topic_name("other"))), "topic");
    assert_eq!(invalid(world.update("payment", |config| config.filter = None)), "filter");
    let other = "attributes:b".parse().unwrap();
    assert_eq!(invalid(world.update("payment", |config| config.filter = Some(other))), "filter");
    assert_eq!(invalid(world.update("payment", |config| config.ordering = true)), "enable_message_ordering");
    let policy = DeadLetterPolicy::new(topic_name("nothing"), 5).unwrap();
    let updated = world.update("payment", |config| config.dead_letter = Some(policy));
    assert_eq!(updated, Err(Error::TopicNotFound(topic_name("nothing"))));
    assert!(!world.records.iter().any(|record| matches!(record, Record::SubscriptionUpdated { .. })));
}

#[test]
fn settings_that_change_act_on_later_failures_and_survive_a_restart() {
    let mut world = world(|_| {});
    let consumer = world.attach("payment", stream(1));
    let first = world.received(consumer);
    world.update("payment", |config| config.retry = Some(RetryPolicy::new(5_000, 5_000).unwrap())).unwrap();
    world.nack("payment", &first);
    assert_eq!(seqs(&world.received(consumer)), [2], "the first one waits");
    let mut topic = TopicConfig::new(topic_name("orders"));
    topic.labels = Labels::new([("team".to_owned(), "a".to_owned())].into()).unwrap();
    world.update_topic(topic.clone()).unwrap();
    let records = world.records.len();
    world.update_topic(topic.clone()).unwrap();
    world.update("payment", |_| {}).unwrap();
    assert_eq!(world.records.len(), records, "what changes nothing is not written down");
    world.crash();
    assert_eq!(world.broker.topic(&topic.name).unwrap().config, topic);
    assert!(world.broker.subscription(&subscription_name("payment")).unwrap().config.retry.is_some());
}

#[test]
fn a_message_on_its_way_to_a_dead_letter_topic_comes_back_when_the_policy_is_taken_back() {
    let mut world = world(|config| {
        config.dead_letter = Some(DeadLetterPolicy::new(topic_name("dead-letters"), ATTEMPTS_MIN).unwrap());
    });
    let consumer = world.attach("payment", stream(1));
    world.prompt = false;
    for _ in 0..ATTEMPTS_MIN {
        world.sync();
        let received = world.received(consumer);
        assert_eq!(seqs(&received), [1]);
        world.nack("payment", &received);
    }
    assert_eq!(world.stats("payment").forwarding_messages, 1);
    world.update("payment", |config| config.dead_letter = None).unwrap();
    world.prompt = true;
    world.sync();
    world.answer_all();
    assert_eq!(world.stats("payment").forwarding_messages, 0);
    let mut all = Vec::new();
    for _ in 0..3 {
        let received = world.received(consumer);
        world.ack("payment", &received);
        all.extend(seqs(&received));
    }
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn a_detached_subscription_holds_nothing_and_takes_nobody() {
    let mut world = world(|config| config.retain_acked = true);
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.detach_subscription("payment").unwrap();
    assert_eq!(world.closed, [consumer]);
    let view = world.broker.subscription(&subscription_name("payment")).unwrap();
    assert!(view.detached);
    assert_eq!(world.stats("payment").backlog_messages, 0);
    assert_eq!(world.broker.topic_subscriptions(&topic_name("orders"), None, 9).unwrap(), []);
    let detached = || Error::Detached(subscription_name("payment"));
    assert_eq!(world.try_attach("payment", stream(0)), Err(detached()));
    let name = subscription_name("payment");
    let (now, mut out) = (world.now, Output::new());
    let refs = [received[0].ack_ref()];
    assert_eq!(world.broker.handle_ack(&name, &refs, now, &mut out), Err(detached()));
    assert_eq!(world.broker.handle_modify(&name, &refs, 0, now, &mut out), Err(detached()));
    assert_eq!(world.broker.handle_seek(&name, SeekTo::After(Seq(0)), now, &mut out), Err(detached()));
    assert_eq!(world.create_snapshot("monday", "payment", 1_000), Err(detached()));
    world.publish("orders", &[plain(10)]).unwrap();
    assert_eq!(world.stats("payment").backlog_messages, 0);
    assert!(!world.broker.is_live(view.topic, Seq(4)));
    world.crash();
    assert!(world.broker.subscription(&name).unwrap().detached);
    assert_eq!(world.try_attach("payment", stream(0)), Err(detached()));
    world.detach_subscription("payment").unwrap();
    world.delete_topic("orders").unwrap();
    world.delete_subscription("payment").unwrap();
}

#[test]
fn a_subscription_that_nobody_uses_expires() {
    let mut world = world(|config| config.expiration = Some(Expiration::from_ms(EXPIRATION_MS_MIN).unwrap()));
    world.subscription("kept", "orders", |_| {});
    world.advance_ms(DAY_MS);
    assert!(world.broker.subscription(&subscription_name("payment")).is_ok());
    world.advance_ms(ACTIVE_RECORD_MS);
    let gone = Error::SubscriptionNotFound(subscription_name("payment"));
    assert_eq!(world.broker.subscription(&subscription_name("payment")), Err(gone));
    world.advance_ms(100 * DAY_MS);
    assert!(world.broker.subscription(&subscription_name("kept")).is_ok(), "this one never does");
}

#[test]
fn a_push_that_gets_nothing_through_does_not_put_the_expiration_off_and_an_ack_does() {
    let mut world = world(|config| {
        config.expiration = Some(Expiration::from_ms(EXPIRATION_MS_MIN).unwrap());
        config.push = Some(PushConfig::new("http://localhost/".to_owned(), None, None).unwrap());
    });
    for _ in 0..3 {
        let consumer = world.attach("payment", stream(1));
        world.advance_ms(DAY_MS - HOUR_MS);
        world.detach(consumer, Detach::Graceful);
        world.ack("payment", &[]);
    }
    let consumer = world.attach("payment", stream(1));
    world.advance_ms(DAY_MS + ACTIVE_RECORD_MS);
    assert!(world.broker.subscription(&subscription_name("payment")).is_err());
    assert_eq!(world.closed, [consumer]);
}

#[test]
fn each_use_puts_the_expiration_off_and_is_written_down_at_most_once_an_hour() {
    let mut world = world(|config| config.expiration = Some(Expiration::from_ms(EXPIRATION_MS_MIN).unwrap()));
    let consumer = world.attach("payment", stream(1));
    world.advance_ms(3 * DAY_MS);
    assert!(world.broker.subscription(&subscription_name("payment")).is_ok(), "a consumer is attached");
    let received = world.received(consumer);
    world.detach(consumer, Detach::Graceful);
    let active = |world: &World| world.records.iter().filter(|record| matches!(record, Record::Active { .. })).count();
    let before = active(&world);
    for minutes in 0..180 {
        world.advance_ms(60_000);
        if minutes % 2 == 0 {
            world.ack("payment", &received[..0]);
        }
    }
    assert!((2..=3).contains(&(active(&world) - before)));
    world.advance_ms(DAY_MS - HOUR_MS);
    assert!(world.broker.subscription(&subscription_name("payment")).is_ok());
    world.advance_ms(3 * HOUR_MS);
    assert!(world.broker.subscription(&subscription_name("payment")).is_err());
}

#[test]
fn the_clients_of_a_broker_that_was_down_have_time_to_come_back() {
    let mut world = world(|config| config.expiration = Some(Expiration::from_ms(EXPIRATION_MS_MIN).unwrap()));
    world.now = world.now.plus_ms(40 * DAY_MS);
    world.crash();
    world.advance_ms(ACTIVE_RECORD_MS - 1);
    assert!(world.broker.subscription(&subscription_name("payment")).is_ok());
    world.advance_ms(1);
    assert!(world.broker.subscription(&subscription_name("payment")).is_err());
}

#[test]
fn with_exactly_once_delivery_only_the_lease_that_stands_acks() {
    let mut world = world(|config| config.exactly_once = true);
    let consumer = world.attach("payment", stream(1));
    let old = world.received(consumer);
    world.advance_ms(10_000);
    let new = world.received(consumer);
    assert_eq!((seqs(&old), seqs(&new)), (vec![1], vec![1]));
    assert_eq!(world.ack("payment", &old), [AckOutcome::Stale]);
    assert_eq!(world.modify("payment", &old, 60_000), Ok(vec![ModifyOutcome::Stale]));
    assert_eq!(world.ack("payment", &new), [AckOutcome::Acked]);
    assert_eq!(world.ack("payment", &new), [AckOutcome::AlreadyAcked], "the same ack, sent twice");
    assert_eq!(world.ack("payment", &old), [AckOutcome::Stale], "this one has not been the ack");
    assert_eq!(world.ack("payment", &[new[0], old[0]]), [AckOutcome::AlreadyAcked, AckOutcome::Stale]);
}

#[test]
fn a_lease_of_an_earlier_run_cannot_ack_with_exactly_once_delivery() {
    let mut world = world(|config| config.exactly_once = true);
    let consumer = world.attach("payment", stream(2));
    let received = world.received(consumer);
    world.ack("payment", &received[..1]);
    world.crash();
    assert_eq!(world.ack("payment", &received), [AckOutcome::AlreadyAcked, AckOutcome::Stale]);
}

#[test]
fn exactly_once_delivery_can_be_switched() {
    let mut world = world(|_| {});
    let consumer = world.attach("payment", stream(1));
    let old = world.received(consumer);
    world.update("payment", |config| config.exactly_once = true).unwrap();
    world.advance_ms(10_000);
    assert_eq!(world.ack("payment", &old), [AckOutcome::Stale]);
    world.update("payment", |config| config.exactly_once = false).unwrap();
    assert_eq!(world.ack("payment", &old), [AckOutcome::Acked]);
}

#[test]
fn of_the_leases_that_acked_only_the_last_are_remembered() {
    let mut world = World::with_limits(Limits { acks_remembered_max: 2, ..Limits::default() });
    world.topic("orders");
    world.subscription("payment", "orders", |config| config.exactly_once = true);
    world.publish("orders", &[plain(10); 3]).unwrap();
    let consumer = world.attach("payment", stream(0));
    let refs: Vec<AckRef> = world.received(consumer).iter().map(|received| received.ack_ref()).collect();
    let (name, now, mut out) = (subscription_name("payment"), world.now, Output::new());
    world.broker.handle_ack(&name, &refs, now, &mut out).unwrap();
    let outcomes = world.broker.handle_ack(&name, &refs, now, &mut out).unwrap();
    assert_eq!(outcomes, [AckOutcome::Stale, AckOutcome::AlreadyAcked, AckOutcome::AlreadyAcked]);
}
