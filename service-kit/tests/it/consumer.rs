//! The consumer: order, duplicates, poison, outages, and a stop that counts nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Settings, Unavailable};
use service_kit::consumer::{
    CUT_DATA_BYTES_MAX, Consumer, ConsumerConfig, DEAD_LETTER_CUT, DEAD_LETTER_REASON, DEAD_LETTER_SUBSCRIPTION, Error,
    Handler, IN_HAND_MAX, OUTSTANDING_MESSAGES_MAX, Outcome,
};
use service_kit::db::{self, Database};
use service_kit::event::Event;
use service_kit::inbox;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::fake::Fake;

const SUBSCRIPTION: &str = "test.order-events";

const CONFIG: ConsumerConfig =
    ConsumerConfig { subscription: SUBSCRIPTION, dead_letters: "dead-letters", concurrency: 8 };

/// What a test's handler does with an event; the rest is written down.
type Script = Box<dyn Fn(&Event) -> Outcome + Send + Sync>;

/// Writes down what it handles, in order, and does what the script says.
#[derive(Clone)]
struct Recorder {
    script: Arc<Script>,
    handled: Arc<Mutex<Vec<(String, String)>>>,
}

impl Recorder {
    fn new(script: impl Fn(&Event) -> Outcome + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(Box::new(script)), handled: Arc::default() }
    }

    fn by_key(&self) -> HashMap<String, Vec<String>> {
        let mut keys: HashMap<String, Vec<String>> = HashMap::new();
        for (key, data) in self.handled.lock().unwrap().iter() {
            keys.entry(key.clone()).or_default().push(data.clone());
        }
        keys
    }
}

impl Handler for Recorder {
    async fn handle(&self, event: &Event, _: &CancellationToken) -> Outcome {
        tokio::task::yield_now().await;
        let data = String::from_utf8(event.payload.to_vec()).unwrap();
        self.handled.lock().unwrap().push((event.ordering_key.clone(), data));
        (self.script)(event)
    }
}

struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn stop(self) {
        self.token.cancel();
        self.ended().await.unwrap();
    }

    /// Waits until it ends by itself, and fails the test when it does not within the deadline.
    async fn ended(self) -> Result<(), Error> {
        crate::in_time("the consumer ends", self.task).await.unwrap()
    }
}

async fn consume<H: Handler>(fake: &Fake, handler: H) -> Running {
    consume_with(fake, handler, CONFIG.concurrency).await
}

async fn consume_with<H: Handler>(fake: &Fake, handler: H, concurrency: usize) -> Running {
    let token = CancellationToken::new();
    let config = ConsumerConfig { concurrency, ..CONFIG };
    let consumer = Consumer::open(&crate::broker(fake), config, handler).await.unwrap();
    Running { token: token.clone(), task: tokio::spawn(consumer.run(token)) }
}

fn fake() -> Fake {
    let fake = Fake::start();
    fake.subscription(SUBSCRIPTION);
    fake
}

fn put(fake: &Fake, key: &str, id: &str, data: &str) {
    fake.put(SUBSCRIPTION, key, &[("ce-id", id), ("ce-type", "test.Happened")], data);
}

async fn drained(fake: &Fake) {
    crate::until("the subscription is empty", async || fake.is_drained(SUBSCRIPTION)).await;
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|at| at.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_handled_in_order_and_acked() {
    let fake = fake();
    let recorder = Recorder::new(|_| Outcome::Done);
    let count = OUTSTANDING_MESSAGES_MAX as usize;
    for at in 0..count {
        for key in ["a", "b", "c"] {
            put(&fake, key, &format!("{key}{at}"), &at.to_string());
        }
    }
    let running = consume(&fake, recorder.clone()).await;
    drained(&fake).await;
    for key in ["a", "b", "c"] {
        assert_eq!(recorder.by_key()[key], numbers(count));
    }
    assert_eq!(fake.state().nacked, [""; 0]);
    running.stop().await;
}

/// Marks events in the inbox and counts effects, in one transaction.
struct Counter(Database);

impl Handler for Counter {
    async fn handle(&self, event: &Event, _: &CancellationToken) -> Outcome {
        let id = event.id.clone();
        let job = self.0.write(move |connection| {
            Box::pin(async move {
                if inbox::first_time(connection, "test", &id).await? {
                    let sql = "INSERT INTO things (id, name) SELECT COUNT(*), 'effect ' || COUNT(*) FROM things";
                    sqlx::query(sql).execute(connection).await?;
                }
                Ok::<_, db::Error>(())
            })
        });
        job.await.map_or_else(|error| Outcome::Retry(error.to_string()), |()| Outcome::Done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_has_no_second_effect() {
    let (_folder, database) = crate::database().await;
    let fake = fake();
    for _ in 0..20 {
        put(&fake, "a", "the same event", "1");
        put(&fake, "", "another one", "2");
    }
    let running = consume(&fake, Counter(database.clone())).await;
    drained(&fake).await;
    let effects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM things").fetch_one(database.reads()).await.unwrap();
    assert_eq!(effects, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_with_its_reason_and_others_flow_on() {
    let fake = fake();
    let recorder = Recorder::new(|event| match &event.payload[..] {
        b"bytes" => Outcome::Reject("the bytes do not decode".into()),
        _ => Outcome::Done,
    });
    fake.put(SUBSCRIPTION, "a", &[("ce-type", "test.Happened"), ("other", "kept")], "nameless");
    fake.put(SUBSCRIPTION, "a", &[("ce-id", "1"), ("ce-type", "")], "kindless");
    put(&fake, "a", "2", "bytes");
    put(&fake, "a", "3", "good");
    let running = consume(&fake, recorder.clone()).await;
    drained(&fake).await;
    assert_eq!(recorder.by_key()["a"], ["bytes", "good"], "what is no event never reaches the handler");
    let letters = fake.published("dead-letters");
    let reasons: Vec<_> = letters.iter().map(|letter| letter.attributes[DEAD_LETTER_REASON].as_str()).collect();
    let no = "the message has no attribute";
    assert_eq!(reasons, [&format!("{no} `ce-id`"), &format!("{no} `ce-type`"), "the bytes do not decode"]);
    for letter in &letters {
        assert_eq!(letter.attributes[DEAD_LETTER_SUBSCRIPTION], "projects/test/subscriptions/test.order-events");
        assert_eq!(letter.ordering_key, "a");
    }
    assert_eq!(letters[0].attributes["other"], "kept");
    assert_eq!((&letters[0].data[..], &letters[2].data[..]), (&b"nameless"[..], &b"bytes"[..]));
    assert_eq!(fake.state().nacked, [""; 0], "poison is no failed attempt");
    running.stop().await;
}

/// More of them than the broker takes, once a dead letter's own are added.
fn many_attributes(id: &str) -> Vec<(String, String)> {
    let others = (0..99).map(|at| (format!("other-{at}"), at.to_string()));
    others.chain([("ce-id".into(), id.into())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_that_is_too_large_to_be_set_aside_whole_is_set_aside_in_part() {
    let fake = fake();
    fake.state().published_attributes_max = Some(100);
    let attributes = many_attributes("1");
    let attributes: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fake.put(SUBSCRIPTION, "a", &attributes, vec![b'x'; CUT_DATA_BYTES_MAX + 1]);
    put(&fake, "a", "2", "good");
    let running = consume(&fake, Recorder::new(|_| Outcome::Done)).await;
    drained(&fake).await;
    let letters = fake.published("dead-letters");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.data.len(), CUT_DATA_BYTES_MAX);
    assert_eq!(letter.attributes["ce-id"], "1");
    assert!(letter.attributes[DEAD_LETTER_REASON].contains("`ce-type`"), "{:?}", letter.attributes);
    assert!(letter.attributes[DEAD_LETTER_CUT].contains("attributes"), "{:?}", letter.attributes);
    assert!(!letter.attributes.contains_key("other-1"));
    assert_eq!(fake.state().nacked, [""; 0], "poison is no failed attempt");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_that_the_broker_refuses_even_in_part_is_left_to_its_policy() {
    let fake = fake();
    fake.state().published_attributes_max = Some(0);
    put(&fake, "a", "1", "poison");
    put(&fake, "b", "2", "good");
    let handled = Recorder::new(|event| match &event.payload[..] {
        b"poison" => Outcome::Reject("the bytes do not decode".into()),
        _ => Outcome::Done,
    });
    let running = consume(&fake, handled.clone()).await;
    crate::until("it has failed again and again", async || fake.state().nacked.len() > 2).await;
    assert_eq!(handled.by_key()["b"], ["good"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_comes_back_before_what_follows_it() {
    let fake = fake();
    let failures = AtomicUsize::new(0);
    let recorder = Recorder::new(move |event| {
        let fails = &event.payload[..] == b"1" && failures.fetch_add(1, Ordering::Relaxed) < 2;
        if fails { Outcome::Retry("not yet".into()) } else { Outcome::Done }
    });
    for at in 0..4 {
        put(&fake, "a", &at.to_string(), &at.to_string());
    }
    let running = consume(&fake, recorder.clone()).await;
    drained(&fake).await;
    assert_eq!(recorder.by_key()["a"], ["0", "1", "1", "1", "2", "3"]);
    assert_eq!(fake.state().nacked, ["2", "2"], "only the message that failed counts an attempt");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_subscription_ends_the_consumer() {
    let fake = Fake::start();
    let running = consume(&fake, Recorder::new(|_| Outcome::Done)).await;
    let error = running.ended().await.unwrap_err();
    assert!(matches!(&error, Error::SubscriptionMissing { subscription } if subscription.ends_with(SUBSCRIPTION)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_consumer_and_a_broken_stream_does_not() {
    let fake = fake();
    fake.state().break_streams = Some(Code::Unknown);
    let running = consume(&fake, Recorder::new(|_| Outcome::Done)).await;
    crate::until("a stream was broken", async || fake.state().streams_opened > 0).await;
    fake.state().break_streams = None;
    put(&fake, "a", "1", "1");
    drained(&fake).await;
    running.stop().await;
    fake.state().break_streams = Some(Code::PermissionDenied);
    let running = consume(&fake, Recorder::new(|_| Outcome::Done)).await;
    let error = running.ended().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { cause, .. } if cause.contains("broken on purpose")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_found_again() {
    let mut fake = fake();
    fake.kill();
    let recorder = Recorder::new(|_| Outcome::Done);
    let running = consume(&fake, recorder.clone()).await;
    for at in 0..3 {
        fake.revive();
        put(&fake, "a", &at.to_string(), &at.to_string());
        drained(&fake).await;
        fake.kill();
    }
    assert_eq!(recorder.by_key()["a"], numbers(3));
    running.stop().await;
}

/// Needs something that is down at first.
struct Needy {
    breaker: Breaker,
    up: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Handler for Needy {
    async fn handle(&self, _: &Event, stopping: &CancellationToken) -> Outcome {
        let call = || async {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.up.load(Ordering::Relaxed) { Ok(()) } else { Err(Unavailable("it is down".into())) }
        };
        match self.breaker.until_answered(stopping, call).await {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Interrupted,
        }
    }
}

fn needy() -> (Needy, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let settings = Settings { failures_to_open: 3, open_ms: 10, open_ms_max: 50 };
    let (up, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    (Needy { breaker: Breaker::new("test", settings), up: up.clone(), calls: calls.clone() }, up, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_what_the_handler_needs_counts_no_attempt() {
    let fake = fake();
    let (needy, up, calls) = needy();
    for at in 0..30 {
        put(&fake, &format!("key {}", at % 10), &at.to_string(), "");
    }
    let running = consume(&fake, needy).await;
    crate::until("calls fail", async || calls.load(Ordering::Relaxed) > 20).await;
    crate::until("the leases are extended", async || fake.state().is_held()).await;
    assert!(!fake.is_drained(SUBSCRIPTION));
    up.store(true, Ordering::Relaxed);
    drained(&fake).await;
    assert_eq!(fake.state().nacked, [""; 0]);
    assert_eq!(fake.published("dead-letters").len(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_during_an_outage_gets_its_acks() {
    let mut fake = fake();
    let (needy, up, calls) = needy();
    for at in 0..20 {
        put(&fake, &format!("key {}", at % 5), &at.to_string(), "");
    }
    let running = consume(&fake, needy).await;
    crate::until("calls fail", async || calls.load(Ordering::Relaxed) > 10).await;
    for _ in 0..2 {
        let streams = fake.state().streams_opened;
        fake.kill();
        fake.revive();
        crate::until("the stream is open again", async || fake.state().streams_opened > streams).await;
    }
    // What was in hand already is in hand on new leases as well.
    crate::until("the new leases are extended", async || fake.state().is_held()).await;
    up.store(true, Ordering::Relaxed);
    drained(&fake).await;
    assert_eq!(fake.state().acked.len(), 20);
    assert_eq!(fake.state().nacked, [""; 0]);
    running.stop().await;
}

fn attempts(fake: &Fake) -> Vec<i32> {
    fake.state().subscriptions.values().flatten().map(|entry| entry.attempts).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_an_outage_counts_no_attempt_and_gives_everything_back() {
    let fake = fake();
    let (needy, _, calls) = needy();
    // More than are handled at the same time, and more than the broker may have out.
    let count = OUTSTANDING_MESSAGES_MAX as usize + 50;
    for at in 0..count {
        put(&fake, &format!("key {}", at % 100), &at.to_string(), "");
    }
    let running = consume(&fake, needy).await;
    crate::until("calls fail", async || calls.load(Ordering::Relaxed) > 10).await;
    running.stop().await;
    crate::until("the leases are back", async || fake.state().is_free()).await;
    assert_eq!(attempts(&fake), vec![0; count]);
    assert_eq!(fake.state().acked, [""; 0]);
    assert_eq!(fake.state().nacked, [""; 0]);
    // The next one takes up all of it.
    let running = consume(&fake, Recorder::new(|_| Outcome::Done)).await;
    drained(&fake).await;
    running.stop().await;
}

/// Begins and does not end.
struct Stuck(Arc<AtomicUsize>);

impl Handler for Stuck {
    async fn handle(&self, _: &Event, _: &CancellationToken) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_end_cannot_hold_up_the_stop() {
    let fake = fake();
    let begun = Arc::<AtomicUsize>::default();
    put(&fake, "a", "1", "");
    put(&fake, "a", "2", "");
    let running = consume(&fake, Stuck(begun.clone())).await;
    crate::until("it has begun", async || begun.load(Ordering::Relaxed) == 1).await;
    running.stop().await;
    crate::until("the leases are back", async || fake.state().is_free()).await;
    assert_eq!(attempts(&fake), [0, 0]);
}

/// Needs a moment, and notices that it is being stopped.
struct Steady(Arc<AtomicUsize>);

impl Handler for Steady {
    async fn handle(&self, _: &Event, stopping: &CancellationToken) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        stopping.cancelled().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Outcome::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_and_acks_what_is_in_hand() {
    let fake = fake();
    let begun = Arc::<AtomicUsize>::default();
    for at in 0..20 {
        put(&fake, &format!("key {at}"), &at.to_string(), "");
    }
    let running = consume_with(&fake, Steady(begun.clone()), 20).await;
    crate::until("all have begun", async || begun.load(Ordering::Relaxed) == 20).await;
    running.stop().await;
    drained(&fake).await;
    assert_eq!(fake.state().acked.len(), 20);
    assert_eq!(fake.state().nacked, [""; 0]);
}

/// Waits until as many as the limit are in hand, and counts how many there are at most.
#[derive(Default)]
struct Gathering {
    in_hand: AtomicUsize,
    in_hand_max: watch::Sender<usize>,
}

struct Gatherer(Arc<Gathering>);

impl Handler for Gatherer {
    async fn handle(&self, _: &Event, _: &CancellationToken) -> Outcome {
        let Self(gathering) = self;
        let in_hand = gathering.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        gathering.in_hand_max.send_modify(|max| *max = in_hand.max(*max));
        gathering.in_hand_max.subscribe().wait_for(|max| *max >= IN_HAND_MAX).await.unwrap();
        // Room for one more to come, if it may.
        tokio::time::sleep(Duration::from_millis(100)).await;
        gathering.in_hand.fetch_sub(1, Ordering::SeqCst);
        Outcome::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_in_hand_than_the_limit_even_if_the_broker_sends_more() {
    let fake = fake();
    fake.state().ignore_credit = true;
    for at in 0..2 * IN_HAND_MAX {
        put(&fake, "", &at.to_string(), "");
    }
    let gathering = Arc::new(Gathering::default());
    let running = consume_with(&fake, Gatherer(gathering.clone()), 2 * IN_HAND_MAX).await;
    drained(&fake).await;
    assert_eq!(*gathering.in_hand_max.borrow(), IN_HAND_MAX);
    running.stop().await;
}
