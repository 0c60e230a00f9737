//! Topics and subscriptions come and go.

use broker_core::*;

use crate::harness::{World, plain, seqs, stream, subscription_name, topic_name};

fn project() -> ProjectName {
    "projects/test".parse().unwrap()
}

#[test]
fn a_name_is_taken_once_and_ids_are_never_taken_again() {
    let mut world = World::new();
    let topic = world.topic("orders");
    let subscription = world.subscription("payment", "orders", |_| {});
    let before = world.broker.snapshot();
    let mut out = Output::new();
    let config = TopicConfig::new(topic_name("orders"));
    assert_eq!(world.broker.handle_create_topic(config, &mut out), Err(Error::TopicExists(topic_name("orders"))));
    let config = SubscriptionConfig::new(subscription_name("payment"), topic_name("orders"));
    assert_eq!(
        world.broker.handle_create_subscription(config, world.now, &mut out),
        Err(Error::SubscriptionExists(subscription_name("payment")))
    );
    assert!(out.records.is_empty() && out.effects.is_empty());
    assert_eq!(world.broker.snapshot(), before, "a refused call changes nothing");

    world.delete_subscription("payment").unwrap();
    world.delete_topic("orders").unwrap();
    world.checkpoint();
    world.crash();
    assert!(world.topic("orders") > topic);
    assert!(world.subscription("payment", "orders", |_| {}) > subscription);
}

#[test]
fn what_does_not_exist_is_not_found_and_nothing_changes() {
    let mut world = World::new();
    let missing = || Error::SubscriptionNotFound(subscription_name("nobody"));
    assert_eq!(world.publish("nothing", &[plain(1)]), Err(Error::TopicNotFound(topic_name("nothing"))));
    assert_eq!(world.delete_topic("nothing"), Err(Error::TopicNotFound(topic_name("nothing"))));
    assert_eq!(world.delete_subscription("nobody"), Err(missing()));
    assert_eq!(world.try_attach("nobody", stream(1)), Err(missing()));
    assert_eq!(world.ack_refs("nobody", &[]), Err(missing()));
    assert_eq!(world.modify("nobody", &[], 0), Err(missing()));
    let mut out = Output::new();
    let config = SubscriptionConfig::new(subscription_name("payment"), topic_name("nothing"));
    let created = world.broker.handle_create_subscription(config, world.now, &mut out);
    assert_eq!(created, Err(Error::TopicNotFound(topic_name("nothing"))));
    world.topic("orders");
    let mut config = SubscriptionConfig::new(subscription_name("payment"), topic_name("orders"));
    config.dead_letter = Some(DeadLetterPolicy::new(topic_name("nothing"), ATTEMPTS_MIN).unwrap());
    let created = world.broker.handle_create_subscription(config, world.now, &mut out);
    assert_eq!(created, Err(Error::TopicNotFound(topic_name("nothing"))));
    assert_eq!(world.records.len(), 2, "only the start and the topic are on record");
    assert!(out.records.is_empty());
}

#[test]
fn lists_are_sorted_by_name_and_paged_within_a_project() {
    let mut world = World::new();
    for id in ["delta", "alpha", "charlie", "bravo"] {
        world.topic(id);
        world.subscription(id, "delta", |_| {});
        let mut out = Output::new();
        let name = format!("projects/tests/topics/{id}").parse().unwrap();
        world.broker.handle_create_topic(TopicConfig::new(name), &mut out).unwrap();
    }
    let ids = |topics: Vec<TopicView>| topics.iter().map(|t| t.config.name.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(world.broker.topics(&project(), None, 3)), ["alpha", "bravo", "charlie"]);
    assert_eq!(ids(world.broker.topics(&project(), Some(&topic_name("charlie")), 3)), ["delta"]);
    assert_eq!(ids(world.broker.topics(&project(), Some(&topic_name("bz-gone")), 9)), ["charlie", "delta"]);
    assert!(world.broker.topics(&"projects/tes".parse().unwrap(), None, 9).is_empty());
    let ids = |subscriptions: Vec<SubscriptionView>| {
        subscriptions.iter().map(|s| s.config.name.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(world.broker.subscriptions(&project(), None, 2)), ["alpha", "bravo"]);
    assert_eq!(ids(world.broker.subscriptions(&project(), Some(&subscription_name("bravo")), 9)), ["charlie", "delta"]);
    let of_topic = |after: Option<&str>, limit| {
        let after = after.map(subscription_name);
        let names = world.broker.topic_subscriptions(&topic_name("delta"), after.as_ref(), limit).unwrap();
        names.iter().map(|name| name.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of_topic(None, 2), ["alpha", "bravo"]);
    assert_eq!(of_topic(Some("bravo"), 9), ["charlie", "delta"]);
}

#[test]
fn a_subscription_sees_only_what_is_published_after_its_creation() {
    let mut world = World::new();
    world.topic("orders");
    world.publish("orders", &[plain(1), plain(1)]).unwrap();
    world.subscription("payment", "orders", |_| {});
    world.publish("orders", &[plain(1)]).unwrap();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [3]);
}

#[test]
fn a_deleted_topic_stays_deliverable_until_its_last_subscription_goes() {
    let mut world = World::new();
    let topic = world.topic("orders");
    let id = world.subscription("payment", "orders", |_| {});
    world.publish("orders", &[plain(1), plain(1)]).unwrap();
    world.delete_topic("orders").unwrap();
    assert!(world.broker.topic(&topic_name("orders")).is_err());
    assert!(world.broker.topic_by_id(topic).unwrap().deleted);
    assert!(world.broker.subscription_by_id(id).unwrap().topic_deleted);

    let renewed = world.topic("orders");
    assert_ne!(renewed, topic);
    world.publish("orders", &[plain(1)]).unwrap();
    world.checkpoint();
    world.crash();
    world.check_replay();
    let consumer = world.attach("payment", stream(0));
    assert_eq!(seqs(&world.received(consumer)), [1, 2], "of the old topic, and nothing of the new one");

    world.delete_subscription("payment").unwrap();
    assert_eq!(world.broker.topic_by_id(topic), None);
    assert_eq!(world.broker.topic_floor(topic), None);
    assert_eq!(world.broker.topic_ids().collect::<Vec<_>>(), [renewed]);
}

#[test]
fn deleting_a_subscription_closes_its_consumers_and_forgets_its_timers() {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world.publish("orders", &[plain(1)]).unwrap();
    let first = world.attach("payment", stream(0));
    let second = world.attach("payment", stream(0));
    world.delete_subscription("payment").unwrap();
    assert_eq!(world.closed, [first, second]);
    assert_eq!(world.broker.poll_timeout(), None);
    world.detach(first, Detach::ConnectionLost);
}

#[test]
fn topics_subscriptions_and_consumers_stop_at_their_limits() {
    let limits = Limits { topics_max: 2, subscriptions_max: 2, consumers_max: 2, ..Limits::default() };
    let mut world = World::with_limits(limits);
    let mut out = Output::new();
    let exhausted = |what| Error::ResourceExhausted { what, max: 2 };
    world.topic("first");
    world.topic("second");
    let config = TopicConfig::new(topic_name("third"));
    assert_eq!(world.broker.handle_create_topic(config, &mut out), Err(exhausted("topics")));
    world.subscription("first", "first", |_| {});
    world.subscription("second", "first", |_| {});
    let config = SubscriptionConfig::new(subscription_name("third"), topic_name("first"));
    assert_eq!(world.broker.handle_create_subscription(config, world.now, &mut out), Err(exhausted("subscriptions")));
    world.attach("first", stream(1));
    let second = world.attach("first", stream(1));
    assert_eq!(world.try_attach("first", stream(1)), Err(exhausted("consumers of one subscription")));
    world.detach(second, Detach::Graceful);
    world.attach("first", stream(1));
}

#[test]
fn a_publish_call_takes_one_to_a_thousand_messages() {
    let mut world = World::new();
    world.topic("orders");
    for (count, good) in [(0, false), (1, true), (PUBLISH_MESSAGES_MAX, true), (PUBLISH_MESSAGES_MAX + 1, false)] {
        let before = world.broker.snapshot();
        let published = world.publish("orders", &vec![plain(1); count]);
        assert_eq!(published.is_ok(), good, "{count}");
        assert!(good || world.broker.snapshot() == before, "a refused call changes nothing");
    }
}

#[test]
fn a_message_is_live_for_as_long_as_a_subscription_has_not_settled_it() {
    let mut world = World::new();
    let topic = world.topic("orders");
    world.publish("orders", &[plain(1)]).unwrap();
    assert_eq!(world.broker.topic_floor(topic), Some(Seq(1)), "nobody needs it");
    world.subscription("first", "orders", |_| {});
    world.subscription("second", "orders", |_| {});
    world.publish("orders", &[plain(1), plain(1)]).unwrap();
    for name in ["first", "second"] {
        assert!(world.broker.is_live(topic, Seq(2)) && world.broker.is_live(topic, Seq(3)));
        assert_eq!(world.broker.topic_floor(topic), Some(Seq(1)));
        let consumer = world.attach(name, stream(0));
        let received = world.received(consumer);
        world.ack(name, &received[1..]);
        assert!(world.broker.is_live(topic, Seq(2)));
        world.ack(name, &received[..1]);
    }
    assert!(!world.broker.is_live(topic, Seq(2)) && !world.broker.is_live(topic, Seq(4)));
    assert_eq!(world.broker.topic_floor(topic), Some(Seq(3)));
}
