//! The engine without its edge.

use broker_core::{AckDeadline, DeadLetterPolicy, PushConfig};
use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::engine::Message;

fn options(dir: std::path::PathBuf) -> Options {
    Options { checkpoint_bytes: 1 << 20, segment_bytes: 1 << 20, ..Options::new(dir) }
}

async fn engine(dir: &TempDir) -> Running {
    let dir = dir.path().to_owned();
    let running = open(options(dir)).await.unwrap();
    let name = topic();
    running.engine.create_topic(TopicConfig::new(name)).await.unwrap();
    running
}

fn topic() -> TopicName {
    "projects/p/topics/orders".parse().unwrap()
}

fn message() -> Vec<Body> {
    vec![Message { data: Bytes::from_static(b"data"), ..Default::default() }.into()]
}

#[tokio::test]
async fn a_publish_is_refused_while_too_many_bytes_wait() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let all = u32::try_from(QUEUE_BYTES_MAX).unwrap();
    let taken = Arc::clone(&running.engine.queue_bytes).acquire_many_owned(all).await.unwrap();
    let refused = running.engine.publish(topic(), message()).await;
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    drop(taken);
    running.engine.publish(topic(), message()).await.unwrap();
    assert_eq!(running.engine.queue_bytes.available_permits(), QUEUE_BYTES_MAX, "what was taken comes back");
    running.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_refused_while_too_many_commands_wait_and_an_ack_waits_with_them() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let engine = running.engine.clone();
    let (go_on, blocked) = std::sync::mpsc::channel::<()>();
    let (reached, blocking) = oneshot::channel();
    let block = engine.clone();
    let blocker = tokio::spawn(async move {
        let block = block.ask(move |_| {
            reached.send(()).ok();
            blocked.recv().ok();
            Ok::<_, Error>(())
        });
        block.await
    });
    blocking.await.unwrap();
    let mut waiting = Vec::new();
    assert_eq!(engine.commands.max_capacity(), QUEUE_COMMANDS_MAX);
    // The engine's own tasks may have put a command there as well, so the queue is filled until it takes no more.
    loop {
        let (command, answer) = command(Bodies::default(), |_| Ok::<_, Error>(()));
        match engine.commands.try_send(command) {
            Ok(()) => waiting.push(answer),
            Err(_) => break,
        }
    }
    let refused = engine.publish(topic(), message()).await;
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    let subscription: SubscriptionName = "projects/p/subscriptions/none".parse().unwrap();
    let ack = tokio::spawn({
        let engine = engine.clone();
        async move { engine.acknowledge(subscription, Vec::new()).await }
    });
    go_on.send(()).unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    let answered = ack.await.unwrap();
    assert!(matches!(answered, Err(Error::Refused(broker_core::Error::SubscriptionNotFound(_)))), "{answered:?}");
    blocker.await.unwrap().unwrap();
    running.close().await.unwrap();
}

#[tokio::test]
async fn what_waits_when_the_engine_stops_is_answered_and_durable_and_what_comes_later_is_refused() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let engine = running.engine.clone();
    // On one thread the engine task gets its turn only after both are in the queue.
    let (published, closed) = tokio::join!(engine.publish(topic(), message()), running.close());
    closed.unwrap();
    published.unwrap();
    let refused = engine.publish(topic(), message()).await;
    assert!(matches!(refused, Err(Error::Unavailable)), "{refused:?}");
    drop(engine);
    let again = open(options(dir.path().to_owned())).await.unwrap();
    let ids = again.engine.publish(topic(), message()).await.unwrap();
    assert_eq!(ids.iter().collect::<Vec<_>>(), [message_id(TopicId(1), Seq(2))]);
    again.close().await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_needed_and_not_there_ends_the_engine_and_a_settled_one_is_passed_over() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let engine = running.engine.clone();
    let name: SubscriptionName = "projects/p/subscriptions/payment".parse().unwrap();
    engine.create_subscription(SubscriptionConfig::new(name.clone(), topic())).await.unwrap();
    for _ in 0..3 {
        engine.publish(topic(), message()).await.unwrap();
    }
    let one = Pull {
        messages_max: 1,
        bytes_max: 0,
        ack_deadline: None,
        patience: std::time::Duration::ZERO,
        taker: Taker::Client,
    };
    let leases = engine.pull(name.clone(), one).await.unwrap();
    engine.acknowledge(name, vec![leases[0].ack_id.clone()]).await.unwrap();

    let meta = Meta { bytes: 1, key: None };
    let looked_at = move |state: &mut State| {
        let subscription = state.core.subscription_ids().next().unwrap();
        let missing = |from, metas: &[u64], next| {
            let metas: Vec<_> = metas.iter().map(|seq| (Seq(*seq), meta)).collect();
            state.missing(subscription, Seq(from), &metas, Seq(next)).map(|seq| seq.0)
        };
        Ok::<_, Error>([missing(1, &[2, 3], 4), missing(1, &[3], 4), missing(2, &[2], 4), missing(1, &[], 2)])
    };
    assert_eq!(engine.ask(looked_at).await.unwrap(), [None, Some(2), Some(3), None]);

    let settled = vec![(TopicId(1), Seq(1)), (TopicId(9), Seq(1)), (TopicId(1), Seq(9))];
    engine.check_settled(settled).await.unwrap();
    engine.check_settled(vec![(TopicId(1), Seq(1)), (TopicId(1), Seq(3))]).await.unwrap_err();
    let failure = running.task.await.unwrap().unwrap_err();
    assert_eq!(failure.to_string(), "message 3 of topic 1 is not in the journal");
}

#[tokio::test]
async fn a_state_beyond_the_limit_of_checkpoints_stops_nobody_and_is_replayed() {
    let dir = TempDir::new().unwrap();
    let limited = Options { checkpoint_bytes_max: 0, checkpoint_bytes: 1, ..options(dir.path().to_owned()) };
    let running = open(limited).await.unwrap();
    running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
    for _ in 0..5 {
        running.engine.publish(topic(), message()).await.unwrap();
    }
    running.close().await.unwrap();
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(files.filter(|name| name.to_str().unwrap().starts_with("checkpoint")).count(), 0);
    let again = open(options(dir.path().to_owned())).await.unwrap();
    let ids = again.engine.publish(topic(), message()).await.unwrap();
    assert_eq!(ids.iter().collect::<Vec<_>>(), [message_id(TopicId(1), Seq(6))]);
    again.close().await.unwrap();
}

#[tokio::test]
async fn what_a_stream_has_not_read_when_push_begins_comes_again_and_no_attempt_is_counted() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let engine = running.engine.clone();
    let name: SubscriptionName = "projects/p/subscriptions/payment".parse().unwrap();
    let mut config = SubscriptionConfig::new(name.clone(), topic());
    // Attempts are told only with a dead-letter policy.
    config.dead_letter = Some(DeadLetterPolicy::new(topic(), 5).unwrap());
    engine.create_subscription(config).await.unwrap();
    let ack_deadline = AckDeadline::from_ms(600_000).unwrap();
    let flow = Flow { messages_max: 0, bytes_max: 0, ack_deadline };
    let leases = engine.subscribe(name.clone(), flow).await.unwrap();
    // Each fills a response, so that one is read ahead and the others wait.
    let large = Message { data: vec![0; 300 << 10].into(), ..Default::default() };
    engine.publish(topic(), vec![large.into(); 3]).await.unwrap();
    while engine.stats().await.unwrap().subscriptions[0].outstanding_messages < 3 {
        tokio::task::yield_now().await;
    }
    let push = PushConfig::new("http://localhost/".to_owned(), None, None).unwrap();
    for push in [Some(push), None] {
        let change = move |config: &SubscriptionConfig| Ok(SubscriptionConfig { push, ..config.clone() });
        engine.update_subscription(name.clone(), change).await.unwrap();
    }
    drop(leases);
    let patience = std::time::Duration::from_secs(30);
    let one = Pull { messages_max: 1, bytes_max: 0, ack_deadline: Some(ack_deadline), patience, taker: Taker::Client };
    for seq in 1..=3 {
        let leases = engine.pull(name.clone(), one).await.unwrap();
        assert_eq!(leases.first().map(|lease| lease.attempt), Some(Some(1)), "message {seq}");
    }
    drop(engine);
    running.close().await.unwrap();
}

#[tokio::test]
async fn a_redrive_of_more_than_is_read_at_a_time_leaves_no_message_out() {
    let dir = TempDir::new().unwrap();
    let running = engine(&dir).await;
    let engine = running.engine.clone();
    let name: SubscriptionName = "projects/p/subscriptions/operator".parse().unwrap();
    engine.create_subscription(SubscriptionConfig::new(name.clone(), topic())).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let large = Message { data: vec![0; 5 << 20].into(), ..Default::default() };
        ids.extend(engine.publish(topic(), vec![large.into()]).await.unwrap().iter());
    }
    // None of them tells where it came from.
    for chosen in [Vec::new(), ids.clone()] {
        let redriven = engine.redrive(name.clone(), Redrive { ids: chosen, messages_max: 10 }).await.unwrap();
        let skipped: Vec<&MessageId> = redriven.shown.iter().map(|skipped| &skipped.message_id).collect();
        assert_eq!(skipped, ids.iter().collect::<Vec<_>>());
    }
    drop(engine);
    running.close().await.unwrap();
}
