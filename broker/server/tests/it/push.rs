//! Push subscriptions, with an HTTP endpoint of the test's own.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use orderflow_proto::google::pubsub::v1 as pb;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tonic::Code;

use crate::harness::{Client, PATIENCE, SUBSCRIPTION, TOPIC, TestBroker, keyed, message};
use crate::started::BrokerProcess;

const DEAD_TOPIC: &str = "projects/p/topics/dead";
const DEAD: &str = "projects/p/subscriptions/dead";

/// Takes what is pushed, and answers as the test says.
struct Endpoint {
    address: SocketAddr,
    posts: mpsc::UnboundedReceiver<Post>,
}

#[derive(Clone, Debug)]
struct Post {
    headers: HeaderMap,
    body: Value,
}

impl Endpoint {
    async fn start(answer: impl Fn(&Post) -> StatusCode + Clone + Send + Sync + 'static) -> Self {
        Self::start_with(move |post| std::future::ready(answer(&post))).await
    }

    async fn start_with<F, R>(answer: F) -> Self
    where
        F: Fn(Post) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = StatusCode> + Send,
    {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn start_on<F, R>(listener: TcpListener, answer: F) -> Self
    where
        F: Fn(Post) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = StatusCode> + Send,
    {
        let address = listener.local_addr().unwrap();
        let (heard, posts) = mpsc::unbounded_channel();
        let handle = move |headers: HeaderMap, body: Bytes| async move {
            let post = Post { headers, body: serde_json::from_slice(&body).unwrap_or_default() };
            let status = answer(post.clone()).await;
            heard.send(post).ok();
            status
        };
        let router = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, posts }
    }

    fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    async fn next(&mut self) -> Post {
        tokio::time::timeout(PATIENCE, self.posts.recv()).await.expect("a message is pushed").unwrap()
    }
}

impl Post {
    fn text(&self) -> String {
        use base64::Engine as _;
        let data = self.body["message"]["data"].as_str().unwrap();
        String::from_utf8(base64::prelude::BASE64_STANDARD.decode(data).unwrap()).unwrap()
    }

    fn attempt(&self) -> Option<u64> {
        self.body["deliveryAttempt"].as_u64()
    }
}

fn pushed_to(url: String) -> pb::Subscription {
    pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        push_config: Some(pb::PushConfig { push_endpoint: url, ..Default::default() }),
        ..Default::default()
    }
}

/// As [`pushed_to`], with no backoff and with a dead-letter topic, which is created with a subscription of its own.
async fn with_dead_letters(client: &Client, url: String) -> pb::Subscription {
    client.create_topic(DEAD_TOPIC).await;
    client.create_subscription(DEAD, DEAD_TOPIC).await;
    let zero = Some(prost_types::Duration::default());
    pb::Subscription {
        retry_policy: Some(pb::RetryPolicy { minimum_backoff: zero, maximum_backoff: zero }),
        dead_letter_policy: Some(pb::DeadLetterPolicy {
            dead_letter_topic: DEAD_TOPIC.to_owned(),
            max_delivery_attempts: 5,
        }),
        ..pushed_to(url)
    }
}

async fn modify(client: &Client, url: &str) {
    let push_config = Some(pb::PushConfig { push_endpoint: url.to_owned(), ..Default::default() });
    let request = pb::ModifyPushConfigRequest { subscription: SUBSCRIPTION.to_owned(), push_config };
    client.subscriber.clone().modify_push_config(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_posted_and_a_good_answer_acks_it_also_after_a_restart() {
    let mut endpoint = Endpoint::start(|_| StatusCode::NO_CONTENT).await;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let created = client.create(pushed_to(endpoint.url())).await.unwrap();
    assert_eq!(created.push_config.unwrap().push_endpoint, endpoint.url());
    let mut expected: HashSet<String> = (0..20).map(|number| number.to_string()).collect();
    let ids = client.publish(expected.iter().map(|text| message(text)).collect()).await.unwrap();
    while !expected.is_empty() {
        let post = endpoint.next().await;
        assert!(expected.remove(&post.text()), "{} came twice", post.text());
        assert_eq!((&post.body["subscription"], post.attempt()), (&SUBSCRIPTION.into(), None));
        assert!(ids.iter().any(|id| post.body["message"]["messageId"] == *id.as_str()), "{post:?}");
        assert_eq!(post.headers["content-type"], "application/json");
    }
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
    let broker = broker.restart().await;
    broker.client().await.publish_texts(&["later"]).await;
    assert_eq!(endpoint.next().await.text(), "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_comes_again_and_ends_in_the_dead_letter_topic_while_others_pass() {
    let refuse = |post: &Post| match post.text().as_str() {
        "bad" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    let mut endpoint = Endpoint::start(refuse).await;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create(with_dead_letters(&client, endpoint.url()).await).await.unwrap();
    client.publish_texts(&["bad", "good"]).await;
    let (mut attempts, mut good) = (Vec::new(), 0);
    while attempts.len() < 5 || good == 0 {
        let post = endpoint.next().await;
        if post.text() == "bad" { attempts.extend(post.attempt()) } else { good += 1 }
    }
    assert_eq!((attempts, good), (vec![1, 2, 3, 4, 5], 1));
    client.until(DEAD, |stats| stats.backlog_messages == 1).await;
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_there_costs_no_attempt_and_gets_everything_once_it_is_also_after_a_kill() {
    // A socket that does not listen refuses connections, and keeps its port from everybody else.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = socket.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create(with_dead_letters(&client, format!("http://{nobody}/")).await).await.unwrap();
    client.publish_texts(&["a", "b", "c"]).await;
    broker.until_logged("can't be reached");
    broker.kill();
    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    broker.until_logged("can't be reached");
    let mut endpoint = Endpoint::start_on(socket.listen(128).unwrap(), async |_| StatusCode::OK);
    let mut texts = HashSet::new();
    while texts.len() < 3 {
        let post = endpoint.next().await;
        assert_eq!(post.attempt(), Some(1), "{post:?}");
        texts.insert(post.text());
    }
    broker.until_logged("is back");
    let client = Client::connect(&broker.url()).await;
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_are_posted_one_at_a_time_and_in_order_also_when_some_are_refused() {
    const COUNT: usize = 30;
    #[derive(Default)]
    struct Seen {
        open: HashSet<String>,
        refused: HashSet<String>,
        accepted: BTreeMap<String, Vec<String>>,
        overlaps: usize,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = seen.clone();
    let answer = move |post: Post| {
        let (seen, text) = (shared.clone(), post.text());
        async move {
            let key = post.body["message"]["orderingKey"].as_str().unwrap().to_owned();
            {
                let mut seen = seen.lock().unwrap();
                seen.overlaps += usize::from(!seen.open.insert(key.clone()));
            }
            tokio::task::yield_now().await;
            let mut seen = seen.lock().unwrap();
            seen.open.remove(&key);
            if text.ends_with('7') && seen.refused.insert(text.clone() + &key) {
                return StatusCode::BAD_REQUEST;
            }
            seen.accepted.entry(key).or_default().push(text);
            StatusCode::OK
        }
    };
    let endpoint = Endpoint::start_with(answer).await;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    let subscription = pb::Subscription { enable_message_ordering: true, ..pushed_to(endpoint.url()) };
    client.create(subscription).await.unwrap();
    let texts: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let of_all_keys = |text: &String| ["a", "b", "c"].map(|key| keyed(key, text));
    client.publish(texts.iter().flat_map(of_all_keys).collect()).await.unwrap();
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;
    let seen = seen.lock().unwrap();
    assert_eq!((seen.overlaps, seen.refused.len()), (0, 9));
    for (key, accepted) in &seen.accepted {
        assert_eq!(*accepted, texts, "key {key}");
    }
    assert_eq!(seen.accepted.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_changes_between_pull_and_push_while_it_is_in_use() {
    let mut endpoint = Endpoint::start(|_| StatusCode::OK).await;
    let (_broker, client) = TestBroker::with_subscription().await;
    let stream = client.stream().await;
    client.until(SUBSCRIPTION, |stats| stats.consumers == 1).await;
    modify(&client, &endpoint.url()).await;
    assert_eq!(stream.end().await.unwrap_err().code(), Code::FailedPrecondition);
    let pull = pb::PullRequest { subscription: SUBSCRIPTION.to_owned(), max_messages: 1, ..Default::default() };
    let refused = client.subscriber.clone().pull(pull).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(client.stream().await.end().await.unwrap_err().code(), Code::FailedPrecondition);
    client.publish_texts(&["pushed"]).await;
    assert_eq!(endpoint.next().await.text(), "pushed");
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;

    let mut other = Endpoint::start(|_| StatusCode::OK).await;
    modify(&client, &other.url()).await;
    client.publish_texts(&["elsewhere"]).await;
    assert_eq!(other.next().await.text(), "elsewhere");
    client.until(SUBSCRIPTION, |stats| stats.backlog_messages == 0).await;

    modify(&client, "").await;
    client.publish_texts(&["pulled"]).await;
    assert_eq!(crate::harness::texts(&client.pull_all(1).await), ["pulled"]);
    assert!(endpoint.posts.try_recv().is_err() && other.posts.try_recv().is_err(), "nothing more was pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_answers_that_are_open() {
    let (arrived, mut arrivals) = mpsc::channel::<()>(1);
    let go_on = Arc::new(tokio::sync::Notify::new());
    let wait = go_on.clone();
    let answer = move |_| {
        let (arrived, wait) = (arrived.clone(), wait.clone());
        async move {
            arrived.send(()).await.ok();
            wait.notified().await;
            StatusCode::OK
        }
    };
    let mut endpoint = Endpoint::start_with(answer).await;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.create_topic(TOPIC).await;
    client.create(pushed_to(endpoint.url())).await.unwrap();
    client.publish_texts(&["slow"]).await;
    arrivals.recv().await.unwrap();
    broker.stop();
    go_on.notify_one();
    let broker = broker.restart().await;
    assert_eq!(endpoint.next().await.text(), "slow");
    assert_eq!(broker.client().await.stats(SUBSCRIPTION).await.backlog_messages, 0, "the ack came before the end");
}
