//! Google's own client library for Rust, unmodified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::{Publisher, Subscriber};
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler;
use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;

use crate::harness::{Client, PATIENCE, SUBSCRIPTION, TOPIC, TestBroker};
use crate::started::BrokerProcess;

async fn publisher(url: &str) -> Publisher {
    let credentials = anonymous::Builder::new().build();
    Publisher::builder(TOPIC).with_endpoint(url).with_credentials(credentials).build().await.unwrap()
}

async fn subscriber(url: &str) -> Subscriber {
    let credentials = anonymous::Builder::new().build();
    Subscriber::builder().with_endpoint(url).with_credentials(credentials).build().await.unwrap()
}

async fn next(stream: &mut MessageStream) -> (Message, Handler) {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("a message comes").unwrap().unwrap()
}

fn text(message: &Message) -> String {
    String::from_utf8(message.data.to_vec()).unwrap()
}

fn of_key(key: &str, text: &str) -> Message {
    Message::new().set_data(text.to_owned()).set_ordering_key(key)
}

/// A subscription with ordering, no backoff, and a dead-letter topic with a subscription `dead` of its own.
async fn strict_subscription(client: &Client) {
    client.create_topic(TOPIC).await;
    client.create_topic("projects/p/topics/dead").await;
    client.create_subscription("projects/p/subscriptions/dead", "projects/p/topics/dead").await;
    let zero = Some(prost_types::Duration::default());
    client
        .create(pb::Subscription {
            name: SUBSCRIPTION.to_owned(),
            topic: TOPIC.to_owned(),
            enable_message_ordering: true,
            retry_policy: Some(pb::RetryPolicy { minimum_backoff: zero, maximum_backoff: zero }),
            dead_letter_policy: Some(pb::DeadLetterPolicy {
                dead_letter_topic: "projects/p/topics/dead".to_owned(),
                max_delivery_attempts: 5,
            }),
            ..Default::default()
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_received_and_acked() {
    let (broker, client) = TestBroker::with_subscription().await;
    let publisher = publisher(&broker.url).await;
    let mut stream = subscriber(&broker.url).await.subscribe(SUBSCRIPTION).build();
    let published: Vec<_> =
        (0..500).map(|number| publisher.publish(Message::new().set_data(number.to_string()))).collect();
    let mut ids = BTreeSet::new();
    for message in published {
        ids.insert(message.await.unwrap());
    }
    let mut received = BTreeSet::new();
    while received.len() < 500 {
        let (message, handler) = next(&mut stream).await;
        assert!(received.insert(message.message_id), "a message came twice");
        handler.ack();
    }
    assert_eq!(received, ids);
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nacked_message_comes_again_with_the_next_attempt_and_then_goes_to_the_dead_letter_topic() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    strict_subscription(&client).await;
    publisher(&broker.url).await.publish(Message::new().set_data("bad")).await.unwrap();
    let subscriber = subscriber(&broker.url).await;
    let mut stream = subscriber.subscribe(SUBSCRIPTION).build();
    for attempt in 1..=5 {
        let (message, handler) = next(&mut stream).await;
        assert_eq!((text(&message).as_str(), handler.delivery_attempt()), ("bad", Some(attempt)));
        handler.nack();
    }
    let mut dead = subscriber.subscribe("projects/p/subscriptions/dead").build();
    let (message, handler) = next(&mut dead).await;
    handler.ack();
    assert_eq!(text(&message), "bad");
    assert_eq!(message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0 && stats.dead_lettered_messages == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_key_are_handled_in_order_although_one_in_the_middle_is_nacked() {
    const COUNT: usize = 200;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    strict_subscription(&client).await;
    let publisher = publisher(&broker.url).await;
    let published: Vec<_> = (0..COUNT).map(|number| publisher.publish(of_key("k", &number.to_string()))).collect();
    for message in published {
        message.await.unwrap();
    }
    let mut stream = subscriber(&broker.url).await.subscribe(SUBSCRIPTION).build();
    let mut handled = Vec::new();
    let mut refused = false;
    while handled.len() < COUNT {
        let (message, handler) = next(&mut stream).await;
        let number: usize = text(&message).parse().unwrap();
        if number == 100 && !refused {
            refused = true;
            handler.nack();
        } else if number == handled.len() {
            handled.push(number);
            handler.ack();
        } else {
            // What came after the refused one, on leases that are revoked with it.
            assert!(refused && number > handled.len(), "{number} comes after {}", handled.len());
            drop(handler);
        }
    }
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_of_the_client_bounds_what_is_out() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.publish(vec![crate::harness::message("x"); 100]).await.unwrap();
    let mut stream = subscriber(&broker.url).await.subscribe(SUBSCRIPTION).set_max_outstanding_messages(5).build();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(next(&mut stream).await.1);
    }
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 5);
    for _ in 0..95 {
        held.remove(0).ack();
        held.push(next(&mut stream).await.1);
        assert!(client.stats(SUBSCRIPTION).await.outstanding_messages <= 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_delivers_every_publish_that_it_confirmed() {
    const KILLS: usize = 5;
    const CONFIRMED_BETWEEN_KILLS: u64 = 400;
    let dir = TempDir::new().unwrap();
    // Small, so that checkpoints, rolls and removals happen under the kills too.
    let small = ["--segment-bytes", "65536", "--checkpoint-bytes", "65536"];
    let mut broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let (url, listen) = (broker.url(), broker.address.to_string());
    strict_subscription(&Client::connect(&url).await).await;

    let stop = Arc::new(AtomicBool::new(false));
    let confirmed_count = Arc::new(AtomicU64::new(0));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (url, stop, count) = (url.clone(), stop.clone(), confirmed_count.clone());
            tokio::spawn(publish_until(publisher, url, stop, count))
        })
        .collect();
    let (received, receiving) = tokio::sync::mpsc::unbounded_channel();
    let mut stream = subscriber(&url).await.subscribe(SUBSCRIPTION).set_max_outstanding_messages(100).build();
    let consumer = tokio::spawn(async move {
        while let Some(Ok((message, handler))) = stream.next().await {
            received.send((message.ordering_key.clone(), text(&message))).ok();
            handler.ack();
        }
    });

    for _ in 0..KILLS {
        let goal = confirmed_count.load(Ordering::Relaxed) + CONFIRMED_BETWEEN_KILLS;
        let begun = Instant::now();
        while confirmed_count.load(Ordering::Relaxed) < goal {
            assert!(begun.elapsed() < 2 * PATIENCE, "nothing is confirmed any more");
            tokio::task::yield_now().await;
        }
        broker.kill();
        broker = BrokerProcess::start_with(dir.path(), &listen, &small);
    }
    stop.store(true, Ordering::Relaxed);
    let mut confirmed = BTreeSet::new();
    for publisher in publishers {
        confirmed.extend(publisher.await.unwrap());
    }
    assert!(confirmed.len() as u64 >= KILLS as u64 * CONFIRMED_BETWEEN_KILLS);

    let mut missing = confirmed;
    let mut receiving = receiving;
    let mut last_of_key: BTreeMap<String, u64> = BTreeMap::new();
    while !missing.is_empty() {
        let received = tokio::time::timeout(PATIENCE, receiving.recv()).await;
        let (key, text) = received.unwrap_or_else(|_| panic!("{} confirmed messages are lost", missing.len())).unwrap();
        missing.remove(&text);
        let number: u64 = text.rsplit('-').next().unwrap().parse().unwrap();
        let last = last_of_key.entry(key).or_default();
        // Repeats are allowed, gaps are not: what is skipped would be out of order.
        assert!(number <= *last + 1, "{text} after {last}");
        *last = number.max(*last);
    }
    consumer.abort();
    drop(broker);
}

/// Publishes 1, 2, 3 … under one key, each until it is confirmed; answers what was confirmed.
async fn publish_until(
    publisher: usize,
    url: String,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> BTreeSet<String> {
    let key = format!("key-{publisher}");
    let client = self::publisher(&url).await;
    let mut confirmed = BTreeSet::new();
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{publisher}-{number}");
        match tokio::time::timeout(Duration::from_secs(10), client.publish(of_key(&key, &text))).await {
            Ok(Ok(_)) => {
                confirmed.insert(text);
                count.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
            // The outcome is unknown, so the same message is published again.
            Ok(Err(_)) | Err(_) => client.resume_publish(&key),
        }
    }
    confirmed
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exactly_once_delivery_a_confirmed_ack_holds_although_the_broker_is_killed() {
    const COUNT: usize = 300;
    let dir = TempDir::new().unwrap();
    let mut broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &[]);
    let (url, listen) = (broker.url(), broker.address.to_string());
    let client = Client::connect(&url).await;
    client.create_topic(TOPIC).await;
    let (name, topic) = (SUBSCRIPTION.to_owned(), TOPIC.to_owned());
    let subscription = pb::Subscription { name, topic, enable_exactly_once_delivery: true, ..Default::default() };
    client.create(subscription).await.unwrap();
    let publisher = publisher(&url).await;
    let published: Vec<_> =
        (0..COUNT).map(|number| publisher.publish(Message::new().set_data(number.to_string()))).collect();
    for message in published {
        message.await.unwrap();
    }
    let mut stream = subscriber(&url).await.subscribe(SUBSCRIPTION).set_max_outstanding_messages(20).build();
    let mut confirmed = BTreeSet::new();
    let mut kills = [COUNT / 2].into_iter().peekable();
    while confirmed.len() < COUNT {
        let (message, handler) = next(&mut stream).await;
        let Handler::ExactlyOnce(handler) = handler else { panic!("the client was not told") };
        assert!(!confirmed.contains(&message.message_id), "a message came again after its ack was confirmed");
        // An ack that can't be confirmed says so, and its message comes again.
        if handler.confirmed_ack().await.is_ok() {
            confirmed.insert(message.message_id);
        }
        if kills.next_if(|goal| confirmed.len() >= *goal).is_some() {
            broker.kill();
            broker = BrokerProcess::start_with(dir.path(), &listen, &[]);
        }
    }
    Client::connect(&url).await.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
}
