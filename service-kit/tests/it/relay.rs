//! The outbox and its relay.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use orderflow_proto::google::pubsub::v1::PubsubMessage;
use service_kit::CancellationToken;
use service_kit::db::{self, Database};
use service_kit::outbox::{self, BATCH_EVENTS_MAX, NewEvent, PAYLOAD_BYTES_MAX, Relay, Taken};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::fake::Fake;

fn event(key: &str, data: &str) -> NewEvent {
    let payload = data.as_bytes().to_vec();
    NewEvent { topic: "order-events", ordering_key: key.into(), kind: "test.Happened", payload }
}

/// Enqueues the events in one transaction and gives their ids.
async fn enqueue(database: &Database, events: Vec<NewEvent>) -> Result<Vec<String>, db::Error> {
    let job = database.write(move |connection| {
        Box::pin(async move {
            let mut ids = Vec::new();
            for event in events {
                ids.push(outbox::enqueue(connection, "test-service", event).await?);
            }
            Ok(ids)
        })
    });
    job.await
}

async fn waiting(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM outbox").fetch_one(database.reads()).await.unwrap()
}

async fn relay(database: &Database, fake: &Fake) -> (CancellationToken, JoinHandle<()>) {
    let token = CancellationToken::new();
    let relay = Relay::open(database.clone(), &crate::broker(fake)).await.unwrap();
    let running = relay.run(token.clone());
    (token, tokio::spawn(async move { running.await.unwrap() }))
}

async fn drained(database: &Database) {
    crate::until("the outbox is empty", async || waiting(database).await == 0).await;
}

/// The payloads of each key in the order of publication, copies of an event left out.
pub(crate) fn by_key(messages: &[PubsubMessage]) -> HashMap<String, Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for message in messages.iter().filter(|message| seen.insert(message.attributes["ce-id"].clone())) {
        let data = String::from_utf8(message.data.to_vec()).unwrap();
        keys.entry(message.ordering_key.clone()).or_default().push(data);
    }
    keys
}

fn expected(keys: usize, each: usize) -> HashMap<String, Vec<String>> {
    (0..keys).map(|key| (format!("key {key}"), (0..each).map(|at| at.to_string()).collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_with_its_attributes() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    let before = enqueue(&database, vec![event("a", "before the start")]).await.unwrap();
    let (token, running) = relay(&database, &fake).await;
    drained(&database).await;
    let after = enqueue(&database, vec![event("", "after the start")]).await.unwrap();
    drained(&database).await;
    let published = fake.published("order-events");
    assert_eq!(published.len(), 2);
    for (message, id) in published.iter().zip(before.iter().chain(&after)) {
        assert_eq!(&message.attributes["ce-id"], id);
        assert_eq!(message.attributes["ce-type"], "test.Happened");
        assert_eq!(message.attributes["ce-source"], "test-service");
        assert!(message.attributes["ce-time"].parse::<prost_types::Timestamp>().is_ok(), "{:?}", message.attributes);
    }
    assert_eq!((published[0].ordering_key.as_str(), &published[0].data[..]), ("a", &b"before the start"[..]));
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_an_undone_transaction_is_not_told() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    let (token, running) = relay(&database, &fake).await;
    let undone = database.write(|connection| {
        Box::pin(async move {
            outbox::enqueue(connection, "test-service", event("a", "undone")).await?;
            Err::<(), _>(db::Error::Poisoned)
        })
    });
    assert!(undone.await.is_err());
    enqueue(&database, vec![event("a", "told")]).await.unwrap();
    drained(&database).await;
    assert_eq!(by_key(&fake.published("order-events"))["a"], ["told"]);
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_for_each_key_over_many_batches_and_failures() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    let (keys, each) = (7, BATCH_EVENTS_MAX as usize / 5);
    fake.state().fail_keys_once.extend(["key 2".to_owned(), "key 5".to_owned()]);
    for at in 0..each {
        let events = (0..keys).map(|key| event(&format!("key {key}"), &at.to_string()));
        enqueue(&database, events.collect()).await.unwrap();
    }
    let (token, running) = relay(&database, &fake).await;
    drained(&database).await;
    assert_eq!(by_key(&fake.published("order-events")), expected(keys, each));
    assert!(fake.state().fail_keys_once.is_empty());
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_is_killed_again_and_again() {
    let (_folder, database) = crate::database().await;
    let mut fake = Fake::start();
    let (token, running) = relay(&database, &fake).await;
    let (keys, each) = (5, 60);
    for at in 0..each {
        match at % 20 {
            5 => fake.kill(),
            15 => fake.revive(),
            _ => {}
        }
        let events = (0..keys).map(|key| event(&format!("key {key}"), &at.to_string()));
        enqueue(&database, events.collect()).await.unwrap();
    }
    drained(&database).await;
    assert_eq!(by_key(&fake.published("order-events")), expected(keys, each));
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_until_the_broker_has_said_that_it_has_it() {
    let (_folder, database) = crate::database().await;
    let mut fake = Fake::start();
    fake.state().lose_replies = true;
    let (token, running) = relay(&database, &fake).await;
    let ids = enqueue(&database, vec![event("a", "1")]).await.unwrap();
    crate::until("the broker has it", async || fake.published("order-events").len() == 1).await;
    assert_eq!(waiting(&database).await, 1, "the reply is still under way");
    fake.kill();
    fake.state().lose_replies = false;
    fake.revive();
    drained(&database).await;
    let copies = fake.published("order-events");
    assert_eq!(copies.len(), 2, "a lost reply makes a copy");
    assert!(copies.iter().all(|copy| copy.attributes["ce-id"] == ids[0]), "with the same id");
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_waits_in_order_and_holds_up_no_other_key() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    fake.state().missing_topics.insert("payment-events".into());
    fake.state().refused_keys.insert("key 1".into());
    // More than a batch of each, so that what is refused alone would fill every round.
    let each = BATCH_EVENTS_MAX as usize + 44;
    let elsewhere = |key: &str, at: usize| NewEvent { topic: "payment-events", ..event(key, &at.to_string()) };
    let refused = (0..each).flat_map(|at| [event("key 1", &at.to_string()), elsewhere("key 0", at), elsewhere("", at)]);
    enqueue(&database, refused.collect()).await.unwrap();
    enqueue(&database, (0..each).map(|at| event("key 0", &at.to_string())).collect()).await.unwrap();
    let (token, running) = relay(&database, &fake).await;
    let held = 3 * each as i64;
    crate::until("other keys are published", async || waiting(&database).await == held).await;
    // Those that come later follow what waits, and pass it if they may.
    enqueue(&database, vec![event("key 1", &each.to_string()), event("key 0", &each.to_string())]).await.unwrap();
    crate::until("the later one is published", async || waiting(&database).await == held + 1).await;
    assert_eq!(by_key(&fake.published("order-events"))["key 0"].len(), each + 1);
    fake.state().missing_topics.clear();
    fake.state().refused_keys.clear();
    drained(&database).await;
    assert_eq!(by_key(&fake.published("order-events")), expected(2, each + 1));
    assert_eq!(by_key(&fake.published("payment-events"))["key 0"], expected(1, each)["key 0"]);
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap();
}

/// Writes down in `things` what the broker has taken, with its kind and its payload.
fn write_down<'c>(connection: &'c mut db::Connection, taken: &'c [Taken]) -> db::JobFuture<'c, Result<(), db::Error>> {
    Box::pin(async move {
        for event in taken {
            let note = format!("{} {} {}", event.kind, event.ordering_key, String::from_utf8_lossy(&event.payload));
            let sql = "INSERT INTO things (id, name, note) VALUES ((SELECT COUNT(*) FROM things), $1, $2)";
            sqlx::query(sql).bind(&event.event_id).bind(note).execute(&mut *connection).await?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_has_taken_is_told_once_in_the_transaction_that_deletes_it() {
    let (_folder, database) = crate::database().await;
    let mut fake = Fake::start();
    fake.state().refused_keys.insert("refused".into());
    fake.state().lose_replies = true;
    let refused = enqueue(&database, vec![event("refused", "0")]).await.unwrap();
    let mut ids = Vec::new();
    for at in 0..20 {
        ids.extend(enqueue(&database, vec![event("key", &at.to_string())]).await.unwrap());
    }
    let token = CancellationToken::new();
    let relay = Relay::open(database.clone(), &crate::broker(&fake)).await.unwrap().on_taken(write_down);
    let running = tokio::spawn(relay.run(token.clone()));
    // The broker has some, and dies before it says so: they are published again.
    crate::until("something is published", async || !fake.published("order-events").is_empty()).await;
    fake.kill();
    fake.state().lose_replies = false;
    fake.revive();
    crate::until("the free key is published", async || waiting(&database).await == 1).await;
    assert!(fake.published("order-events").len() > ids.len(), "some are published twice");
    let sql = "SELECT name, note FROM things ORDER BY id";
    let told: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(database.reads()).await.unwrap();
    let expected: Vec<_> =
        ids.into_iter().enumerate().map(|(at, id)| (id, format!("test.Happened key {at}"))).collect();
    assert_eq!(told, expected);
    assert!(!told.iter().any(|(id, _)| *id == refused[0]));
    token.cancel();
    crate::in_time("the relay ends", running).await.unwrap().unwrap();
}

/// What holds up the deletion of events that the broker has taken.
static DELETION: Semaphore = Semaphore::const_new(0);

fn wait_for_deletion<'c>(_: &'c mut db::Connection, _: &'c [Taken]) -> db::JobFuture<'c, Result<(), db::Error>> {
    Box::pin(async {
        DELETION.acquire().await.unwrap().forget();
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_behind_those_that_are_being_deleted_are_published_and_none_is_published_twice() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    let events = BATCH_EVENTS_MAX as usize + 1;
    enqueue(&database, (0..events).map(|at| event("key 0", &at.to_string())).collect()).await.unwrap();
    let token = CancellationToken::new();
    let relay = Relay::open(database.clone(), &crate::broker(&fake)).await.unwrap().on_taken(wait_for_deletion);
    let running = tokio::spawn(relay.run(token.clone()));
    let published = || fake.published("order-events");
    crate::until("the second batch is published", async || published().len() == events).await;
    assert_eq!(waiting(&database).await, events as i64, "nothing is deleted yet");
    DELETION.add_permits(2);
    drained(&database).await;
    token.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(published().len(), events);
    assert_eq!(by_key(&published()), expected(1, events));
}

/// How many deletions fail before one does not.
static DELETIONS_TO_FAIL: AtomicU32 = AtomicU32::new(2);

fn fail_sometimes<'c>(_: &'c mut db::Connection, _: &'c [Taken]) -> db::JobFuture<'c, Result<(), db::Error>> {
    let left = DELETIONS_TO_FAIL.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    Box::pin(async move { left.map_or(Ok(()), |_| Err(db::Error::Race("a test".into()))) })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_deleted_is_published_again_and_the_order_is_kept() {
    let (_folder, database) = crate::database().await;
    let fake = Fake::start();
    let token = CancellationToken::new();
    let relay = Relay::open(database.clone(), &crate::broker(&fake)).await.unwrap().on_taken(fail_sometimes);
    let running = tokio::spawn(relay.run(token.clone()));
    for at in 0..20 {
        enqueue(&database, vec![event("key 0", &at.to_string())]).await.unwrap();
    }
    drained(&database).await;
    token.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(DELETIONS_TO_FAIL.load(Ordering::SeqCst), 0);
    assert!(fake.published("order-events").len() > 20, "something is published twice");
    assert_eq!(by_key(&fake.published("order-events")), expected(1, 20));
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused() {
    let (_folder, database) = crate::database().await;
    let sized = |bytes| NewEvent { payload: vec![0; bytes], ..event("a", "") };
    assert!(enqueue(&database, vec![sized(PAYLOAD_BYTES_MAX)]).await.is_ok());
    let refused = enqueue(&database, vec![sized(PAYLOAD_BYTES_MAX + 1)]).await;
    assert!(matches!(refused, Err(db::Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(waiting(&database).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_database_publish_each_event_once_and_the_second_takes_over() {
    let (folder, database) = crate::database().await;
    let second = Database::open(folder.url(), &crate::database::MIGRATIONS).await.unwrap();
    let fake = Fake::start();
    let (first_token, first) = relay(&database, &fake).await;
    enqueue(&database, vec![event("a", "0")]).await.unwrap();
    drained(&database).await;
    let (second_token, standby) = relay(&second, &fake).await;
    for number in 1..50 {
        let writer = if number % 2 == 0 { &database } else { &second };
        enqueue(writer, vec![event("a", &number.to_string())]).await.unwrap();
    }
    drained(&database).await;
    assert_eq!(fake.published("order-events").len(), 50, "no event is published twice");
    first_token.cancel();
    crate::in_time("the relay ends", first).await.unwrap();
    enqueue(&second, vec![event("a", "50")]).await.unwrap();
    drained(&second).await;
    second_token.cancel();
    crate::in_time("the relay ends", standby).await.unwrap();
    let published = fake.published("order-events");
    assert_eq!(published.len(), 51);
    assert_eq!(by_key(&published), expected_of("a", 51));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_open_and_write_one_new_database_at_the_same_time() {
    let test = test_database::TestDatabase::new();
    let url = test.url().to_owned();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let url = url.clone();
        writers.spawn(async move {
            let database = Database::open(&url, &crate::database::MIGRATIONS).await.unwrap();
            for number in 0..25 {
                let event = event("a", &format!("{writer} {number}"));
                // A transaction that reads first is the one that could find the table changed when it comes to write.
                let job = database.write(move |connection| {
                    Box::pin(async move {
                        sqlx::query("SELECT MAX(id) FROM outbox").fetch_one(&mut *connection).await?;
                        outbox::enqueue(connection, "test-service", event).await
                    })
                });
                job.await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let database = Database::open(&url, &crate::database::MIGRATIONS).await.unwrap();
    assert_eq!(waiting(&database).await, 100);
}

fn expected_of(key: &str, events: usize) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), (0..events).map(|number| number.to_string()).collect())])
}
