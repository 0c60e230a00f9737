//! What only a database on a server can do: refuse, restart, freeze, and be shared by processes on other machines.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use service_kit::CancellationToken;
use service_kit::broker::BrokerConfig;
use service_kit::db::{self, Database, Held, Kind, READ_CONNECTIONS_MAX, STALL_MS_MAX};
use service_kit::outbox::{self, NewEvent, Relay};
use service_kit::{inbox, status};
use test_database::{Backend, Server, only_on};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::database::MIGRATIONS;
use crate::fake::Fake;
use crate::relay::by_key;

/// Set for a process of these tests that only publishes: where its database is, and the broker.
const RELAY_OF: &str = "SERVICE_KIT_TEST_RELAY_OF";
const RELAY_TO: &str = "SERVICE_KIT_TEST_RELAY_TO";

/// Does step `step` of `task`, once however often it is asked for: a thing, an event, the mark.
async fn step(database: &Database, task: i64, step: i64) -> Result<(), db::Error> {
    let job = database.write(move |connection| {
        Box::pin(async move {
            if inbox::first_time(connection, "test", &format!("{task} {step}")).await? {
                let sql = "INSERT INTO things (id, name) VALUES ($1, $2)";
                let insert = sqlx::query(sql).bind(task * 1_000_000 + step).bind(format!("thing {task} {step}"));
                insert.execute(&mut *connection).await?;
                outbox::enqueue(connection, "test", event(task, step)).await?;
            }
            Ok(())
        })
    });
    job.await
}

fn event(task: i64, step: i64) -> NewEvent {
    let payload = step.to_string().into_bytes();
    NewEvent { topic: "order-events", ordering_key: format!("task {task}"), kind: "test.Happened", payload }
}

async fn count(database: &Database, table: &str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query_scalar(sql).fetch_one(database.reads()).await.unwrap_or(-1)
}

/// A role that nobody has, or will have in a moment; nothing once the token is cancelled.
async fn take(database: &Database, role: &'static str, token: &CancellationToken) -> Option<Held> {
    crate::in_time("the role is there to be taken", database.role(role).take(token)).await.unwrap()
}

/// The payloads of every key, in order, and in each from 0 without gaps.
fn assert_in_order(fake: &Fake, tasks: i64, steps: i64) {
    let published = by_key(&fake.published("order-events"));
    assert_eq!(published.len() as i64, tasks);
    for (key, payloads) in published {
        assert_eq!(payloads, (0..steps).map(|step| step.to_string()).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_outlives_a_server_that_crashes_under_load_and_nothing_is_there_twice() {
    const TASKS: i64 = 8;
    const STEPS: i64 = 60;
    const CRASHES: i64 = 2;
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = std::sync::Arc::new(Server::start());
    let url = server.create_database();
    let database = Database::open(&url, &MIGRATIONS).await.unwrap();
    let fake = Fake::start();
    let token = CancellationToken::new();
    let relay = Relay::open(database.clone(), &crate::broker(&fake)).await.unwrap();
    let relay = tokio::spawn(relay.run(token.clone()));
    let mut working = JoinSet::new();
    for task in 0..TASKS {
        let database = database.clone();
        working.spawn(async move {
            let mut failures = 0;
            for at in 0..STEPS {
                // Who gets no answer asks again, as a message does that was not acked.
                while let Err(error) = database.judged(step(&database, task, at)).await {
                    assert_eq!(error.kind(), Kind::Passing, "{error:?}");
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            failures
        });
    }
    for crash in 1..=CRASHES {
        let enough = TASKS * STEPS * crash / (CRASHES + 1);
        crate::until("some of it is done", async || count(&database, "things").await >= enough).await;
        let server = server.clone();
        let restart = tokio::task::spawn_blocking(move || {
            server.crash();
            server.start_again();
        });
        restart.await.unwrap();
    }
    let failures: i32 = working.join_all().await.into_iter().sum();
    assert!(failures > 0, "no write has met a server that was down");
    crate::until("the outbox is empty", async || count(&database, "outbox").await == 0).await;
    assert_eq!(count(&database, "things").await, TASKS * STEPS);
    assert_in_order(&fake, TASKS, STEPS);
    token.cancel();
    relay.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_freezes_gives_up_its_turn_and_its_write() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let (test, database) = crate::database().await;
    let other = Database::open(test.url(), &MIGRATIONS).await.unwrap();
    let (begin, begun) = oneshot::channel::<()>();
    let (go, going) = oneshot::channel::<()>();
    let frozen = database.clone();
    let frozen = tokio::spawn(async move {
        let job = frozen.write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO things (id, name) VALUES (1, 'frozen')").execute(connection).await?;
                begin.send(()).unwrap();
                going.await.unwrap();
                Ok::<_, db::Error>(())
            })
        });
        job.await
    });
    begun.await.unwrap();
    let turn = tokio::time::timeout(Duration::from_millis(10 * STALL_MS_MAX), step(&other, 0, 2)).await;
    turn.expect("the turn is never given up").unwrap();
    go.send(()).unwrap();
    let woken = frozen.await.unwrap();
    assert!(matches!(woken, Err(db::Error::Lost { .. })), "{woken:?}");
    assert_eq!(count(&database, "things").await, 1);
    step(&database, 0, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_lost_with_its_session_and_another_one_takes_it() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::shared();
    let url = server.create_database();
    let name = url.rsplit('/').next().unwrap();
    let database = Database::open(&url, &MIGRATIONS).await.unwrap();
    let token = CancellationToken::new();
    let first = take(&database, "relay", &token).await.unwrap();
    let other_role = take(&database, "another", &token).await;
    assert!(other_role.is_some(), "each role is on its own");
    drop(other_role);
    let waiting = tokio::spawn({
        let (role, token) = (database.role("relay"), token.clone());
        async move { role.take(&token).await.unwrap() }
    });
    let locks = "FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = \
         (SELECT oid FROM pg_database WHERE datname = current_database())";
    let holders = async || server.sql(name, &format!("SELECT count(*) {locks}"));
    crate::until("one has it", async || holders().await == "1").await;
    server.sql(name, &format!("SELECT pg_terminate_backend(pid) {locks}"));
    tokio::time::timeout(Duration::from_millis(crate::DEADLINE_MS), first.lost()).await.expect("nobody noticed");
    let second = tokio::time::timeout(Duration::from_millis(crate::DEADLINE_MS), waiting).await;
    let second = second.expect("nobody takes over").unwrap().unwrap();
    // A role that is given up is free at once.
    drop(second);
    crate::until("it is free", async || holders().await == "0").await;
    let token = CancellationToken::new();
    let _third = take(&database, "relay", &token).await.unwrap();
    token.cancel();
    assert!(take(&database, "relay", &token).await.is_none(), "who is told to stop waits no more");
}

/// A process of its own: it does nothing but publish, until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_publishes() {
    let (Ok(url), Ok(broker_url)) = (std::env::var(RELAY_OF), std::env::var(RELAY_TO)) else { return };
    let database = Database::open(&url, &MIGRATIONS).await.unwrap();
    let broker = BrokerConfig { broker_url, project: "test".into() };
    Relay::open(database, &broker).await.unwrap().run(CancellationToken::new()).await.unwrap();
}

/// A process that publishes, killed when this is dropped.
struct Publisher(Child);

impl Publisher {
    fn start(url: &str, fake: &Fake) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["postgres::a_process_that_publishes", "--exact", "--nocapture"]);
        process.env(RELAY_OF, url).env(RELAY_TO, format!("http://{}", fake.address()));
        Self(process.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_for_each_key_while_processes_that_publish_freeze_wake_up_and_are_killed() {
    const TASKS: i64 = 4;
    if !only_on(Backend::Postgres) {
        return;
    }
    let (test, database) = crate::database().await;
    let fake = Fake::start();
    let mut steps = 0;
    let mut more = async |what: &str| {
        // More than one round of the relay.
        for _ in 0..80 {
            for task in 0..TASKS {
                step(&database, task, steps).await.unwrap();
            }
            steps += 1;
        }
        crate::until(what, async || count(&database, "outbox").await == 0).await;
        steps
    };
    let first = Publisher::start(test.url(), &fake);
    more("the first one publishes").await;
    let second = Publisher::start(test.url(), &fake);
    first.signal("-STOP");
    more("the second one takes over from a frozen one").await;
    first.signal("-CONT");
    more("one of them publishes").await;
    drop(second);
    more("the first one takes over from a killed one").await;
    let third = Publisher::start(test.url(), &fake);
    drop(first);
    let steps = more("the third one takes over").await;
    assert_in_order(&fake, TASKS, steps);
    drop(third);
}

#[tokio::test]
async fn a_database_that_refuses_is_named_with_its_setting_and_without_its_password() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::shared();
    let url = server.create_database();
    let name = url.rsplit('/').next().unwrap();
    let refused = async |url: &str| {
        let error = Database::open(url, &MIGRATIONS).await.unwrap_err();
        let error = db::Error::of_setting("--database-url", "ORDER_DATABASE_URL")(error);
        assert_eq!(error.kind(), Kind::Lasting, "{error:?}");
        assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        status::chain(&error)
    };
    let wrong = refused(&server.url_with_password("sesame", name)).await;
    for part in ["--database-url", "ORDER_DATABASE_URL", "postgres://guarded@127.0.0.1:", "password authentication"] {
        assert!(wrong.contains(part), "{part} is not in: {wrong}");
    }
    let missing = refused(&server.url_with_password(server.password(), "nowhere")).await;
    assert!(missing.contains("database \"nowhere\" does not exist"), "{missing}");
    // The right password, but nobody let this user make tables.
    let right = server.url_with_password(server.password(), name);
    let not_allowed = refused(&right).await;
    assert!(not_allowed.contains("permission denied"), "{not_allowed}");
    server.sql(name, "GRANT ALL ON SCHEMA public TO guarded");
    let database = Database::open(&right, &MIGRATIONS).await.unwrap();
    assert!(!format!("{database:?}").contains("sesame"));
    server.sql(name, "CREATE SCHEMA empty");
    let nowhere = refused(&format!("{url}?options=-csearch_path=missing")).await;
    assert!(nowhere.contains("search path"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_waits_for_a_server_that_starts_as_well() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::start();
    let url = server.create_database();
    server.crash();
    let opening = tokio::spawn(async move { Database::open(&url, &MIGRATIONS).await });
    let start = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    // It ends when it is dropped.
    let _server = start.await.unwrap();
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_database_is_set_to() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::shared();
    let url = server.create_database();
    let name = url.rsplit('/').next().unwrap();
    for (set_to, expected) in [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        server.sql("postgres", &format!("ALTER DATABASE {name} SET synchronous_commit = {set_to}"));
        let database = Database::open(&url, &MIGRATIONS).await.unwrap();
        let mode = database.write(|connection| {
            Box::pin(async move {
                let sql = "SELECT current_setting('synchronous_commit')::text";
                Ok::<String, db::Error>(sqlx::query_scalar(sql).fetch_one(connection).await?)
            })
        });
        assert_eq!(mode.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_process_has_no_more_connections_than_its_limits_say() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::shared();
    let url = server.create_database();
    let name = url.rsplit('/').next().unwrap();
    let database = Database::open(&url, &MIGRATIONS).await.unwrap();
    let mut reads = JoinSet::new();
    for _ in 0..8 * READ_CONNECTIONS_MAX {
        let database = database.clone();
        reads.spawn(async move { count(&database, "things").await });
    }
    assert!(reads.join_all().await.into_iter().all(|things| things == 0));
    step(&database, 0, 0).await.unwrap();
    // One that writes, one that reads what comes often, and the pool.
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    let connections: u32 = server.sql("postgres", &sql).parse().unwrap();
    assert!(connections <= READ_CONNECTIONS_MAX + 2, "{connections}");
}

#[tokio::test]
async fn services_in_schemas_of_their_own_share_a_database() {
    if !only_on(Backend::Postgres) {
        return;
    }
    let server = Server::shared();
    let url = server.create_database();
    let name = url.rsplit('/').next().unwrap();
    server.sql(name, "CREATE SCHEMA one");
    server.sql(name, "CREATE SCHEMA two");
    let one = Database::open(&format!("{url}?options=-csearch_path=one"), &MIGRATIONS).await.unwrap();
    let two = Database::open(&format!("{url}?options=-csearch_path=two"), &MIGRATIONS).await.unwrap();
    step(&one, 0, 0).await.unwrap();
    assert_eq!((count(&one, "things").await, count(&two, "things").await), (1, 0));
    let token = CancellationToken::new();
    let _held = take(&one, "relay", &token).await.unwrap();
    assert!(take(&two, "relay", &token).await.is_some());
}
