//! Looking inside: figures, a stream of them, peek, and the way back for dead letters.

use std::collections::BTreeSet;

use orderflow_proto::google::pubsub::v1 as pubsub;
use orderflow_proto::orderflow::broker::v1::{
    FailureReason, GetStatsRequest, GetStatsResponse, MessageState, PeekMessagesRequest, PeekMessagesResponse,
    RedriveDeadLettersRequest, RedriveDeadLettersResponse, RedriveSkipReason, WatchStatsRequest,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::bad_input::{Table, seconds};
use crate::harness::{Client, PATIENCE, SUBSCRIPTION, TOPIC, TestBroker, ack_ids, message, texts, with_attributes};

const OTHER: &str = "projects/p/subscriptions/other";
const DEAD: &str = "projects/p/subscriptions/dead";
const DEAD_TOPIC: &str = "projects/p/topics/dead";

impl Client {
    async fn all_stats(&self, project: &str) -> GetStatsResponse {
        let request = GetStatsRequest { project: project.to_owned() };
        self.inspector.clone().get_stats(request).await.unwrap().into_inner()
    }

    async fn peek(&self, request: PeekMessagesRequest) -> Result<PeekMessagesResponse, Status> {
        Ok(self.inspector.clone().peek_messages(request).await?.into_inner())
    }

    async fn redrive(&self, request: RedriveDeadLettersRequest) -> Result<RedriveDeadLettersResponse, Status> {
        Ok(self.inspector.clone().redrive_dead_letters(request).await?.into_inner())
    }
}

fn peek_of(subscription: &str) -> PeekMessagesRequest {
    PeekMessagesRequest { subscription: subscription.to_owned(), ..Default::default() }
}

fn redrive_of(subscription: &str) -> RedriveDeadLettersRequest {
    RedriveDeadLettersRequest { subscription: subscription.to_owned(), ..Default::default() }
}

fn shown(response: &PeekMessagesResponse) -> Vec<String> {
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    response.messages.iter().map(|peeked| text(&peeked.message.as_ref().unwrap().data)).collect()
}

/// A subscription with a dead-letter topic beside one without, and what the first one gave up.
async fn with_dead_letters(texts: &[&str]) -> (TestBroker, Client) {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create_topic(DEAD_TOPIC).await;
    client.create_subscription(DEAD, DEAD_TOPIC).await;
    client.create_subscription(OTHER, TOPIC).await;
    let policy = pubsub::DeadLetterPolicy { dead_letter_topic: DEAD_TOPIC.to_owned(), max_delivery_attempts: 5 };
    let giving_up = pubsub::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        dead_letter_policy: Some(policy),
        ..Default::default()
    };
    client.create(giving_up).await.unwrap();
    client.publish(texts.iter().map(|text| with_data(with_attributes(&[("k", "v")]), text)).collect()).await.unwrap();
    while client.stats(SUBSCRIPTION).await.dead_lettered_messages < texts.len() as u64 {
        let received = client.pull_now(100).await;
        if !received.is_empty() {
            client.modify(ack_ids(&received), 0).await.unwrap();
        }
    }
    (broker, client)
}

fn with_data(message: pubsub::PubsubMessage, text: &str) -> pubsub::PubsubMessage {
    pubsub::PubsubMessage { data: text.to_owned().into(), ..message }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_tell_of_each_subscription_and_topic_and_of_the_broker() {
    let (broker, client) = TestBroker::with_subscription().await;
    client.create_topic("projects/q/topics/elsewhere").await;
    client.publish_texts(&["first", "second", "third"]).await;
    let received = client.pull_all(3).await;
    client.ack(ack_ids(&received[..1])).await.unwrap();
    client.modify(ack_ids(&received[1..2]), 0).await.unwrap();

    let stats = client.all_stats("projects/p").await;
    assert_eq!((stats.topics.len(), stats.subscriptions.len()), (1, 1), "of the project only");
    let subscription = &stats.subscriptions[0];
    assert_eq!((subscription.backlog_messages, subscription.outstanding_messages), (2, 1));
    assert!(!subscription.backlog_bytes_estimated);
    assert!(subscription.backlog_bytes > subscription.outstanding_bytes && subscription.outstanding_bytes > 5);
    assert_eq!((subscription.acked_messages, subscription.delivered_messages), (1, 3));
    assert_eq!((subscription.nacked_attempts, subscription.expired_attempts), (1, 0));
    let oldest = subscription.oldest_unacked_publish_time.unwrap();
    assert_eq!(Some(oldest), received[1].message.as_ref().unwrap().publish_time);
    assert!(subscription.oldest_unacked_age.is_some());
    let topic = &stats.topics[0];
    assert_eq!((topic.topic.as_str(), topic.subscriptions, topic.published_messages), (TOPIC, 1, 3));
    assert_eq!(topic.retained_messages, 2);
    assert!(topic.retained_bytes > 0 && topic.published_bytes > topic.retained_bytes);
    let about = stats.broker.unwrap();
    assert!(about.journal_syncs > 0 && about.journal_segments > 0 && stats.journal_bytes > 0);
    assert_eq!(about.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(client.all_stats("").await.topics.len(), 2);

    let bytes = subscription.backlog_bytes;
    let broker = broker.restart().await;
    let client = broker.client().await;
    let again = client.stats(SUBSCRIPTION).await;
    assert_eq!((again.backlog_bytes, again.backlog_bytes_estimated), (bytes, false));
    assert_eq!(again.oldest_unacked_publish_time, Some(oldest));
    client.pull_all(2).await;
    // The rate covers whole seconds, so it comes when the second is over.
    client.until(SUBSCRIPTION, |stats| stats.delivered_per_second > 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_come_again_and_again_and_the_stream_ends_with_the_broker() {
    let (broker, client) = TestBroker::with_subscription().await;
    let watch = async |project: &str| {
        let request = WatchStatsRequest { project: project.to_owned(), interval: seconds(1) };
        client.inspector.clone().watch_stats(request).await.unwrap().into_inner()
    };
    let (mut first, mut second) = (watch("").await, watch("projects/none").await);
    let mut times = BTreeSet::new();
    for _ in 0..3 {
        let stats = timeout(PATIENCE, first.message()).await.unwrap().unwrap().unwrap().stats.unwrap();
        assert_eq!(stats.subscriptions.len(), 1);
        let time = stats.broker.unwrap().time.unwrap();
        assert!(times.insert((time.seconds, time.nanos)), "each one is taken anew");
    }
    let stats = timeout(PATIENCE, second.message()).await.unwrap().unwrap().unwrap().stats.unwrap();
    assert_eq!(stats.subscriptions.len(), 0);
    let time = stats.broker.unwrap().time.unwrap();
    assert!(times.contains(&(time.seconds, time.nanos)), "all who watch share what is taken");
    broker.stop();
    let end = loop {
        match timeout(PATIENCE, first.message()).await.unwrap() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    drop(client);
    broker.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_takes_nothing_and_goes_page_by_page() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let ids = client.publish_texts(&["one", "two", "three", "four"]).await;
    let received = client.pull_all(4).await;
    client.ack(ack_ids(&received[..1])).await.unwrap();
    client.modify(ack_ids(&received[1..2]), 0).await.unwrap();
    let first = client.peek(PeekMessagesRequest { page_size: 2, data_bytes_max: 3, ..peek_of(SUBSCRIPTION) });
    let first = first.await.unwrap();
    assert_eq!(shown(&first), ["two", "thr"]);
    let two = &first.messages[0];
    assert_eq!(
        (two.state(), two.failed_attempts, two.last_failure()),
        (MessageState::Waiting, 1, FailureReason::Nacked)
    );
    let three = &first.messages[1];
    assert_eq!((three.state(), three.failed_attempts, three.data_bytes), (MessageState::Outstanding, 0, 5));
    assert!(three.until_time.is_some());
    assert_eq!(three.message.as_ref().unwrap().message_id, ids[2]);
    let token = first.next_page_token.clone();
    let rest = client.peek(PeekMessagesRequest { page_size: 2, page_token: token, ..peek_of(SUBSCRIPTION) });
    let rest = rest.await.unwrap();
    assert_eq!((shown(&rest), rest.next_page_token.as_str()), (vec!["four".to_owned()], ""));
    let message_ids = vec![ids[3].clone(), ids[0].clone(), ids[1].clone(), "nonsense".to_owned()];
    let chosen = client.peek(PeekMessagesRequest { message_ids, ..peek_of(SUBSCRIPTION) }).await.unwrap();
    assert_eq!(shown(&chosen), ["two", "four"], "those in the backlog, the oldest first");
    let stats = client.stats(SUBSCRIPTION).await;
    assert_eq!((stats.delivered_messages, stats.nacked_attempts, stats.outstanding_messages), (4, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_early_when_it_is_large() {
    let (_broker, client) = TestBroker::with_subscription().await;
    let large = "x".repeat(2_000_000);
    client.publish_texts(&[&large, &large, "small"]).await;
    let first = client.peek(peek_of(SUBSCRIPTION)).await.unwrap();
    assert_eq!(first.messages.len(), 1);
    let rest = PeekMessagesRequest { page_token: first.next_page_token, ..peek_of(SUBSCRIPTION) };
    let rest = client.peek(rest).await.unwrap();
    assert_eq!((rest.messages.len(), rest.next_page_token.as_str()), (2, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_back_to_their_subscription_alone_as_they_were() {
    let (broker, client) = with_dead_letters(&["a", "b", "c"]).await;
    // Each became a dead letter by itself, so that their order is nobody's promise.
    let before = shown(&client.peek(peek_of(DEAD)).await.unwrap());
    let limited = RedriveDeadLettersRequest { messages_max: 1, ..redrive_of(DEAD) };
    assert_eq!(client.redrive(limited).await.unwrap().redriven_messages, 1);
    let left = client.peek(peek_of(DEAD)).await.unwrap();
    assert_eq!(shown(&left), before[1..]);
    let id = left.messages[1].message.as_ref().unwrap().message_id.clone();
    let chosen = RedriveDeadLettersRequest { message_ids: vec![id.clone()], ..redrive_of(DEAD) };
    assert_eq!(client.redrive(chosen.clone()).await.unwrap().redriven_messages, 1);
    let again = client.redrive(chosen).await.unwrap();
    assert_eq!((again.redriven_messages, again.skipped_messages), (0, 1));
    assert_eq!((again.skipped[0].reason(), &again.skipped[0].message_id), (RedriveSkipReason::NotInBacklog, &id));
    let rest = client.redrive(redrive_of(DEAD)).await.unwrap();
    assert_eq!((rest.redriven_messages, rest.skipped_messages), (1, 0));
    let stats = client.stats(DEAD).await;
    assert_eq!((stats.backlog_messages, stats.redriven_messages), (0, 3));
    assert_eq!(client.stats(OTHER).await.backlog_messages, 3, "it had each of them once");

    let broker = broker.restart().await;
    let client = broker.client().await;
    let received = client.pull_all(3).await;
    assert_eq!(texts(&received), [&*before[0], &*before[2], &*before[1]]);
    for received in &received {
        assert_eq!(received.delivery_attempt, 1, "attempts start anew");
        let attributes = &received.message.as_ref().unwrap().attributes;
        assert_eq!(*attributes, [("k".to_owned(), "v".to_owned())].into());
    }
    assert_eq!(client.stats(OTHER).await.backlog_messages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_set_aside_by_itself_goes_back_too() {
    let (_broker, client) = TestBroker::with_subscription().await;
    client.create_topic(DEAD_TOPIC).await;
    client.create_subscription(DEAD, DEAD_TOPIC).await;
    let aside = [("dead-letter-reason", "no such order"), ("dead-letter-subscription", SUBSCRIPTION), ("ce-id", "7")];
    let aside = with_data(with_attributes(&aside), "poison");
    let request = pubsub::PublishRequest { topic: DEAD_TOPIC.to_owned(), messages: vec![aside] };
    client.publisher.clone().publish(request).await.unwrap();
    assert_eq!(client.redrive(redrive_of(DEAD)).await.unwrap().redriven_messages, 1);
    let received = client.pull_all(1).await;
    assert_eq!(texts(&received), ["poison"]);
    assert_eq!(received[0].message.as_ref().unwrap().attributes, [("ce-id".to_owned(), "7".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_go_back_stays_and_says_why() {
    let (_broker, client) = with_dead_letters(&["a", "b"]).await;
    let request = pubsub::PublishRequest { topic: DEAD_TOPIC.to_owned(), messages: vec![message("from nowhere")] };
    client.publisher.clone().publish(request).await.unwrap();
    let pull = pubsub::PullRequest { subscription: DEAD.to_owned(), max_messages: 1, ..Default::default() };
    client.subscriber.clone().pull(pull).await.unwrap();
    let detach = pubsub::DetachSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.publisher.clone().detach_subscription(detach).await.unwrap();
    let reasons = async || {
        let response = client.redrive(redrive_of(DEAD)).await.unwrap();
        assert_eq!((response.redriven_messages, response.skipped_messages), (0, 3));
        let mut skipped = response.skipped;
        skipped.sort_by_key(|skipped| skipped.message_id.parse::<u64>().unwrap());
        assert_eq!(skipped[1].source_subscription, SUBSCRIPTION);
        skipped.iter().map(|skipped| skipped.reason()).collect::<Vec<_>>()
    };
    let (out, unknown) = (RedriveSkipReason::Outstanding, RedriveSkipReason::SourceUnknown);
    assert_eq!(reasons().await, [out, RedriveSkipReason::SourceDetached, unknown]);
    let delete = pubsub::DeleteSubscriptionRequest { subscription: SUBSCRIPTION.to_owned() };
    client.subscriber.clone().delete_subscription(delete).await.unwrap();
    assert_eq!(reasons().await, [out, RedriveSkipReason::SourceNotFound, unknown]);
    assert_eq!(client.stats(DEAD).await.backlog_messages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_look_inside_that_make_no_sense_are_refused() {
    let table = Table::new().await;
    let bad = Code::InvalidArgument;
    let project = |project: &str| GetStatsRequest { project: project.to_owned() };
    let cases = [(project("nonsense"), bad, "project"), (project("projects/p/topics/t"), bad, "project")];
    table.refuses(cases, async |client, request| client.inspector.clone().get_stats(request).await).await;
    let watch = |interval| WatchStatsRequest { project: String::new(), interval };
    let half = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    let cases = [
        (watch(seconds(0)), bad, "interval"),
        (watch(seconds(-1)), bad, "interval"),
        (watch(seconds(3_601)), bad, "interval"),
        (watch(half), bad, "interval"),
    ];
    table.refuses(cases, async |client, request| client.inspector.clone().watch_stats(request).await).await;
    let many = || vec!["1".to_owned(); 1_001];
    let cases = [
        (peek_of("nonsense"), bad, "subscription"),
        (peek_of("projects/p/subscriptions/none"), Code::NotFound, ""),
        (PeekMessagesRequest { page_size: -1, ..peek_of(SUBSCRIPTION) }, bad, "page_size"),
        (PeekMessagesRequest { page_token: "nonsense".to_owned(), ..peek_of(SUBSCRIPTION) }, bad, "page_token"),
        (PeekMessagesRequest { data_bytes_max: -1, ..peek_of(SUBSCRIPTION) }, bad, "data_bytes_max"),
        (PeekMessagesRequest { message_ids: many(), ..peek_of(SUBSCRIPTION) }, bad, "message_ids"),
    ];
    table.refuses(cases, async |client, request| client.inspector.clone().peek_messages(request).await).await;
    let cases = [
        (redrive_of("nonsense"), bad, "subscription"),
        (redrive_of("projects/p/subscriptions/none"), Code::NotFound, ""),
        (RedriveDeadLettersRequest { messages_max: -1, ..redrive_of(SUBSCRIPTION) }, bad, "messages_max"),
        (RedriveDeadLettersRequest { message_ids: many(), ..redrive_of(SUBSCRIPTION) }, bad, "message_ids"),
    ];
    table.refuses(cases, async |client, request| client.inspector.clone().redrive_dead_letters(request).await).await;
}
