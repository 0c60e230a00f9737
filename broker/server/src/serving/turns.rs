//! The turns of a connection's task: it attends to the connection and to the calls on it, with as few wake-ups as possible.
//!
//! **Invariant:** a nudge within a turn wakes nobody, and none is lost. Who nudges says first what is wanted, and looks then
//! whether a turn is under way; a turn says first that it is over, and looks then whether something is wanted. All threads
//! see these steps in one order, so that at least one of the two sees the other.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use tokio::task::coop::{Unconstrained, unconstrained};

/// How often a turn looks after what is wanted, before other tasks have theirs.
const ROUNDS_MAX: usize = 4;

/// Calls share the turn, not tokio's budget for a task: it would split replies that are ready together. A call is polled once
/// in a round, and what it may send or receive meanwhile is bounded by HTTP/2's windows.
type Call = Unconstrained<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// The calls that have come on a connection, and are not begun.
#[derive(Clone, Default)]
pub(super) struct NewCalls(Arc<Mutex<Vec<Call>>>);

impl NewCalls {
    /// Moves them over. Answers whether there were any.
    fn begin(&self, calls: &mut FuturesUnordered<Call>) -> bool {
        let mut new = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let are_there = !new.is_empty();
        calls.extend(new.drain(..));
        are_there
    }

    /// Forgets them. A call knows its connection's executor, which is this: neither would ever be dropped otherwise.
    fn forget(&self) {
        let forgotten = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(forgotten);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for NewCalls {
    fn execute(&self, call: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(unconstrained(Box::pin(call)));
    }
}

pub(super) struct Turns {
    new_calls: NewCalls,
    calls: FuturesUnordered<Call>,
    nudges: Option<Nudges>,
}

impl Turns {
    pub(super) fn new(new_calls: NewCalls) -> Self {
        Self { new_calls, calls: FuturesUnordered::new(), nudges: None }
    }

    /// Has the next turn look after the connection.
    pub(super) fn want_connection(&self) {
        if let Some(nudges) = &self.nudges {
            nudges.connection.want();
        }
    }

    /// A turn: reads what has come, goes on with the calls that can, and writes what they reply.
    pub(super) fn poll<C, E>(&mut self, mut connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        C: Future<Output = Result<(), E>>,
    {
        if !self.nudges.as_ref().is_some_and(|nudges| nudges.turn.task.will_wake(cx.waker())) {
            self.nudges = None;
        }
        let Nudges { turn, connection: of_connection, calls: of_calls } =
            self.nudges.get_or_insert_with(|| Nudges::new(cx.waker().clone()));
        for _ in 0..ROUNDS_MAX {
            turn.is_under_way.store(true, Ordering::SeqCst);
            if of_connection.take() {
                let waker = Waker::from(Arc::clone(of_connection));
                if let Poll::Ready(outcome) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(outcome);
                }
                if self.new_calls.begin(&mut self.calls) {
                    of_calls.want();
                }
            }
            if of_calls.take() {
                let waker = Waker::from(Arc::clone(of_calls));
                let mut cx = Context::from_waker(&waker);
                while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(&mut cx) {}
            }
            turn.is_under_way.store(false, Ordering::SeqCst);
            if !of_connection.is_wanted() && !of_calls.is_wanted() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.new_calls.forget();
    }
}

/// Says what the next round of a turn has to look after.
struct Nudges {
    turn: Arc<Turn>,
    connection: Arc<Nudge>,
    calls: Arc<Nudge>,
}

impl Nudges {
    fn new(task: Waker) -> Self {
        let turn = Arc::new(Turn { task, is_under_way: AtomicBool::new(false) });
        let nudge = || Arc::new(Nudge { turn: Arc::clone(&turn), is_wanted: AtomicBool::new(true) });
        Self { connection: nudge(), calls: nudge(), turn }
    }
}

struct Turn {
    task: Waker,
    is_under_way: AtomicBool,
}

struct Nudge {
    turn: Arc<Turn>,
    is_wanted: AtomicBool,
}

impl Nudge {
    fn want(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    fn take(&self) -> bool {
        self.is_wanted.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.want();
        if !self.turn.is_under_way.load(Ordering::SeqCst) {
            self.turn.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, poll_fn, ready};
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Task {
        fn wakes(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    /// Stands for HTTP/2: counts how often it is looked after, and keeps the waker for calls that have something to send.
    #[derive(Clone, Default)]
    struct Connection {
        polls: Arc<AtomicUsize>,
        waker: Arc<Mutex<Option<Waker>>>,
    }

    impl Connection {
        fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.polls.fetch_add(1, Ordering::SeqCst);
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }

        fn wake(&self) {
            self.waker.lock().unwrap().as_ref().unwrap().wake_by_ref();
        }

        fn polls(&self) -> usize {
            self.polls.swap(0, Ordering::SeqCst)
        }
    }

    /// Calls that reply once they are told to.
    fn begin_calls(calls: &NewCalls, connection: &Connection, count: usize) -> Vec<oneshot::Sender<()>> {
        let begin = |_| {
            let (reply, replied) = oneshot::channel();
            let connection = connection.clone();
            calls.execute(async move {
                replied.await.unwrap();
                connection.wake();
            });
            reply
        };
        (0..count).map(begin).collect()
    }

    /// One turn, as a task of tokio's has it.
    async fn turn<C>(turns: &mut Turns, mut connection: Pin<&mut C>, task: &Arc<Task>) -> Poll<Result<(), Infallible>>
    where
        C: Future<Output = Result<(), Infallible>>,
    {
        let waker = Waker::from(Arc::clone(task));
        poll_fn(|_| Poll::Ready(turns.poll(connection.as_mut(), &mut Context::from_waker(&waker)))).await
    }

    #[tokio::test]
    async fn replies_that_are_ready_together_are_written_in_one_go_and_cost_one_wake_up() {
        // More than tokio lets a task do at a time.
        const CALLS: usize = 1_000;
        let (calls, connection, task) = (NewCalls::default(), Connection::default(), Arc::default());
        let replies = begin_calls(&calls, &connection, CALLS);
        let mut http = pin!(poll_fn(|cx| connection.poll(cx)));
        let mut turns = Turns::new(calls);
        assert!(turn(&mut turns, http.as_mut(), &task).await.is_pending());
        assert_eq!((connection.polls(), task.wakes()), (1, 0), "it has read what came, and waits");
        replies.into_iter().for_each(|reply| reply.send(()).unwrap());
        assert_eq!(task.wakes(), 1);
        assert!(turn(&mut turns, http.as_mut(), &task).await.is_pending());
        assert_eq!((connection.polls(), task.wakes()), (1, 0), "it has written all of them, and woken nobody");
        assert!(turns.calls.is_empty());
    }

    #[tokio::test]
    async fn a_nudge_between_turns_wakes_the_task_also_once_it_is_another_one() {
        let (connection, first, second) = (Connection::default(), Arc::default(), Arc::default());
        let mut http = pin!(poll_fn(|cx| connection.poll(cx)));
        let mut turns = Turns::new(NewCalls::default());
        for task in [&first, &second] {
            assert!(turn(&mut turns, http.as_mut(), task).await.is_pending());
            assert_eq!((connection.polls(), task.wakes()), (1, 0));
            connection.wake();
            assert_eq!(task.wakes(), 1);
        }
        assert_eq!(first.wakes(), 0);
        turns.want_connection();
        assert!(turn(&mut turns, http.as_mut(), &second).await.is_pending());
        assert_eq!(connection.polls(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_always_wants_something_lets_other_tasks_have_their_turn() {
        let (connection, task) = (Connection::default(), Arc::default());
        let mut http = pin!(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            connection.poll(cx)
        }));
        let mut turns = Turns::new(NewCalls::default());
        assert!(turn(&mut turns, http.as_mut(), &task).await.is_pending());
        assert_eq!((connection.polls(), task.wakes()), (ROUNDS_MAX, 1));
    }

    #[tokio::test]
    async fn a_call_that_comes_as_the_connection_ends_is_dropped_with_it() {
        let calls = NewCalls::default();
        let (kept, of_the_call) = (Arc::new(()), calls.clone());
        let held = Arc::clone(&kept);
        calls.execute(async move {
            pending::<()>().await;
            drop((held, of_the_call));
        });
        let mut turns = Turns::new(calls);
        assert!(turn(&mut turns, pin!(ready(Ok(()))), &Arc::default()).await.is_ready());
        drop(turns);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
