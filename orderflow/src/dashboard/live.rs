//! What the collectors have found, and the picture of it that all browsers get.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use orderflow_proto::orderflow::broker::v1::{GetStatsResponse, SubscriptionStats};
use service_kit::clock::now_ms;
use tokio::sync::{Notify, watch};

use super::flow::{Flow, HISTORY_S};
use super::headline::{Shown, headline};
use super::outages::Outages;
use super::site::{Seen, Site};
use super::steady::Steady;
use super::wire::{AcquirerState, BooksState, BooksStatus, BrokerState, History, QueueState, State, TopicState};
use crate::acquirer::Behaviour;
use crate::part::{Instance, Part};

/// The subscription with what nobody could handle.
const DEAD_LETTERS: &str = "operator.dead-letters";
/// Who keeps them: a person, so that it is no part.
const OPERATOR: &str = "operator";
/// Nobody has looked for so long: the books need not be read any more.
const LOOKED_WITHIN_MS: i64 = 60_000;
/// Nobody has looked for so long: a steady load that was started from the page ends, or it would fill the disk.
const LOAD_UNLOOKED_MS_MAX: i64 = 10 * 60_000;

/// Everything that is known now.
pub(super) struct Live {
    pub(super) site: Site,
    pub(super) steady: Steady,
    broker: Mutex<Broker>,
    seen: Mutex<BTreeMap<Instance, Seen>>,
    acquirer: Mutex<Option<Behaviour>>,
    books: Mutex<BooksState>,
    /// What was read of the books counts until then.
    books_until_ms: AtomicI64,
    flow: Mutex<Flow>,
    outages: Mutex<Outages>,
    /// Counts the ticks; whoever waits for the next picture waits here.
    ticks: watch::Sender<u64>,
    /// The last picture, with the tick that it was made in: one for everybody.
    picture: Mutex<Option<(u64, Bytes)>>,
    looked_ms: AtomicI64,
    /// Told when somebody looks after a time in which nobody did.
    pub(super) looks: Notify,
}

/// What the broker told last.
#[derive(Debug, Default)]
struct Broker {
    reached: bool,
    seen_ms: Option<i64>,
    stats: GetStatsResponse,
}

impl Live {
    pub(super) fn new(site: Site) -> Self {
        Self {
            site,
            steady: Steady::default(),
            broker: Mutex::default(),
            seen: Mutex::default(),
            acquirer: Mutex::default(),
            books: Mutex::default(),
            books_until_ms: AtomicI64::new(0),
            flow: Mutex::default(),
            outages: Mutex::default(),
            ticks: watch::Sender::default(),
            picture: Mutex::default(),
            looked_ms: AtomicI64::new(0),
            looks: Notify::new(),
        }
    }

    /// Lets the time pass: a new second for the charts, a new picture for those who look.
    pub(super) fn tick(&self) {
        let now_ms = now_ms();
        lock(&self.flow).advance(now_ms);
        self.end_forgotten_load(now_ms);
        self.ticks.send_modify(|tick| *tick += 1);
    }

    pub(super) fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// The present as JSON. It is put together at most once in each tick, however many ask.
    pub(super) fn picture(&self) -> Bytes {
        self.look();
        let tick = *self.ticks.borrow();
        let mut picture = lock(&self.picture);
        match &*picture {
            Some((made, bytes)) if *made == tick => bytes.clone(),
            _ => {
                let bytes = Bytes::from(serde_json::to_vec(&self.state()).unwrap_or_default());
                *picture = Some((tick, bytes.clone()));
                bytes
            }
        }
    }

    /// Makes the next picture a new one: something was changed by whoever looks.
    pub(super) fn touch(&self) {
        *lock(&self.picture) = None;
    }

    /// Whether somebody has looked lately.
    pub(super) fn is_looked_at(&self) -> bool {
        now_ms() - self.looked_ms.load(Ordering::Relaxed) < LOOKED_WITHIN_MS
    }

    /// Somebody is there.
    pub(super) fn look(&self) {
        let now_ms = now_ms();
        if now_ms - self.looked_ms.swap(now_ms, Ordering::Relaxed) >= LOOKED_WITHIN_MS {
            self.looks.notify_one();
        }
    }

    /// Ends the steady load of somebody who has closed the page and gone away.
    fn end_forgotten_load(&self, now_ms: i64) {
        let unlooked_ms = now_ms - self.looked_ms.load(Ordering::Relaxed);
        if unlooked_ms > LOAD_UNLOOKED_MS_MAX && self.steady.stop().is_some() {
            tracing::info!(unlooked_ms, "the steady load has ended: nobody looks at the page");
        }
    }

    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.flow)
    }

    /// The books were read, and will be read again after about so long if somebody looks then.
    pub(super) fn set_books(&self, books: BooksState, pause_ms: i64) {
        *lock(&self.books) = books;
        self.books_until_ms.store(now_ms() + pause_ms + LOOKED_WITHIN_MS, Ordering::Relaxed);
    }

    pub(super) fn books(&self) -> BooksState {
        lock(&self.books).clone()
    }

    pub(super) fn set_acquirer(&self, behaviour: Option<Behaviour>) {
        *lock(&self.acquirer) = behaviour;
    }

    pub(super) fn set_seen(&self, instance: Instance, seen: Seen) {
        lock(&self.outages).observe(instance, seen.healthy, now_ms());
        lock(&self.seen).insert(instance, seen);
    }

    /// The broker told how everything stands.
    pub(super) fn set_stats(&self, stats: GetStatsResponse) {
        // What lies with the operator waits for nobody's work.
        let works = |queue: &&SubscriptionStats| consumer(queue).is_some_and(|consumer| consumer != OPERATOR);
        let queued = stats.subscriptions.iter().filter(works);
        lock(&self.flow).queued(sum(queued.map(|queue| queue.backlog_messages)));
        *lock(&self.broker) = Broker { reached: true, seen_ms: Some(now_ms()), stats };
    }

    /// The broker does not answer; what it told last stays.
    pub(super) fn lose_broker(&self) {
        lock(&self.broker).reached = false;
    }

    /// Something that changes whenever orders or messages move: books that balanced before balance while it stays.
    pub(super) fn movement(&self) -> (u64, u64, u64) {
        let published = |broker: &Broker| sum(broker.stats.topics.iter().map(|topic| topic.published_messages));
        let acked = |broker: &Broker| sum(broker.stats.subscriptions.iter().map(|queue| queue.acked_messages));
        let broker = lock(&self.broker);
        (published(&broker), acked(&broker), dead_letters(&broker.stats).unwrap_or_default())
    }

    pub(super) fn history(&self) -> History {
        let now_ms = now_ms();
        let since_ms = now_ms - i64::try_from(HISTORY_S).unwrap_or(i64::MAX) * 1_000;
        History { samples: lock(&self.flow).samples(0), outages: lock(&self.outages).since(since_ms) }
    }

    fn state(&self) -> State {
        let now_ms = now_ms();
        let broker = lock(&self.broker);
        let stats = &broker.stats;
        let known = broker.seen_ms.is_some();
        let parts = self.site.parts(&lock(&self.seen));
        let queues: Vec<QueueState> = stats.subscriptions.iter().filter_map(queue).collect();
        let acquirer = lock(&self.acquirer).map(|Behaviour { mode, percent }| AcquirerState { mode, percent });
        let (books, dead_letters) = (self.shown_books(), dead_letters(stats).filter(|_| known));
        let headline = headline(&Shown {
            books: &books,
            parts: &parts,
            queues: &queues,
            acquirer,
            broker_reached: broker.reached,
            dead_letters: dead_letters.unwrap_or_default(),
        });
        State {
            time_ms: now_ms,
            version: env!("CARGO_PKG_VERSION"),
            owns_processes: self.site.owned.is_some(),
            data_dir: self.site.data_dir().map(|path| path.display().to_string()),
            parts,
            broker: BrokerState { reached: broker.reached, seen_ms: broker.seen_ms },
            topics: stats
                .topics
                .iter()
                .map(|topic| TopicState { id: id(&topic.topic), published_per_s: topic.published_per_second })
                .collect(),
            queues,
            orders: lock(&self.flow).orders(now_ms),
            load: self.steady.state(),
            acquirer,
            dead_letters,
            books,
            headline,
        }
    }

    /// What was read before nobody looked is no verdict any more.
    fn shown_books(&self) -> BooksState {
        let mut books = self.books();
        if now_ms() > self.books_until_ms.load(Ordering::Relaxed) {
            books.status = BooksStatus::Unknown;
        }
        books
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a broker tells is not ours to trust: whatever it is, adding it up ends no process.
fn sum(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}

/// The last name of a full one.
fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Whose queue this is: a part's, or the operator's; none for what is no queue of the suite, such as this page's own
/// subscription.
fn consumer(queue: &SubscriptionStats) -> Option<&'static str> {
    let (consumer, _) = queue.subscription.rsplit('/').next()?.split_once('.')?;
    Part::ALL.iter().map(|part| part.name()).chain([OPERATOR]).find(|name| *name == consumer)
}

fn queue(stats: &SubscriptionStats) -> Option<QueueState> {
    let age_ms = |age: &prost_types::Duration| {
        age.seconds.saturating_mul(1_000).saturating_add(i64::from(age.nanos) / 1_000_000)
    };
    Some(QueueState {
        consumer: consumer(stats)?.to_owned(),
        id: id(&stats.subscription),
        topic: id(&stats.topic),
        backlog: stats.backlog_messages,
        outstanding: stats.outstanding_messages,
        delayed: stats.delayed_messages,
        oldest_age_ms: stats.oldest_unacked_age.as_ref().map(age_ms),
        published_per_s: stats.published_per_second,
        delivered_per_s: stats.delivered_per_second,
        acked_per_s: stats.acked_per_second,
        consumers: stats.consumers,
        dead_lettered: stats.dead_lettered_messages,
    })
}

fn dead_letters(stats: &GetStatsResponse) -> Option<u64> {
    let letters = stats.subscriptions.iter().find(|queue| queue.subscription.ends_with(&format!("/{DEAD_LETTERS}")))?;
    Some(letters.backlog_messages)
}

#[cfg(test)]
mod tests {
    use service_kit::CancellationToken;

    use super::*;
    use crate::audit::Addresses;
    use crate::dashboard::site::Commands;

    fn stats(name: &str) -> SubscriptionStats {
        SubscriptionStats {
            subscription: format!("projects/orderflow/subscriptions/{name}"),
            topic: "projects/orderflow/topics/order-events".into(),
            backlog_messages: 3,
            oldest_unacked_age: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            ..Default::default()
        }
    }

    /// What is known of a stack that does not run.
    fn live() -> Live {
        let nobody = || "http://127.0.0.1:1".to_owned();
        let addresses = Addresses {
            broker: nobody(),
            acquirer: nobody(),
            order_service: nobody(),
            payment_service: nobody(),
            notification_service: nobody(),
        };
        Live::new(Site::elsewhere(addresses, nobody(), Vec::new(), Commands::Compose).unwrap())
    }

    #[test]
    fn only_queues_of_the_suite_are_shown() {
        for name in ["dashboard-1a2b.order-events", "operators.dead-letters", "mine"] {
            assert!(queue(&stats(name)).is_none(), "{name}");
        }
        let shown = queue(&stats("payment-service.order-events")).unwrap();
        assert_eq!((shown.consumer.as_str(), shown.topic.as_str()), ("payment-service", "order-events"));
        assert_eq!((shown.backlog, shown.oldest_age_ms), (3, Some(1_500)));
    }

    #[tokio::test]
    async fn dead_letters_are_a_queue_that_is_shown_and_that_counts_for_no_work() {
        let live = live();
        let now_ms = now_ms();
        live.flow().advance(now_ms);
        let queues = ["payment-service.order-events", "invoice-worker.invoice-jobs", DEAD_LETTERS, "mine"];
        live.set_stats(GetStatsResponse { subscriptions: queues.map(stats).into(), ..Default::default() });
        let state = live.state();
        let letters = state.queues.iter().find(|queue| queue.id == DEAD_LETTERS).unwrap();
        assert_eq!((letters.consumer.as_str(), letters.backlog, state.dead_letters), ("operator", 3, Some(3)));
        live.flow().advance(now_ms + 60_000);
        assert_eq!(live.flow().samples(0)[0].queued, 6, "those of the two parts");
    }

    #[tokio::test]
    async fn a_steady_load_ends_when_nobody_has_looked_for_long() {
        let live = live();
        live.look();
        let looked_ms = live.looked_ms.load(Ordering::Relaxed);
        live.steady.start("http://127.0.0.1:1", 1.0, None, &CancellationToken::new()).unwrap();
        live.end_forgotten_load(looked_ms + LOAD_UNLOOKED_MS_MAX);
        assert!(live.steady.state().is_some());
        live.end_forgotten_load(looked_ms + LOAD_UNLOOKED_MS_MAX + 1);
        assert!(live.steady.state().is_none());
    }
}
