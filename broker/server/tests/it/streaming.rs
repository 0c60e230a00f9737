use std::time::Duration;

use orderflow_proto::google::pubsub::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::{
    Client, PATIENCE, SUBSCRIPTION, TOPIC, TestBroker, ack_ids, first_request, keyed, message, text, texts,
};

async fn ordered(client: &Client) {
    client.create_topic(TOPIC).await;
    client
        .create(pb::Subscription {
            name: SUBSCRIPTION.to_owned(),
            topic: TOPIC.to_owned(),
            enable_message_ordering: true,
            ..Default::default()
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headers_come_before_the_first_request() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let (requests, stream) = mpsc::channel::<pb::StreamingPullRequest>(1);
    let mut subscriber = client.subscriber.clone();
    let opened = subscriber.streaming_pull(ReceiverStream::new(stream));
    let response = tokio::time::timeout(PATIENCE, opened).await;
    assert!(response.expect("the headers come").is_ok());
    drop(requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_nacks_and_extensions_work_on_the_stream() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["ack", "nack", "keep"]).await;
    let mut stream = client.stream().await;
    let received = stream.take(3).await;
    let [ack, nack, keep] = &received[..] else { unreachable!() };
    stream
        .send(pb::StreamingPullRequest {
            ack_ids: vec![ack.ack_id.clone()],
            modify_deadline_ack_ids: vec![nack.ack_id.clone(), keep.ack_id.clone()],
            modify_deadline_seconds: vec![0, 600],
            ..Default::default()
        })
        .await;
    assert_eq!(texts(&stream.take(1).await), ["nack"]);
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_nacks_and_extensions_of_a_stream_work_by_unary_calls() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["ack", "nack"]).await;
    let mut stream = client.stream().await;
    let received = stream.take(2).await;
    client.ack(vec![received[0].ack_id.clone()]).await.unwrap();
    client.modify(vec![received[1].ack_id.clone()], 0).await.unwrap();
    assert_eq!(texts(&stream.take(1).await), ["nack"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_no_more_messages_than_its_flow_control_allows() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["1", "2", "3", "4", "5"]).await;
    let mut stream = client.open(pb::StreamingPullRequest { max_outstanding_messages: 2, ..first_request() }).await;
    let received = stream.take(2).await;
    assert_eq!(texts(&received), ["1", "2"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 2);
    stream.ack(&received[..1]).await;
    assert_eq!(texts(&stream.take(1).await), ["3"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_no_more_bytes_than_its_flow_control_allows_unless_one_message_does() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let big = "x".repeat(1_000);
    client.publish_texts(&[&big, &big, &big]).await;
    let mut stream = client.open(pb::StreamingPullRequest { max_outstanding_bytes: 2_500, ..first_request() }).await;
    stream.take(2).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 2);
    drop(stream);
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&[&big, &big]).await;
    let mut stream = client.open(pb::StreamingPullRequest { max_outstanding_bytes: 10, ..first_request() }).await;
    let received = stream.take(1).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 1);
    stream.ack(&received).await;
    stream.take(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_first_request_may_say_ends_the_stream_later() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let later = |change: fn(&mut pb::StreamingPullRequest)| {
        let mut request = pb::StreamingPullRequest::default();
        change(&mut request);
        request
    };
    let refused = [
        later(|request| request.subscription = SUBSCRIPTION.to_owned()),
        later(|request| request.client_id = "another".to_owned()),
        later(|request| request.max_outstanding_messages = 1),
        later(|request| request.max_outstanding_bytes = 1),
        later(|request| request.protocol_version = 1),
        later(|request| request.stream_ack_deadline_seconds = 9),
        later(|request| request.stream_ack_deadline_seconds = 601),
        later(|request| request.modify_deadline_seconds = vec![10]),
        later(|request| request.ack_ids = vec!["garbage".to_owned()]),
        later(|request| {
            request.modify_deadline_ack_ids = vec!["garbage".to_owned()];
            request.modify_deadline_seconds = vec![10];
        }),
    ];
    for request in refused {
        let stream = client.open(pb::StreamingPullRequest { client_id: "me".to_owned(), ..first_request() }).await;
        stream.send(request.clone()).await;
        let status = stream.end().await.expect_err(&format!("{request:?} passes"));
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}: {status}");
    }
    let stream = client.open(pb::StreamingPullRequest { client_id: "me".to_owned(), ..first_request() }).await;
    for request in [
        later(|_| {}),
        later(|request| request.client_id = "me".to_owned()),
        later(|request| request.stream_ack_deadline_seconds = 600),
    ] {
        stream.send(request).await;
    }
    client.publish_texts(&["still there"]).await;
    let mut stream = stream;
    stream.take(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_that_is_not_right_ends_the_stream_with_a_status() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let with = |change: fn(&mut pb::StreamingPullRequest)| {
        let mut request = first_request();
        change(&mut request);
        request
    };
    let cases = [
        (with(|request| request.subscription.clear()), Code::InvalidArgument),
        (with(|request| request.subscription = "projects/p/subscriptions/none".to_owned()), Code::NotFound),
        (with(|request| request.stream_ack_deadline_seconds = 0), Code::InvalidArgument),
        (with(|request| request.stream_ack_deadline_seconds = 9), Code::InvalidArgument),
        (with(|request| request.stream_ack_deadline_seconds = 601), Code::InvalidArgument),
        (with(|request| request.ack_ids = vec!["garbage".to_owned()]), Code::InvalidArgument),
    ];
    for (request, code) in cases {
        let status = client.open(request.clone()).await.end().await.unwrap_err();
        assert_eq!(status.code(), code, "{request:?}: {status}");
        client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_ends_the_stream_well_and_may_still_ack() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a"]).await;
    let mut stream = client.stream().await;
    let received = stream.take(1).await;
    let (closed, _) = mpsc::channel(1);
    stream.requests = closed;
    stream.end().await.unwrap();
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 1);
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cancelled_on_a_living_connection_leaves_its_leases_running() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.publish_texts(&["a"]).await;
    let mut stream = client.stream().await;
    let received = stream.take(1).await;
    drop(stream);
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 1);
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_gives_its_messages_to_another_consumer_at_once_and_counts_no_attempt() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let long_backoff = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    client
        .create(pb::Subscription {
            name: SUBSCRIPTION.to_owned(),
            topic: TOPIC.to_owned(),
            ack_deadline_seconds: 600,
            retry_policy: Some(pb::RetryPolicy { minimum_backoff: long_backoff, maximum_backoff: long_backoff }),
            dead_letter_policy: Some(pb::DeadLetterPolicy {
                dead_letter_topic: TOPIC.to_owned(),
                max_delivery_attempts: 5,
            }),
            ..Default::default()
        })
        .await
        .unwrap();
    client.publish_texts(&["a", "b"]).await;
    // After so many in a row the message would be held back, as what may kill its consumers.
    for _ in 1..broker_core::LOSSES_MAX {
        let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = broker.url.clone();
        let stream = doomed
            .spawn(async move {
                let request = pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..first_request() };
                let mut stream = Client::connect(&url).await.open(request).await;
                let received = stream.take(2).await;
                assert_eq!((received[0].delivery_attempt, received[1].delivery_attempt), (1, 1));
                stream
            })
            .await
            .unwrap();
        // Ends the connection's own task, and so closes its socket, as the end of a process does: nobody says goodbye.
        doomed.shutdown_background();
        client.until(SUBSCRIPTION, |stats| stats.consumers == 0 && stats.outstanding_messages == 0).await;
        drop(stream);
    }
    let mut stream = client.stream().await;
    let received = stream.take(2).await;
    assert_eq!(texts(&received), ["a", "b"]);
    assert_eq!(received[0].delivery_attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_come_in_order_also_when_one_in_the_middle_is_refused() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    ordered(&client).await;
    let sent: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    client.publish(sent.iter().map(|text| keyed("k", text)).collect()).await.unwrap();
    let mut stream = client.stream().await;
    let received = stream.take(50).await;
    assert_eq!(texts(&received), sent);
    stream.ack(&received[..20]).await;
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 30).await;
    client.modify(vec![received[20].ack_id.clone()], 0).await.unwrap();
    let again = stream.take(30).await;
    assert_eq!(texts(&again), sent[20..]);
    // The leases of the first round were revoked, and don't ack.
    stream.ack(&received[20..]).await;
    stream.ack(&again[..1]).await;
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 29).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_of_one_subscription_share_its_messages() {
    let (broker, client) = TestBroker::with_subscription().await;
    let other = broker.client().await;
    let mut one = client.stream().await;
    let mut two = other.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers == 2).await;
    let sent: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
    client.publish(sent.iter().map(|text| message(text)).collect()).await.unwrap();
    let (mut first, mut second) = (one.next().await, two.next().await);
    while first.len() + second.len() < 100 {
        tokio::select! {
            more = one.next() => first.extend(more),
            more = two.next() => second.extend(more),
        }
    }
    assert!(!first.is_empty() && !second.is_empty());
    let mut all: Vec<String> = first.iter().chain(&second).map(text).collect();
    all.sort();
    assert_eq!(all, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_read_stalls_nobody_else() {
    let (broker, client) = TestBroker::with_subscription().await;
    let lazy = broker.client().await.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    deliver_20_megabytes(&client).await;
    client.create_subscription("projects/p/subscriptions/other", TOPIC).await;
    let request =
        pb::StreamingPullRequest { subscription: "projects/p/subscriptions/other".to_owned(), ..first_request() };
    let mut busy = client.open(request).await;
    client.publish_texts(&["for the busy one"]).await;
    assert_eq!(texts(&busy.take(1).await), ["for the busy one"]);
    drop(lazy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_subscription_ends_its_streams_with_not_found() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let stream = client.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    let request = pb::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.clone().delete_subscription(request).await.unwrap();
    assert_eq!(stream.end().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_streams_and_waiting_pulls_with_unavailable_well_within_the_grace_period() {
    let (broker, client) = TestBroker::with_subscription().await;
    let stream = client.stream().await;
    let unopened = {
        let (requests, stream) = mpsc::channel::<pb::StreamingPullRequest>(1);
        let response = client.subscriber.clone().streaming_pull(ReceiverStream::new(stream)).await.unwrap();
        (requests, response.into_inner())
    };
    let pull = tokio::spawn({
        let request = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages: 1, ..Default::default() };
        let mut client = client.clone();
        async move { client.subscriber.pull(request).await }
    });
    client.until(SUBSCRIPTION, |stats| stats.consumers == 2).await;
    broker.stop();
    assert_eq!(stream.end().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(pull.await.unwrap().unwrap_err().code(), Code::Unavailable);
    let (_requests, mut responses) = unopened;
    assert_eq!(responses.message().await.unwrap_err().code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(9), broker.stopped()).await.expect("nothing is cut off");
}

/// A broker with one subscription, whose deliveries say which attempt they are.
async fn with_attempts_shown() -> (TestBroker, Client) {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let policy = pb::DeadLetterPolicy { dead_letter_topic: TOPIC.to_owned(), max_delivery_attempts: 5 };
    let subscription = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        dead_letter_policy: Some(policy),
        ..Default::default()
    };
    client.create(subscription).await.unwrap();
    (broker, client)
}

/// Publishes 200 messages and waits until a consumer that does not read has them all: more than a connection holds in its
/// windows, less than the consumer's credit.
async fn deliver_20_megabytes(client: &Client) {
    let big = "x".repeat(100_000);
    for _ in 0..20 {
        client.publish(vec![message(&big); 10]).await.unwrap();
    }
    client.until(SUBSCRIPTION, |stats| stats.outstanding_messages == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_stream_was_never_sent_goes_to_others_at_once_and_counts_no_attempt() {
    let (_broker, client) = with_attempts_shown().await;
    // Nobody reads this stream, and its connection outlives it.
    let first = pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..first_request() };
    let unread = client.open(first).await;
    deliver_20_megabytes(&client).await;
    drop(unread);
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0 && stats.outstanding_messages < 50).await;
    let mut stream = client.stream().await;
    let received = stream.take(150).await;
    assert!(received.iter().all(|message| message.delivery_attempt == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_a_slow_reader_do_not_count_as_failed() {
    let (broker, client) = with_attempts_shown().await;
    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = broker.url.clone();
    let stream = slow.spawn(async move { Client::connect(&url).await.stream().await }).await.unwrap();
    deliver_20_megabytes(&client).await;

    // A lease of 15 s is the clock: when it has ended, the slow one's leases of 10 s would have ended too.
    const CLOCK: &str = "projects/p/subscriptions/clock";
    client
        .create(pb::Subscription {
            name: CLOCK.to_owned(),
            topic: TOPIC.to_owned(),
            ack_deadline_seconds: 15,
            ..Default::default()
        })
        .await
        .unwrap();
    client.publish_texts(&["tick"]).await;
    for _ in 0..2 {
        let request = pb::PullRequest { subscription: CLOCK.to_owned(), max_messages: 1, ..Default::default() };
        let ticks = client.subscriber.clone().pull(request).await.unwrap().into_inner().received_messages;
        assert_eq!(texts(&ticks), ["tick"]);
    }
    slow.shutdown_background();
    drop(stream);
    let mut stream = client.stream().await;
    let received = stream.take(201).await;
    let unharmed = received.iter().filter(|message| message.delivery_attempt == 1).count();
    // What was on its way through the connection can't be told from what the consumer holds.
    assert!(unharmed > 150, "{unharmed} of 201 have no failed attempt");
}
