//! The entry that names the owner of a journal, changed behind the owner's back.

use std::time::Duration;

use async_nats::jetstream::kv::{Config, Entry, Store};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::engine::NatsServer;
use crate::front::{Front, create};
use crate::harness::PATIENCE;
use crate::servers::refused;

/// The key of the entry.
const KEY: &str = "owner";

/// The bucket with the entry.
async fn owners(nats: &NatsServer) -> Store {
    let context = async_nats::jetstream::new(async_nats::connect(&nats.url).await.unwrap());
    context.get_key_value("orderflow-main-owner").await.unwrap()
}

async fn entry(owners: &Store) -> Entry {
    owners.entry(KEY).await.unwrap().unwrap()
}

fn says(entry: &Entry) -> serde_json::Value {
    serde_json::from_slice(&entry.value).unwrap()
}

/// Writes again what stands there. To the owner it looks as if a renewal of its own was not confirmed.
async fn touch(owners: &Store) {
    let wrote = async {
        loop {
            let Entry { value, revision, .. } = entry(owners).await;
            // The owner may have been faster.
            if owners.update(KEY, value, revision).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, wrote).await.expect("the entry changes all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_stops_says_so_and_gives_the_journal_up_although_its_entry_is_newer_than_it_knows() {
    let nats = NatsServer::start();
    let front = Front::join(&nats.url);
    create(&front.client().await).await;
    let owners = owners(&nats).await;
    let mut changes = owners.watch(KEY).await.unwrap();
    front.signal("-STOP");
    touch(&owners).await;
    front.signal("-TERM");
    front.signal("-CONT");
    let drains = async {
        while let Some(change) = changes.next().await {
            if says(&change.unwrap())["draining"] == true {
                return;
            }
        }
    };
    timeout(PATIENCE, drains).await.expect("it never says that it stops");
    touch(&owners).await;
    assert_eq!(front.process.terminate(), Some(0));
    assert_eq!(says(&entry(&owners).await)["id"], "", "nobody owns the journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_does_not_take_a_journal_that_it_has_not_read() {
    let nats = NatsServer::start();
    let front = Front::join(&nats.url);
    create(&front.client().await).await;
    assert_eq!(front.process.terminate(), Some(0));
    let owners = owners(&nats).await;
    let before = entry(&owners).await.revision;
    let other = async_nats::connect(&nats.url).await.unwrap();
    other.request("orderflow.main.file.unknown.log", "?".into()).await.unwrap();
    let why = refused(&nats.url);
    assert!(why.contains("can't be understood"), "{why}");
    assert_eq!(entry(&owners).await.revision, before, "it took the journal first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_the_journal_reads_on_when_a_message_is_gone_that_it_has_not_read() {
    let nats = NatsServer::start();
    let front = Front::join(&nats.url);
    create(&front.client().await).await;
    assert_eq!(front.process.terminate(), Some(0));
    let context = async_nats::jetstream::new(async_nats::connect(&nats.url).await.unwrap());
    let says = async || {
        let sent = context.publish("orderflow.main.claim", "another".into()).await.unwrap();
        sent.await.unwrap().sequence
    };
    let gone = says().await;
    context.get_stream("orderflow-main").await.unwrap().delete_message(gone).await.unwrap();
    let owners = owners(&nats).await;
    let before = entry(&owners).await.revision;
    let front = Front::join(&nats.url);
    // It has the entry, and has renewed it, so it tries to go on behind the last message that it could read.
    let taken = async { while entry(&owners).await.revision < before + 2 {} };
    timeout(PATIENCE, taken).await.expect("nobody takes the journal");
    says().await;
    front.process.until_logged("This broker owns the journal now.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_whose_entry_was_deleted_is_nobodys() {
    let nats = NatsServer::start();
    let front = Front::join(&nats.url);
    create(&front.client().await).await;
    assert_eq!(front.process.terminate(), Some(0));
    owners(&nats).await.delete(KEY).await.unwrap();
    let front = Front::join(&nats.url);
    front.process.until_logged("This broker owns the journal now.");
}

#[tokio::test]
async fn a_bucket_that_forgets_the_owner_is_refused() {
    let nats = NatsServer::start();
    let context = async_nats::jetstream::new(async_nats::connect(&nats.url).await.unwrap());
    let config =
        Config { bucket: "orderflow-main-owner".to_owned(), max_age: Duration::from_secs(600), ..Default::default() };
    context.create_key_value(config).await.unwrap();
    let why = refused(&nats.url);
    assert!(why.contains("max_age 600s instead of 0ns"), "{why}");
}
