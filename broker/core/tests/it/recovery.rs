//! What a restart brings back, and what a journal that is not ours runs into.

use broker_core::*;

use crate::harness::{World, plain, seqs, stream, subscription_name, topic_name};

fn world() -> World {
    let mut world = World::new();
    world.topic("orders");
    world.subscription("payment", "orders", |config| config.retry = Some(RetryPolicy::new(0, 0).unwrap()));
    world.publish("orders", &[plain(10); 4]).unwrap();
    world
}

#[test]
fn what_was_not_durable_is_forgotten_and_its_numbers_are_given_again() {
    let mut world = world();
    world.prompt = false;
    world.publish("orders", &[plain(10); 3]).unwrap();
    world.crash();
    let published = world.publish("orders", &[plain(10)]).unwrap();
    assert_eq!(published.first, Seq(5));
}

#[test]
fn nothing_is_released_before_it_is_durable() {
    let mut world = world();
    world.prompt = false;
    let consumer = world.attach("payment", stream(1));
    assert!(world.received(consumer).is_empty());
    world.sync();
    let received = world.received(consumer);
    assert_eq!(seqs(&received), [1]);
    world.ack("payment", &received);
    world.crash();
    let consumer = world.attach("payment", stream(1));
    world.sync();
    world.answer_all();
    assert_eq!(seqs(&world.received(consumer)), [1], "the ack was not durable");
}

#[test]
fn leases_do_not_outlive_a_run_and_count_no_attempt() {
    let mut world = world();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.crash();
    assert_eq!(world.broker.poll_timeout(), None);
    let consumer = world.attach("payment", stream(0));
    let again = world.received(consumer);
    assert_eq!(seqs(&again), [1, 2, 3, 4]);
    for (old, new) in received.iter().zip(&again) {
        assert!(new.lease.epoch > old.lease.epoch);
        assert_eq!(new.attempt, 1);
    }
}

#[test]
fn a_snapshot_and_the_records_after_it_come_to_the_same_as_all_records() {
    let mut world = world();
    let consumer = world.attach("payment", stream(0));
    let received = world.received(consumer);
    world.ack("payment", &received[1..3]);
    world.checkpoint();
    world.nack("payment", &received[..1]);
    world.ack("payment", &received[3..]);
    world.check_replay();
    let mut recovery = Recovery::new();
    for record in &world.records {
        recovery.apply(record).unwrap();
    }
    assert_eq!(recovery.snapshot(), world.broker.snapshot());
    assert_eq!(Recovery::restore(world.broker.snapshot()).unwrap().snapshot(), world.broker.snapshot());
}

#[test]
fn the_same_seed_and_inputs_give_the_same_output() {
    let outputs = [7, 7, 8].map(|seed| {
        let mut out = Output::new();
        let mut broker = Recovery::new().begin(Limits::default(), seed, Time(0), &mut out);
        let topic = TopicConfig::new(topic_name("orders"));
        broker.handle_create_topic(topic, &mut out).unwrap();
        let mut config = SubscriptionConfig::new(subscription_name("payment"), topic_name("orders"));
        config.retry = Some(RetryPolicy::new(100_000, 600_000).unwrap());
        broker.handle_create_subscription(config, Time(0), &mut out).unwrap();
        for consumer in 1..4 {
            let name = subscription_name("payment");
            broker.handle_attach(ConsumerId(consumer), &name, stream(0), Time(0), &mut out).unwrap();
        }
        broker.handle_publish(&topic_name("orders"), &[plain(1); 50], |_, _| None, Time(0), &mut out).unwrap();
        broker.handle_timeout(Time(10_000), &mut out);
        out
    });
    let [first, second, other] = outputs;
    assert_eq!((&first.records, &first.effects), (&second.records, &second.effects));
    assert_ne!(first.records, other.records, "the jitter follows the seed");
}

#[test]
fn a_journal_that_is_not_ours_is_refused() {
    let world = world();
    let topic = world.broker.topic(&topic_name("orders")).unwrap();
    let subscription = world.broker.subscription(&subscription_name("payment")).unwrap().id;
    let acked = |first, last| Record::Acked {
        subscription,
        ranges: vec![SeqRange { first: Seq(first), last: Seq(last) }],
        bytes: None,
    };
    let failed = |seq, attempts| Record::Failed {
        subscription,
        seq: Seq(seq),
        attempts,
        not_before: Time(0),
        reason: FailReason::Nacked,
    };
    let published = |topic, first| Record::Published {
        topic,
        first: Seq(first),
        count: 1,
        time: Time(0),
        bytes: 1,
        filtered: Vec::new(),
    };
    let config = world.broker.subscription_by_id(subscription).unwrap().config;
    let refused = [
        (Record::Started { epoch: 3 }, ReplayError::Epoch { last: 1, found: 3 }),
        (Record::TopicCreated { id: topic.id, config: topic.config.clone() }, ReplayError::TopicTwice(topic.id)),
        (Record::TopicDeleted { id: TopicId(9) }, ReplayError::TopicUnknown(TopicId(9))),
        (
            Record::SubscriptionCreated { id: subscription, topic: topic.id, config, start: Seq(0), time: Time(0) },
            ReplayError::SubscriptionTwice(subscription),
        ),
        (Record::SubscriptionDeleted { id: SubscriptionId(9) }, ReplayError::SubscriptionUnknown(SubscriptionId(9))),
        (published(topic.id, 6), ReplayError::Gap { topic: topic.id, last: Seq(4), found: Seq(6) }),
        (published(topic.id, 4), ReplayError::Gap { topic: topic.id, last: Seq(4), found: Seq(4) }),
        (published(TopicId(9), 1), ReplayError::TopicUnknown(TopicId(9))),
        (acked(4, 5), ReplayError::NotUnacked { subscription, seq: Seq(4) }),
        (acked(0, 1), ReplayError::NotUnacked { subscription, seq: Seq(0) }),
        (acked(3, 2), ReplayError::NotUnacked { subscription, seq: Seq(3) }),
        (failed(5, 1), ReplayError::NotUnacked { subscription, seq: Seq(5) }),
        (failed(1, 2), ReplayError::Attempts { subscription, seq: Seq(1), last: 0, found: 2 }),
    ];
    for (record, error) in refused {
        let mut recovery = Recovery::restore(world.broker.snapshot()).unwrap();
        assert_eq!(recovery.apply(&record), Err(error), "{record:?}");
    }
    let mut recovery = Recovery::restore(world.broker.snapshot()).unwrap();
    recovery.apply(&acked(2, 3)).unwrap();
    assert!(recovery.apply(&acked(3, 4)).is_err(), "settled twice");
}

#[test]
fn a_snapshot_that_does_not_hang_together_is_refused() {
    let good = world().broker.snapshot();
    let mut without_topic = good.clone();
    without_topic.topics.clear();
    assert!(Recovery::restore(without_topic).is_err());
    let mut twice = good.clone();
    twice.subscriptions.push(twice.subscriptions[0].clone());
    assert!(Recovery::restore(twice).is_err());
    let mut ahead = good;
    ahead.subscriptions[0].acked = AckedSet::new(Seq(5));
    assert!(Recovery::restore(ahead).is_err());
}
