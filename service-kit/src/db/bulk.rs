//! Work of one kind that comes from many at the same time, done with few statements for all of them.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Span;

use super::link::Failure;
use super::writer::{Entry, Job, Kind, Queue, Work};
use super::{Connection, Error, JobFuture};

/// How many rows one statement is about at most. SQLite looks for a placeholder's name among all that the statement has,
/// when it reads the statement and whenever a value is bound, so that its cost grows with the square of its rows.
pub const STATEMENT_ROWS_MAX: usize = 16;

/// Statements about up to so many rows, and about [`STATEMENT_ROWS_MAX`] of them, stay prepared. A connection keeps a
/// hundred statements, and there is one for each number of rows.
const PIECE_ROWS: usize = 8;

/// Does what several callers ask for, all of it or nothing, and gives an answer to each, in their order.
///
/// After an error everything is undone and done again one by one, so that what fails fails alone. It is called with
/// the same items again then, and so has no effects but those in the database.
pub type BulkWork<T, R, E> = for<'c> fn(&'c mut Connection, &'c [Item<T>]) -> JobFuture<'c, Result<Vec<R>, E>>;

/// What one caller asks for.
#[derive(Debug)]
pub struct Item<T> {
    /// What it is.
    pub value: T,
    /// Who asks: what is left in the outbox for it belongs to this span's trace.
    pub span: Span,
}

/// Takes work of one kind; writes that share a commit share their statements as well. Clones share the kind.
pub struct Bulk<T, R, E = Error> {
    queue: Queue,
    kind: Arc<OneKind<T, R, E>>,
}

impl<T, R, E> Bulk<T, R, E>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
    E: From<Error> + Send + 'static,
{
    pub(super) fn new(queue: Queue, work: BulkWork<T, R, E>) -> Self {
        Self { queue, kind: Arc::new(OneKind { work }) }
    }

    /// As [`super::Database::write`]: answers when it is committed, and is done also when the caller goes away. A read
    /// answers when it is done.
    pub async fn run(&self, value: T) -> Result<R, E> {
        let (answer, answered) = oneshot::channel();
        let asked: Asked<T, R, E> = Asked { item: Item { value, span: Span::current() }, answer };
        let kind: Arc<OneKind<T, R, E>> = Arc::clone(&self.kind);
        self.queue.hand_over(Job::OfKind(kind, Box::new(asked)), answered).await
    }
}

impl<T, R, E> Clone for Bulk<T, R, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), kind: Arc::clone(&self.kind) }
    }
}

impl<T, R, E> fmt::Debug for Bulk<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").finish_non_exhaustive()
    }
}

/// The placeholders of several rows: `($1, $2), ($3, $4)`.
pub fn rows(count: usize, columns: usize) -> String {
    let rows = (0..count).map(|row| format!("({})", list(row * columns + 1, columns)));
    rows.collect::<Vec<_>>().join(", ")
}

/// The placeholders of a list: `$3, $4, $5`, counted from `first`.
pub fn list(first: usize, count: usize) -> String {
    let placeholders = (first..first + count).map(|at| format!("${at}"));
    placeholders.collect::<Vec<_>>().join(", ")
}

/// Splits what one statement would do into what several do, each about as many rows as a prepared statement is: the fewest
/// of at most [`STATEMENT_ROWS_MAX`].
pub fn pieces<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let rows = match items.len() {
            0 => return None,
            STATEMENT_ROWS_MAX.. => STATEMENT_ROWS_MAX,
            PIECE_ROWS.. => PIECE_ROWS,
            few => few,
        };
        Some(items.by_ref().take(rows).collect())
    })
}

/// A query that was put together from constants, [`rows`] and [`list`], for `count` rows.
pub fn query<'q>(sql: String, count: usize) -> sqlx::query::Query<'q, super::Db, sqlx::any::AnyArguments> {
    sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(count <= PIECE_ROWS || count == STATEMENT_ROWS_MAX)
}

struct OneKind<T, R, E> {
    work: BulkWork<T, R, E>,
}

struct Asked<T, R, E> {
    item: Item<T>,
    answer: oneshot::Sender<Result<R, E>>,
}

impl<T, R, E> Kind for OneKind<T, R, E>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn together(&self, entries: Vec<Entry>) -> Box<dyn Work> {
        // Everything that comes with this kind was made by its `Bulk`.
        let asked = entries.into_iter().filter_map(|entry| entry.downcast::<Asked<T, R, E>>().ok());
        let (items, answers) = asked.map(|asked| (asked.item, asked.answer)).unzip();
        Box::new(Group { work: self.work, items, answers, result: None })
    }
}

struct Group<T, R, E> {
    work: BulkWork<T, R, E>,
    items: Vec<Item<T>>,
    answers: Vec<oneshot::Sender<Result<R, E>>>,
    result: Option<Result<Vec<R>, E>>,
}

impl<T, R, E> Work for Group<T, R, E>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> JobFuture<'c, bool> {
        Box::pin(async move {
            let result = (self.work)(connection, &self.items).await;
            if let Ok(values) = &result {
                assert_eq!(values.len(), self.items.len(), "each item has an answer");
            }
            self.result.insert(result).is_ok()
        })
    }

    fn parts(self: Box<Self>) -> Vec<Box<dyn Work>> {
        if self.items.len() == 1 {
            return vec![self];
        }
        let work = self.work;
        let part = |(item, answer)| {
            let part: Box<dyn Work> = Box::new(Self { work, items: vec![item], answers: vec![answer], result: None });
            part
        };
        self.items.into_iter().zip(self.answers).map(part).collect()
    }

    fn answer(self: Box<Self>, committed: Result<(), &Failure>) {
        // The callers may be gone; their writes are done all the same.
        let mut answers = self.answers.into_iter();
        match (self.result, committed) {
            (Some(Ok(values)), Ok(())) => {
                values.into_iter().zip(answers).for_each(|(value, answer)| drop(answer.send(Ok(value))));
            }
            (Some(Ok(_)) | None, Err(failure)) => refuse(answers, failure),
            (Some(Err(error)), committed) => {
                if let Some(answer) = answers.next() {
                    drop(answer.send(Err(error)));
                }
                // One alone is answered with its error; the others only share the transaction with it.
                if let Err(failure) = committed {
                    refuse(answers, failure);
                }
            }
            (None, Ok(())) => {}
        }
    }
}

fn refuse<R, E: From<Error>>(answers: impl Iterator<Item = oneshot::Sender<Result<R, E>>>, failure: &Failure) {
    answers.for_each(|answer| drop(answer.send(Err(failure.error().into()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_on_from_row_to_row() {
        assert_eq!(rows(2, 3), "($1, $2, $3), ($4, $5, $6)");
        assert_eq!(rows(1, 1), "($1)");
        assert_eq!(list(3, 2), "$3, $4");
    }

    #[test]
    fn pieces_keep_the_order_and_have_few_different_sizes() {
        for (count, sizes) in
            [(0, vec![]), (1, vec![1]), (8, vec![8]), (15, vec![8, 7]), (16, vec![16]), (41, vec![16, 16, 8, 1])]
        {
            let pieces: Vec<_> = pieces((0..count).collect()).collect();
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_eq!(pieces.concat(), (0..count).collect::<Vec<_>>());
        }
    }
}
