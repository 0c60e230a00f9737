//! A broker that is killed at any moment, over and over, while clients publish, consume, nack and change settings.
//!
//! `ORDERFLOW_KILLS` sets how often, `ORDERFLOW_SEED` which moments.

mod ledger;
mod load;
mod operator;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::harness::{Client, PATIENCE};
use crate::started::{BrokerProcess, serve};
use ledger::Ledger;
use load::World;

/// A project of its own, so that a client that comes to another test's broker finds nothing there.
const PROJECT: &str = "projects/storm";
const TOPIC: &str = "projects/storm/topics/orders";
const STRICT: &str = "projects/storm/subscriptions/strict";
const SHARED: &str = "projects/storm/subscriptions/shared";
const PLAIN: &str = "projects/storm/subscriptions/plain";
const FILTERED: &str = "projects/storm/subscriptions/filtered";

const KILLS_DEFAULT: usize = 20;
const PUBLISHERS: u64 = 4;
/// What happens at most between a start and the next kill.
const EVENTS_BETWEEN_KILLS_MAX: u64 = 2_000;
/// One start in so many is killed before it serves.
const STILLBORN_ONE_IN: u32 = 5;
/// How long such a start lives at most.
const STILLBORN_MAX: Duration = Duration::from_millis(80);
/// Small, so that segments are closed, carried and removed and checkpoints are written all the time.
const SMALL: [&str; 4] = ["--segment-bytes", "65536", "--checkpoint-bytes", "65536"];

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_at_any_moment_keeps_every_promise() {
    let kills = setting("ORDERFLOW_KILLS", KILLS_DEFAULT);
    let seed = setting("ORDERFLOW_SEED", 1);
    let mut rng = Rng::with_seed(seed);
    let dir = TempDir::new().unwrap();
    let mut broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &SMALL);
    set_up(&broker.url()).await;
    let (announce, announced) = watch::channel((0, broker.url()));
    let ledger = Arc::new(Ledger::default());
    let publishing = CancellationToken::new();
    let world =
        World { ledger: ledger.clone(), broker: announced, publishing: publishing.clone(), streams: Arc::default() };
    let operator = tokio::spawn(operator::operate(world.clone()));
    let (publishers, consumers) = load::start(&world, PUBLISHERS, seed);

    for run in 1..=kills {
        let goal = ledger.progress() + rng.u64(0..EVENTS_BETWEEN_KILLS_MAX);
        let mut moved = (ledger.progress(), Instant::now());
        while ledger.progress() < goal {
            if ledger.progress() > moved.0 {
                moved = (ledger.progress(), Instant::now());
            }
            let failed =
                consumers.iter().chain(&publishers).any(|client| client.is_finished()) || operator.is_finished();
            assert!(!failed, "a client saw what it must not see");
            assert!(moved.1.elapsed() < PATIENCE, "nothing happens any more in run {run}");
            tokio::task::yield_now().await;
        }
        broker.kill();
        while rng.u32(0..STILLBORN_ONE_IN) == 0 {
            kill_in_recovery(dir.path(), STILLBORN_MAX.mul_f64(rng.f64())).await;
        }
        broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &SMALL);
        announce.send((run, broker.url())).unwrap();
    }

    publishing.cancel();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let changes = operator.await.unwrap();
    let client = Client::connect(&broker.url()).await;
    for subscription in [STRICT, SHARED, PLAIN, FILTERED] {
        client.until(subscription, |stats| stats.backlog_messages == 0).await;
    }
    for consumer in consumers {
        assert!(!consumer.is_finished(), "a consumer saw what it must not see");
        consumer.abort();
    }
    ledger.judge(FILTERED, |parcel| parcel.number.is_multiple_of(2));
    let totals = ledger.totals();
    println!("{kills} kills with seed {seed}: {totals:?}, {changes} changes of settings and snapshots");
    assert!(
        totals.published > kills && totals.acks_confirmed > kills && changes > 0,
        "too little happened: {totals:?}"
    );
    broker.kill();
}

async fn set_up(url: &str) {
    let client = Client::connect(url).await;
    let dead = format!("{PROJECT}/topics/dead");
    client.create_topic(TOPIC).await;
    client.create_topic(&dead).await;
    let (topic, zero) = (TOPIC.to_owned(), Some(prost_types::Duration::default()));
    let strict = pb::Subscription {
        name: STRICT.to_owned(),
        topic: topic.clone(),
        enable_message_ordering: true,
        enable_exactly_once_delivery: true,
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: zero, maximum_backoff: zero }),
        // So that deliveries tell their attempts; no message fails so often.
        dead_letter_policy: Some(pb::DeadLetterPolicy { dead_letter_topic: dead, max_delivery_attempts: 100 }),
        ..Default::default()
    };
    client.create(pb::Subscription { name: SHARED.to_owned(), ..strict.clone() }).await.unwrap();
    client.create(strict).await.unwrap();
    client.create_subscription(PLAIN, TOPIC).await;
    let (name, filter) = (FILTERED.to_owned(), "attributes.parity = \"even\"".to_owned());
    client.create(pb::Subscription { name, topic, filter, ..Default::default() }).await.unwrap();
}

/// Starts a broker on the directory and kills it while it recovers, or just after.
async fn kill_in_recovery(dir: &Path, lives: Duration) {
    let mut broker = serve(dir, "127.0.0.1:0", &SMALL).stderr(Stdio::inherit()).spawn().unwrap();
    // Not a wait for anything: the moment of the kill is what the seed chooses.
    tokio::time::sleep(lives).await;
    let ended = broker.try_wait().unwrap();
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert!(ended.is_none(), "the broker has ended by itself: {ended:?}");
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}
