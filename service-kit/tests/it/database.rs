//! The writer, the reads, the migrations and the inbox.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use service_kit::db::{
    self, BATCH_JOBS_MAX, Database, KIT_VERSION_MAX, Migration, QUEUE_JOBS_MAX, READ_CONNECTIONS_MAX,
};
use service_kit::inbox;
use sqlx::{Connection as _, Row as _};
use tempfile::TempDir;
use test_database::{Backend, TestDatabase, only_on};
use tokio::sync::oneshot;

pub(crate) const MIGRATIONS: [Migration; 1] = [Migration {
    version: KIT_VERSION_MAX + 1,
    name: "things",
    sql: "CREATE TABLE things (id BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, note TEXT, data BLOB);",
}];

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] db::Error),
    #[error("on purpose")]
    OnPurpose,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

async fn insert(database: &Database, id: i64, name: &str, fail: bool) -> Result<(), Failure> {
    let name = name.to_owned();
    let job = database.write(move |connection| {
        Box::pin(async move {
            let sql = "INSERT INTO things (id, name) VALUES ($1, $2)";
            sqlx::query(sql).bind(id).bind(name).execute(connection).await?;
            if fail { Err(Failure::OnPurpose) } else { Ok(()) }
        })
    });
    job.await
}

async fn ids(database: &Database) -> Vec<i64> {
    sqlx::query_scalar("SELECT id FROM things ORDER BY id").fetch_all(database.reads()).await.unwrap()
}

/// Commits are told apart by SQLite's own count of writes to the journal: the number of its frames with a commit mark.
async fn commits(database: &Database, folder: &TestDatabase) -> usize {
    drop(ids(database).await);
    let journal = std::fs::read(folder.folder().join("below/test.db-wal")).unwrap();
    let page_bytes = u32::from_be_bytes(journal[8..12].try_into().unwrap()) as usize;
    let frames = journal[32..].chunks_exact(24 + page_bytes);
    let salt = &journal[16..24];
    frames.filter(|frame| &frame[8..16] == salt && frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn a_write_means_that_it_is_on_disk() {
    if !only_on(Backend::Sqlite) {
        return;
    }
    let (_folder, database) = crate::database().await;
    let modes = database.write(|connection| {
        Box::pin(async move {
            let mode: String = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *connection).await?.try_get(0)?;
            let synchronous: i64 = sqlx::query("PRAGMA synchronous").fetch_one(&mut *connection).await?.try_get(0)?;
            let keys: i64 = sqlx::query("PRAGMA foreign_keys").fetch_one(&mut *connection).await?.try_get(0)?;
            Ok::<_, db::Error>((mode, synchronous, keys))
        })
    });
    // 2 is FULL.
    assert_eq!(modes.await.unwrap(), ("wal".to_owned(), 2, 1));
}

#[tokio::test]
async fn writes_that_gather_share_a_commit_up_to_the_limit() {
    if !only_on(Backend::Sqlite) {
        return;
    }
    let (folder, database) = crate::database().await;
    let before = commits(&database, &folder).await;
    let (open, opened) = oneshot::channel::<()>();
    let first = database.clone();
    let first = tokio::spawn(async move {
        let job = first.write(|_| {
            Box::pin(async move {
                opened.await.unwrap();
                Ok::<_, db::Error>(())
            })
        });
        job.await.unwrap();
    });
    let mut others = tokio::task::JoinSet::new();
    // Two batches: a full one and the rest.
    let count = BATCH_JOBS_MAX as i64 + 44;
    for id in 0..count {
        let database = database.clone();
        others.spawn(async move { insert(&database, id, &format!("thing {id}"), false).await.unwrap() });
    }
    // All of them stand in the queue, behind the first one, when every task has run once.
    for _ in 0..2 * count {
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    first.await.unwrap();
    others.join_all().await;
    assert_eq!(ids(&database).await, (0..count).collect::<Vec<_>>());
    assert_eq!(commits(&database, &folder).await - before, 2);
}

#[tokio::test]
async fn a_failing_job_undoes_only_itself() {
    let (_folder, database) = crate::database().await;
    let (a, b, c, d) = tokio::join!(
        insert(&database, 1, "one", false),
        insert(&database, 2, "two", true),
        insert(&database, 1, "the id is taken", false),
        insert(&database, 4, "four", false),
    );
    assert!(a.is_ok() && d.is_ok());
    assert!(matches!(b, Err(Failure::OnPurpose)), "{b:?}");
    assert!(matches!(c, Err(Failure::Database(db::Error::Statement(_)))), "{c:?}");
    assert_eq!(ids(&database).await, [1, 4]);
}

#[tokio::test]
async fn a_failed_commit_answers_nobody_with_success_and_ends_the_writer() {
    if !only_on(Backend::Sqlite) {
        return;
    }
    let (_folder, database) = crate::database().await;
    // A job that ends the transaction behind the writer's back makes the savepoint, and so the commit, fail.
    let saboteur = database.write(|connection| {
        Box::pin(async move {
            sqlx::query("INSERT INTO things (id, name) VALUES (1, 'one')").execute(&mut *connection).await?;
            sqlx::query("ROLLBACK").execute(connection).await?;
            Ok::<_, db::Error>(())
        })
    });
    let (saboteur, bystander) = tokio::join!(saboteur, insert(&database, 2, "two", false));
    assert!(matches!(saboteur, Err(db::Error::Commit { .. })), "{saboteur:?}");
    assert!(
        matches!(bystander, Err(Failure::Database(db::Error::Commit { .. } | db::Error::Poisoned))),
        "{bystander:?}"
    );
    assert!(matches!(database.poisoned().await, db::Error::Poisoned));
    let late = insert(&database, 3, "three", false).await;
    assert!(matches!(late, Err(Failure::Database(db::Error::Poisoned))), "{late:?}");
    assert_eq!(ids(&database).await, [0; 0]);
}

#[tokio::test]
async fn values_of_every_kind_come_back() {
    let (_folder, database) = crate::database().await;
    let write = database.write(|connection| {
        Box::pin(async move {
            let sql = "INSERT INTO things (id, name, note, data) VALUES ($1, $2, $3, $4), ($5, $6, $7, $8)";
            let insert = sqlx::query(sql).bind(i64::MAX).bind("ä").bind(None::<String>).bind(vec![0_u8, 255]);
            insert.bind(i64::MIN).bind("").bind(Some("note")).bind(None::<Vec<u8>>).execute(connection).await?;
            Ok::<_, db::Error>(())
        })
    });
    write.await.unwrap();
    type Thing = (i64, String, Option<String>, Option<Vec<u8>>);
    let things: Vec<Thing> = sqlx::query_as("SELECT id, name, note, data FROM things ORDER BY id DESC")
        .fetch_all(database.reads())
        .await
        .unwrap();
    let expected: [Thing; 2] =
        [(i64::MAX, "ä".into(), None, Some(vec![0, 255])), (i64::MIN, String::new(), Some("note".into()), None)];
    assert_eq!(things, expected);
    let (count, most): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), COALESCE(MAX(id), 0) FROM things").fetch_one(database.reads()).await.unwrap();
    assert_eq!((count, most), (2, i64::MAX));
}

#[tokio::test]
async fn reads_refuse_to_write() {
    let (_folder, database) = crate::database().await;
    let written = sqlx::query("DELETE FROM things").execute(database.reads()).await;
    assert!(written.is_err());
}

#[tokio::test]
async fn a_database_outlives_its_process_and_migrates_once() {
    let (folder, database) = crate::database().await;
    insert(&database, 1, "one", false).await.unwrap();
    drop(database);
    let more =
        Migration { version: KIT_VERSION_MAX + 2, name: "more", sql: "ALTER TABLE things ADD COLUMN size BIGINT;" };
    let database = Database::open(folder.url(), &[MIGRATIONS[0], more]).await.unwrap();
    assert_eq!(ids(&database).await, [1]);
    sqlx::query("SELECT size FROM things").fetch_all(database.reads()).await.unwrap();
    drop(database);
    let older = Database::open(folder.url(), &MIGRATIONS).await;
    assert!(matches!(older, Err(db::Error::Newer { version }) if version == more.version), "{older:?}");
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named() {
    if !only_on(Backend::Sqlite) {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), b"no database, and no folder either").unwrap();
    let inside = format!("sqlite://{}", folder.path().join("file/kit.db").display());
    let error = Database::open(&inside, &MIGRATIONS).await.unwrap_err();
    assert!(matches!(&error, db::Error::Folder { url, .. } if *url == inside), "{error:?}");
    let garbage = format!("sqlite://{}", folder.path().join("file").display());
    let error = Database::open(&garbage, &MIGRATIONS).await.unwrap_err();
    assert_eq!(error.kind(), db::Kind::Lasting, "{error:?}");
}

#[tokio::test]
async fn an_event_is_new_once_for_each_consumer() {
    let (_folder, database) = crate::database().await;
    let mark = async |consumer: &'static str, commit: bool| {
        let job = database.write(move |connection| {
            Box::pin(async move {
                let first = inbox::first_time(connection, consumer, "event 1").await?;
                if commit { Ok(first) } else { Err(Failure::OnPurpose) }
            })
        });
        job.await
    };
    assert!(matches!(mark("a", false).await, Err(Failure::OnPurpose)));
    assert!(mark("a", true).await.unwrap(), "an effect that was undone is not marked");
    assert!(!mark("a", true).await.unwrap());
    assert!(mark("b", true).await.unwrap());
}

#[tokio::test]
async fn the_inbox_forgets_what_is_older_than_its_retention() {
    let (_folder, database) = crate::database().await;
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let retention_ms = inbox::RETENTION_MS as i64;
    let write = database.write(move |connection| {
        Box::pin(async move {
            let old = (0..1_500).map(|at| (format!("old {at}"), now_ms - retention_ms - 1_000));
            for (id, time_ms) in old.chain([("young".to_owned(), now_ms - retention_ms + 60_000)]) {
                let sql = "INSERT INTO inbox (consumer, event_id, handled_at_ms) VALUES ('a', $1, $2)";
                sqlx::query(sql).bind(id).bind(time_ms).execute(&mut *connection).await?;
            }
            Ok::<_, db::Error>(())
        })
    });
    write.await.unwrap();
    let token = service_kit::CancellationToken::new();
    let pruning = tokio::spawn(inbox::keep_small(database.clone(), token.clone()));
    crate::until("only the young event is left", async || {
        let left: Vec<String> =
            sqlx::query_scalar("SELECT event_id FROM inbox").fetch_all(database.reads()).await.unwrap();
        left == ["young"]
    })
    .await;
    token.cancel();
    tokio::time::timeout(Duration::from_secs(5), pruning).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_done_all_the_same() {
    let (_folder, database) = crate::database().await;
    let (begin, begun) = oneshot::channel::<()>();
    let (go, going) = oneshot::channel::<()>();
    let writer = database.clone();
    let caller = tokio::spawn(async move {
        let job = writer.write(move |connection| {
            Box::pin(async move {
                begin.send(()).unwrap();
                going.await.unwrap();
                sqlx::query("INSERT INTO things (id, name) VALUES (1, 'one')").execute(connection).await?;
                Ok::<_, db::Error>(())
            })
        });
        job.await
    });
    begun.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    crate::until("the write is there", async || ids(&database).await == [1]).await;
}

#[tokio::test]
async fn one_file_is_one_database_for_two_processes() {
    // A connection of the same file, as another process would have it, sees what is committed and nothing else.
    let (folder, database) = crate::database().await;
    insert(&database, 1, "one", false).await.unwrap();
    let mut other = sqlx::AnyConnection::connect(folder.url()).await.unwrap();
    let seen: Vec<i64> = sqlx::query_scalar("SELECT id FROM things").fetch_all(&mut other).await.unwrap();
    assert_eq!(seen, [1]);
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn the_queue_of_writes_takes_as_many_as_its_limit_says_and_the_next_waits_outside() {
    let (_folder, database) = crate::database().await;
    let (begin, begun) = oneshot::channel::<()>();
    let (go, going) = oneshot::channel::<()>();
    let mut first = pin!(database.write(move |_| {
        Box::pin(async move {
            begin.send(()).unwrap();
            going.await.unwrap();
            Ok::<_, db::Error>(())
        })
    }));
    assert!(poll_once(first.as_mut()).is_pending());
    begun.await.unwrap();
    // Their callers go away: what stands in the queue is done all the same, what waits outside is not.
    let last = QUEUE_JOBS_MAX as i64;
    for id in 0..=last {
        let name = format!("thing {id}");
        let write = tokio::task::unconstrained(insert(&database, id, &name, false));
        assert!(poll_once(pin!(write)).is_pending());
    }
    go.send(()).unwrap();
    first.await.unwrap();
    insert(&database, last + 1, "the last one", false).await.unwrap();
    assert_eq!(ids(&database).await, (0..last).chain([last + 1]).collect::<Vec<_>>());
}

#[tokio::test]
async fn as_many_reads_run_at_the_same_time_as_the_limit_says() {
    let (_folder, database) = crate::database().await;
    let mut reads = Vec::new();
    for _ in 0..READ_CONNECTIONS_MAX {
        reads.push(database.reads().acquire().await.unwrap());
    }
    let mut one_more = pin!(database.reads().acquire());
    assert!(poll_once(one_more.as_mut()).is_pending());
    assert_eq!(database.reads().size(), READ_CONNECTIONS_MAX);
    reads.pop();
    one_more.await.unwrap();
    assert_eq!(database.reads().size(), READ_CONNECTIONS_MAX);
}

#[tokio::test]
async fn an_error_that_lasts_is_told_from_one_that_passes_and_one_of_the_row() {
    let (folder, database) = crate::database().await;
    insert(&database, 1, "one", false).await.unwrap();
    let read = async |sql: &'static str| {
        let rows = async { Ok(sqlx::query(sql).fetch_all(database.reads()).await?) };
        database.judged(rows).await.map(drop).map_err(|error| error.kind())
    };
    let write = async || {
        let Err(Failure::Database(error)) = insert(&database, 1, "one", false).await else { panic!("it is taken") };
        database.judged(async { Err::<(), _>(error) }).await.unwrap_err().kind()
    };
    let mut poisoned = pin!(database.poisoned());
    assert_eq!(write().await, db::Kind::OfTheRow);
    let column = db::Error::column("name", "it is too long");
    assert_eq!(database.judged(async { Err::<(), _>(column) }).await.unwrap_err().kind(), db::Kind::OfTheRow);
    let busy = sqlx::Error::PoolTimedOut.into();
    assert_eq!(database.judged(async { Err::<(), _>(busy) }).await.unwrap_err().kind(), db::Kind::Passing);
    assert_eq!(read("SELECT id FROM things").await, Ok(()));
    assert!(poll_once(poisoned.as_mut()).is_pending(), "none of these ends a service");
    let mut other = sqlx::AnyConnection::connect(folder.url()).await.unwrap();
    sqlx::query("DROP TABLE things").execute(&mut other).await.unwrap();
    assert_eq!(read("SELECT id FROM things").await, Err(db::Kind::Lasting));
    let error = poisoned.await;
    assert!(matches!(&error, db::Error::Unfit { cause } if cause.contains("things")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_may_be_opened_by_many_at_the_same_time() {
    for _ in 0..10 {
        let test = TestDatabase::new();
        let url = test.url().to_owned();
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let url = url.clone();
            opening.spawn(async move { Database::open(&url, &MIGRATIONS).await.map(drop) });
        }
        while let Some(opened) = opening.join_next().await {
            opened.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_while_another_process_holds_the_database_for_long() {
    let (test, database) = crate::database().await;
    let other = Database::open(test.url(), &MIGRATIONS).await.unwrap();
    let (begin, begun) = oneshot::channel::<()>();
    let (go, going) = oneshot::channel::<()>();
    let holder = tokio::spawn(async move {
        let job = other.write(move |connection| {
            Box::pin(async move {
                begin.send(()).unwrap();
                // A server ends a transaction that is idle for long.
                let mut going = going;
                loop {
                    match tokio::time::timeout(Duration::from_secs(1), &mut going).await {
                        Ok(told) => break told.unwrap(),
                        Err(_) => {
                            sqlx::query("SELECT 1").execute(&mut *connection).await?;
                        }
                    }
                }
                Ok::<_, db::Error>(())
            })
        });
        job.await
    });
    begun.await.unwrap();
    let mut write = pin!(insert(&database, 1, "waits", false));
    // Longer than SQLite itself waits.
    let early = tokio::time::timeout(Duration::from_millis(2_500), &mut write).await;
    assert!(early.is_err(), "{early:?}");
    go.send(()).unwrap();
    holder.await.unwrap().unwrap();
    write.await.unwrap();
    assert_eq!(ids(&database).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_two_processes_handle_at_the_same_time_has_one_effect() {
    const EVENTS: i64 = 40;
    let (test, database) = crate::database().await;
    let other = Database::open(test.url(), &MIGRATIONS).await.unwrap();
    let mut handling = tokio::task::JoinSet::new();
    for (event, database) in (0..EVENTS).flat_map(|event| [(event, database.clone()), (event, other.clone())]) {
        handling.spawn(async move {
            let job = database.write(move |connection| {
                Box::pin(async move {
                    let first = inbox::first_time(connection, "a", &format!("event {event}")).await?;
                    if first {
                        let sql = "INSERT INTO things (id, name) SELECT COALESCE(MAX(id), 0) + 1, $1 FROM things";
                        sqlx::query(sql).bind(format!("thing {event}")).execute(connection).await?;
                    }
                    Ok::<_, db::Error>(first)
                })
            });
            job.await.unwrap()
        });
    }
    let first_times = handling.join_all().await.into_iter().filter(|first| *first).count();
    assert_eq!(first_times, EVENTS as usize);
    // A number that two had read before either wrote it would be there twice, or be missing.
    assert_eq!(ids(&database).await, (1..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_statement_that_a_job_keeps_to_itself_is_not_answered_with_success() {
    let (_test, database) = crate::database().await;
    insert(&database, 1, "one", false).await.unwrap();
    let written = database.write(|connection| {
        Box::pin(async move {
            let insert = "INSERT INTO things (id, name) VALUES ($1, $2)";
            sqlx::query(insert).bind(2_i64).bind("two").execute(&mut *connection).await?;
            drop(sqlx::query(insert).bind(1_i64).bind("the id is taken").execute(connection).await);
            Ok::<_, db::Error>(())
        })
    });
    let written = written.await;
    // SQLite goes on after a statement that failed; PostgreSQL undoes what came before it, and then says so.
    assert_eq!(ids(&database).await, if written.is_ok() { vec![1, 2] } else { vec![1] }, "{written:?}");
    insert(&database, 3, "three", false).await.unwrap();
}

#[tokio::test]
async fn text_is_ordered_byte_by_byte() {
    let (_test, database) = crate::database().await;
    let names = ["B", "Z", "a", "a b", "aa", "ä"];
    for (id, name) in names.iter().rev().enumerate() {
        insert(&database, id as i64, name, false).await.unwrap();
    }
    let sql = "SELECT name FROM things ORDER BY name";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(database.reads()).await.unwrap();
    assert_eq!(found, names);
}
