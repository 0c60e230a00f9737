//! Writes of one kind that share their statements.

use service_kit::db::{self, Bulk, Connection, Database, Item, JobFuture};
use service_kit::outbox::{self, NewEvent};
use service_kit::{CancellationToken, inbox};
use test_database::{Backend, backend};
use tokio::task::JoinSet;

/// A thing that a message asks for.
#[derive(Clone, Debug)]
struct Thing {
    message_id: String,
    id: i64,
}

fn thing(message: usize, id: i64) -> Thing {
    Thing { message_id: format!("message {message}"), id }
}

/// Writes things, and beside each how many were written together; false for a message that was handled before.
fn write<'c>(connection: &'c mut Connection, items: &'c [Item<Thing>]) -> JobFuture<'c, Result<Vec<bool>, db::Error>> {
    Box::pin(async move {
        let messages: Vec<_> = items.iter().map(|item| item.value.message_id.as_str()).collect();
        let first_times = inbox::first_times(connection, "test", &messages).await?;
        for (Item { value: thing, .. }, _) in items.iter().zip(&first_times).filter(|(_, first)| **first) {
            let sql = "INSERT INTO things (id, name, note) VALUES ($1, $2, $3)";
            let insert = sqlx::query(sql).bind(thing.id).bind(format!("thing {}", thing.id));
            insert.bind(items.len().to_string()).execute(&mut *connection).await?;
        }
        Ok(first_times)
    })
}

/// Ends the transaction behind the writer's back.
fn spoil<'c>(connection: &'c mut Connection, items: &'c [Item<Thing>]) -> JobFuture<'c, Result<Vec<bool>, db::Error>> {
    Box::pin(async move {
        let written = write(connection, items).await?;
        sqlx::query("ROLLBACK").execute(connection).await?;
        Ok(written)
    })
}

/// Hands all of them in while the writer is busy, so that they share a commit, and gives their answers.
async fn together(database: &Database, bulk: &Bulk<Thing, bool>, things: &[Thing]) -> Vec<Result<bool, db::Error>> {
    let (busy, free) = (CancellationToken::new(), CancellationToken::new());
    let first = database.clone();
    let (is_busy, until_free) = (busy.clone(), free.clone());
    let first = tokio::spawn(async move {
        let job = first.write(|_| {
            Box::pin(async move {
                is_busy.cancel();
                until_free.cancelled().await;
                Ok::<_, db::Error>(())
            })
        });
        job.await
    });
    busy.cancelled().await;
    let mut writes = JoinSet::new();
    for (at, thing) in things.iter().cloned().enumerate() {
        let bulk = bulk.clone();
        writes.spawn(async move { (at, bulk.run(thing).await) });
    }
    // All of them stand in the queue when every task has run once.
    for _ in 0..2 * things.len() {
        tokio::task::yield_now().await;
    }
    free.cancel();
    first.await.unwrap().unwrap();
    let mut answers = writes.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The ids of the things with how many were written together.
async fn things(database: &Database) -> Vec<(i64, String)> {
    sqlx::query_as("SELECT id, note FROM things ORDER BY id").fetch_all(database.reads()).await.unwrap()
}

fn noted(ids: &[i64], together: usize) -> Vec<(i64, String)> {
    ids.iter().map(|id| (*id, together.to_string())).collect()
}

#[tokio::test]
async fn writes_of_one_kind_that_share_a_commit_are_done_as_one_and_each_has_its_answer() {
    let (_folder, database) = crate::database().await;
    let bulk = database.bulk(write);
    assert!(bulk.run(thing(0, 100)).await.unwrap());
    let asked = [thing(1, 1), thing(0, 2), thing(3, 3)];
    let answers = together(&database, &bulk, &asked).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [true, false, true]);
    let expected = [noted(&[1, 3], 3), noted(&[100], 1)].concat();
    assert_eq!(things(&database).await, expected);
}

#[tokio::test]
async fn one_that_fails_fails_alone_and_the_others_are_done_once() {
    let (_folder, database) = crate::database().await;
    let bulk = database.bulk(write);
    assert!(bulk.run(thing(0, 2)).await.unwrap());
    let answers = together(&database, &bulk, &[thing(1, 1), thing(2, 2), thing(3, 3)]).await;
    assert!(matches!(answers[..], [Ok(true), Err(db::Error::Statement(_)), Ok(true)]), "{answers:?}");
    assert_eq!(things(&database).await, noted(&[1, 2, 3], 1));
    // What failed left no mark: it can be handled when what was in its way is gone.
    assert!(bulk.run(thing(2, 4)).await.unwrap());
}

#[tokio::test]
async fn one_that_fails_alone_leaves_nothing_behind() {
    let (_folder, database) = crate::database().await;
    let bulk = database.bulk(write);
    assert!(bulk.run(thing(0, 1)).await.unwrap());
    let failed = bulk.run(thing(1, 1)).await;
    assert!(matches!(failed, Err(db::Error::Statement(_))), "{failed:?}");
    assert!(bulk.run(thing(1, 2)).await.unwrap());
    assert_eq!(things(&database).await, noted(&[1, 2], 1));
}

#[tokio::test]
async fn a_duplicate_that_shares_the_commit_has_no_second_effect() {
    let (_folder, database) = crate::database().await;
    let bulk = database.bulk(write);
    let answers = together(&database, &bulk, &[thing(1, 1), thing(1, 1), thing(2, 2)]).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(things(&database).await, noted(&[1, 2], 3));
}

#[tokio::test]
async fn a_caller_that_is_killed_before_its_ack_finds_its_write_done_and_does_it_once() {
    let (folder, database) = crate::database().await;
    let bulk = database.bulk(write);
    let caller = bulk.clone();
    let caller = tokio::spawn(async move { caller.run(thing(1, 1)).await });
    crate::until("the write is there", async || things(&database).await.len() == 1).await;
    caller.abort();
    drop((caller, bulk, database));
    // The next process gets the message again.
    let database = Database::open(folder.url(), &crate::database::MIGRATIONS).await.unwrap();
    let bulk = database.bulk(write);
    let answers = together(&database, &bulk, &[thing(1, 1), thing(2, 2)]).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [false, true]);
    assert_eq!(things(&database).await, [noted(&[1], 1), noted(&[2], 2)].concat());
}

#[tokio::test]
async fn a_failed_commit_is_told_to_all_who_share_it() {
    let (_folder, database) = crate::database().await;
    let bulk = database.bulk(spoil);
    let answers = together(&database, &bulk, &[thing(1, 1), thing(2, 2)]).await;
    let after = bulk.run(thing(3, 3)).await;
    match backend() {
        // What is on disk is known only after a restart.
        Backend::Sqlite => {
            let failed = |answer: &Result<bool, db::Error>| matches!(answer, Err(db::Error::Commit { .. }));
            assert!(answers.iter().all(failed), "{answers:?}");
            assert!(matches!(after, Err(db::Error::Poisoned)), "{after:?}");
        }
        // The server knows it.
        Backend::Postgres => {
            let failed = |answer: &Result<bool, db::Error>| matches!(answer, Err(db::Error::Lost { .. }));
            assert!(answers.iter().chain([&after]).all(failed), "{answers:?}, {after:?}");
            assert!(database.bulk(write).run(thing(4, 4)).await.unwrap());
            database
                .write(|connection| {
                    Box::pin(async move {
                        sqlx::query("DELETE FROM things WHERE id = 4").execute(connection).await?;
                        Ok::<_, db::Error>(())
                    })
                })
                .await
                .unwrap();
        }
    }
    assert_eq!(things(&database).await, []);
}

#[tokio::test]
async fn events_that_are_written_together_stand_in_the_outbox_in_their_order_without_gaps() {
    let (_folder, database) = crate::database().await;
    for (round, count) in [(0, 1), (1, 3), (2, 300)] {
        let job = database.write(move |connection| {
            Box::pin(async move {
                let event = |at: i32| NewEvent {
                    topic: "order-events",
                    ordering_key: format!("{round} {at:03}"),
                    kind: "test.Happened",
                    payload: Vec::new(),
                };
                let events =
                    (0..count).map(|at| outbox::prepare("test-service", event(at))).collect::<Result<_, _>>()?;
                outbox::enqueue_all(connection, events).await
            })
        });
        job.await.unwrap();
    }
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, ordering_key FROM outbox ORDER BY id").fetch_all(database.reads()).await.unwrap();
    assert_eq!(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (1..=304).collect::<Vec<_>>());
    assert!(rows.is_sorted_by_key(|(_, key)| key.clone()), "{rows:?}");
}
