//! Access policies: they are kept, and go with what they belong to.

use broker_core::*;

use crate::harness::{World, snapshot_name, topic_name};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn name(text: &str) -> ResourceName {
    format!("projects/test/{text}").parse().unwrap()
}

fn world() -> (World, [ResourceName; 3]) {
    world_with(Limits::default())
}

/// A topic, a subscription and a snapshot, each with a policy of one byte.
fn world_with(limits: Limits) -> (World, [ResourceName; 3]) {
    let mut world = World::with_limits(limits);
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world.create_snapshot("monday", "payment", DAY_MS).unwrap();
    let names = [name("topics/orders"), name("subscriptions/payment"), name("snapshots/monday")];
    for (number, resource) in (0..).zip(&names) {
        assert_eq!(world.broker.policy(resource).unwrap(), Policy::default());
        world.set_policy(resource, &[number]).unwrap();
    }
    (world, names)
}

#[test]
fn a_policy_is_kept_through_crashes_and_checkpoints_and_each_change_has_a_higher_revision() {
    let (mut world, names) = world();
    world.sync();
    world.crash();
    world.checkpoint();
    let changed = world.set_policy(&names[0], b"again").unwrap();
    world.sync();
    world.crash();
    let policies: Vec<Policy> = names.iter().map(|resource| world.broker.policy(resource).unwrap()).collect();
    let policy = |revision, body: &[u8]| Policy { revision, body: body.to_vec() };
    assert_eq!(policies, [policy(4, b"again"), policy(2, &[1]), policy(3, &[2])]);
    assert_eq!(policies[0], changed);
}

#[test]
fn a_policy_goes_with_its_resource_and_is_not_there_for_the_next_one_of_that_name() {
    let (mut world, names) = world();
    world.delete_snapshot("monday").unwrap();
    world.delete_topic("orders").unwrap();
    assert_eq!(world.broker.policy(&names[0]), Err(Error::TopicNotFound(topic_name("orders"))));
    assert_eq!(world.broker.policy(&names[2]), Err(Error::SnapshotNotFound(snapshot_name("monday"))));
    assert!(matches!(world.set_policy(&names[2], b"x"), Err(Error::SnapshotNotFound(_))));
    world.delete_subscription("payment").unwrap();
    world.topic("orders");
    world.subscription("payment", "orders", |_| {});
    world.create_snapshot("monday", "payment", DAY_MS).unwrap();
    world.sync();
    world.crash();
    for resource in &names {
        assert_eq!(world.broker.policy(resource).unwrap(), Policy::default(), "{resource}");
    }
    assert_eq!(world.set_policy(&names[0], b"x").unwrap().revision, 4, "no revision comes twice");
}

#[test]
fn a_policy_beyond_the_limit_is_refused() {
    let (mut world, names) = world();
    world.set_policy(&names[1], &vec![0; POLICY_BYTES_MAX]).unwrap();
    let refused = world.set_policy(&names[1], &vec![0; POLICY_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(Error::InvalidArgument { field: "policy", .. })), "{refused:?}");
    assert_eq!(world.broker.policy(&names[1]).unwrap().body.len(), POLICY_BYTES_MAX);
}

#[test]
fn all_policies_together_have_a_limit_and_one_that_is_replaced_makes_room() {
    let (mut world, names) = world_with(Limits { policies_bytes_max: 10, ..Limits::default() });
    world.set_policy(&names[0], &[0; 8]).unwrap();
    let refused = world.set_policy(&names[1], &[0; 2]);
    assert_eq!(refused, Err(Error::ResourceExhausted { what: "bytes of access policies", max: 10 }));
    assert_eq!(world.broker.policy(&names[1]).unwrap().body, [1]);
    world.set_policy(&names[0], &[0; 7]).unwrap();
    world.set_policy(&names[1], &[0; 2]).unwrap();
}
