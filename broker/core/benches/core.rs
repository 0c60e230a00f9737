//! What the state machine costs by itself: `cargo bench -p broker-core`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use broker_core::{
    AckDeadline, AckRef, Attach, Broker, ConsumerId, ConsumerKind, Effect, KeyHash, Limits, Meta, Output, Recovery,
    SubscriptionConfig, SubscriptionName, Time, TopicConfig, TopicName,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// When everything happens.
const NOW: Time = Time(1_000_000);
/// Messages of a publication.
const BATCH: usize = 1_000;
/// Ordering keys that messages take turns with.
const KEYS: u64 = 100;

/// A broker with a topic and a subscription.
struct World {
    broker: Broker,
    out: Output,
    topic: TopicName,
    subscription: SubscriptionName,
    metas: Vec<Meta>,
}

impl World {
    fn new(ordered: bool, attached: bool) -> Self {
        let mut out = Output::new();
        let mut broker = Recovery::new().begin(Limits::default(), 1, NOW, &mut out);
        let topic: TopicName = "projects/p/topics/t".parse().unwrap();
        let subscription: SubscriptionName = "projects/p/subscriptions/s".parse().unwrap();
        broker.handle_create_topic(TopicConfig::new(topic.clone()), &mut out).unwrap();
        let config =
            SubscriptionConfig { ordering: ordered, ..SubscriptionConfig::new(subscription.clone(), topic.clone()) };
        broker.handle_create_subscription(config, NOW, &mut out).unwrap();
        if attached {
            let ack_deadline = AckDeadline::default();
            let attach = Attach { messages_max: 0, bytes_max: 0, ack_deadline, kind: ConsumerKind::Stream };
            broker.handle_attach(ConsumerId(1), &subscription, attach, NOW, &mut out).unwrap();
        }
        out.clear();
        let key = |at: u64| ordered.then_some(KeyHash(at % KEYS));
        let metas = (0..BATCH as u64).map(|at| Meta { bytes: 100, key: key(at) }).collect();
        Self { broker, out, topic, subscription, metas }
    }

    fn publish(&mut self) {
        self.broker.handle_publish(&self.topic, &self.metas, |_, _| None, NOW, &mut self.out).unwrap();
    }

    /// What was delivered, as its consumer would ack it.
    fn delivered(&mut self) -> Vec<AckRef> {
        let mut refs = Vec::with_capacity(BATCH);
        for effect in self.out.effects.drain(..) {
            if let Effect::Deliver { subscription, messages, .. } = effect {
                let of = messages.iter().map(|one| AckRef { subscription, seq: one.seq, lease: one.lease });
                refs.extend(of);
            }
        }
        self.out.clear();
        refs
    }

    fn ack(&mut self, refs: &[AckRef]) {
        black_box(self.broker.handle_ack(&self.subscription, refs, NOW, &mut self.out).unwrap());
    }
}

fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("publish without a consumer", |bencher| {
        let mut world = World::new(false, false);
        bencher.iter(|| {
            world.publish();
            world.out.clear();
        });
    });
    for (name, ordered) in [("unordered", false), ("ordered", true)] {
        group.bench_function(BenchmarkId::new("publish and deliver", name), |bencher| {
            let fresh = || World::new(ordered, true);
            bencher.iter_batched_ref(fresh, World::publish, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("ack", name), |bencher| {
            let delivered = || {
                let mut world = World::new(ordered, true);
                world.publish();
                let refs = world.delivered();
                (world, refs)
            };
            bencher.iter_batched_ref(delivered, |(world, refs)| world.ack(refs), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("publish, deliver and ack", name), |bencher| {
            let mut world = World::new(ordered, true);
            bencher.iter(|| {
                world.publish();
                let refs = world.delivered();
                world.ack(&refs);
                world.out.clear();
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = core
}
criterion_main!(benches);
