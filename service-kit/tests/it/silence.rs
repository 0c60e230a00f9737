//! A machine that vanishes: connections to the server stand, and nothing comes over them any more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use service_kit::CancellationToken;
use service_kit::db::{
    self, BATCH_MS_MAX, CONNECT_MS_MAX, Database, READ_CONNECTIONS_MAX, STATEMENT_MS_MAX, TURN_MS_MAX, inspect_server,
};
use test_database::{Backend, TestDatabase, only_on};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time;

use crate::database::MIGRATIONS;

/// What each answer of PostgreSQL ends with: it is ready for a query, and in no transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A way to a server, on which connections can go silent.
struct Way {
    url: String,
    silence: Arc<Mutex<CancellationToken>>,
    /// Over how many silent connections something was said.
    unheard: watch::Receiver<u32>,
}

impl Way {
    async fn to(url: &str) -> Self {
        Self::silent_at_first(url, 0).await
    }

    /// The first connection goes silent after so many answers of the server; with none it does not.
    async fn silent_at_first(url: &str, answers: usize) -> Self {
        let (user, place) = url.split_once('@').unwrap();
        let (server, name) = place.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{user}@{}/{name}", listener.local_addr().unwrap());
        let (silence, (said, unheard)) = (Arc::new(Mutex::new(CancellationToken::new())), watch::channel(0));
        tokio::spawn({
            let (silence, server, mut answers) = (Arc::clone(&silence), server.to_owned(), answers);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(&server).await else { continue };
                    let silence = silence.lock().unwrap().child_token();
                    tokio::spawn(carry(client, server, silence, std::mem::take(&mut answers), said.clone()));
                }
            }
        });
        Self { url, silence, unheard }
    }

    /// Nothing comes any more over the connections that stand. New ones can be made.
    fn silence(&self) {
        std::mem::take(&mut *self.silence.lock().unwrap()).cancel();
    }

    async fn said_without_being_heard(&mut self, connections: u32) {
        crate::in_time("all of them say something", self.unheard.wait_for(|unheard| *unheard >= connections))
            .await
            .unwrap();
    }
}

/// Carries what both say. A connection that went silent stands until its client closes it.
async fn carry(
    client: TcpStream,
    server: TcpStream,
    silence: CancellationToken,
    mut answers: usize,
    said: watch::Sender<u32>,
) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let asking = async {
        let (mut bytes, mut was_unheard) = ([0; 16 * 1024], false);
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            if !silence.is_cancelled() {
                to_server.write_all(&bytes[..read]).await.unwrap();
            } else if !std::mem::replace(&mut was_unheard, true) {
                said.send_modify(|connections| *connections += 1);
            }
        }
    };
    let answering = async {
        let mut bytes = [0; 16 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            if silence.is_cancelled() {
                continue;
            }
            let is_last = answers == 1 && bytes[..read].ends_with(READY);
            answers = answers.saturating_sub(usize::from(bytes[..read].ends_with(READY)));
            if is_last {
                silence.cancel();
            }
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
        if silence.is_cancelled() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

/// Lets time go by at once.
async fn pass(duration_ms: u64) {
    time::pause();
    time::advance(Duration::from_millis(duration_ms)).await;
    time::resume();
}

/// A database at the end of a way, with nothing under way.
async fn open(way: &Way) -> Database {
    let database = Database::open(&way.url, &MIGRATIONS).await.unwrap();
    crate::until("the pool has its connection", async || database.reads().num_idle() == 1).await;
    database
}

async fn insert(database: Database) -> Result<(), db::Error> {
    let job = database.write(|connection| {
        Box::pin(async move {
            sqlx::query("INSERT INTO things (id, name) VALUES (1, 'one')").execute(connection).await?;
            Ok(())
        })
    });
    job.await
}

async fn things(database: &Database) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM things").fetch_one(database.reads()).await
}

#[tokio::test]
async fn a_write_over_a_connection_that_is_silent_goes_over_another_one() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let test = TestDatabase::new();
    let mut way = Way::to(test.url()).await;
    let database = open(&way).await;
    way.silence();
    let writing = tokio::spawn(insert(database.clone()));
    way.said_without_being_heard(1).await;
    pass(TURN_MS_MAX + CONNECT_MS_MAX).await;
    crate::in_time("it is written", writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_batch_has_one_limit_for_its_turn_its_connections_and_its_work() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let test = TestDatabase::new();
    let mut way = Way::to(test.url()).await;
    let database = open(&way).await;
    way.silence();
    let writing = tokio::spawn(insert(database.clone()));
    way.said_without_being_heard(1).await;
    // Another connection could be made, but whoever waits for the next batch has waited long enough.
    pass(2 * BATCH_MS_MAX).await;
    let written = crate::in_time("it is given up", writing).await.unwrap();
    assert!(matches!(written, Err(db::Error::Unreachable { .. })), "{written:?}");
    assert_eq!(things(&Database::open(test.url(), &MIGRATIONS).await.unwrap()).await.unwrap(), 0);
    crate::in_time("it is written now", insert(database)).await.unwrap();
}

#[tokio::test]
async fn reads_that_come_back_over_silent_connections_make_room_for_others() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let test = TestDatabase::new();
    let mut way = Way::to(test.url()).await;
    let database = open(&way).await;
    let mut reading = Vec::new();
    for _ in 0..READ_CONNECTIONS_MAX {
        reading.push(database.reads().acquire().await.unwrap());
    }
    way.silence();
    drop(reading);
    way.said_without_being_heard(READ_CONNECTIONS_MAX).await;
    pass(CONNECT_MS_MAX).await;
    let read = crate::in_time("somebody reads", things(&database)).await;
    assert_eq!(read.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_goes_silent_while_a_database_is_opened_is_asked_anew() {
    if !only_on(Backend::Postgres) {
        return;
    }
    for answers in 1..=3 {
        let test = TestDatabase::new();
        let mut way = Way::silent_at_first(test.url(), answers).await;
        let url = way.url.clone();
        let opening = tokio::spawn(async move { Database::open(&url, &MIGRATIONS).await });
        way.said_without_being_heard(1).await;
        pass(CONNECT_MS_MAX).await;
        crate::in_time("it is open", opening).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_only_looks_does_not_wait_for_a_server_that_goes_silent() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let test = TestDatabase::new();
    drop(Database::open(test.url(), &MIGRATIONS).await.unwrap());
    for answers in 1..=5 {
        let mut way = Way::silent_at_first(test.url(), answers).await;
        let url = way.url.clone();
        let looking = tokio::spawn(async move { inspect_server(&url, MIGRATIONS[0].version).await });
        way.said_without_being_heard(1).await;
        pass(STATEMENT_MS_MAX).await;
        let error = crate::in_time("it is told", looking).await.unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("no answer within"), "{error:?}");
    }
}
