//! How everything stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use broker_core::{Broker, Seq, SubscriptionId, Time, TopicId};
use broker_log::{Disk, Journal};
use prometheus_client::metrics::histogram::Histogram;

use super::super::Embedded;
use super::super::failure::Failure;
use super::super::fetch::published_at;
use super::super::store::Reader;
use super::super::task::State;
use super::super::topology::subscription_of;
use crate::engine::{Error, JournalStats, Stats, SubscriptionStats, TopicStats};

/// The bounds of what syncs are sorted into: from a disk with a cache that outlives a loss of power to a busy hard disk.
const SYNC_SECONDS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// What is known beside the core.
#[derive(Debug)]
pub(in crate::engine::embedded) struct Figures {
    journal_bytes: AtomicU64,
    journal_segments: AtomicU64,
    pub(in crate::engine::embedded) journal_syncs: AtomicU64,
    /// How long syncs took.
    pub(in crate::engine::embedded) sync_seconds: Histogram,
    started: Time,
    /// When the oldest unacked message of each subscription was published, so that it is read once for each that comes
    /// to be the oldest.
    oldest: Mutex<HashMap<SubscriptionId, Oldest>>,
}

#[derive(Clone, Copy, Debug)]
struct Oldest {
    topic: TopicId,
    seq: Seq,
    /// None if it was gone when it was looked for.
    published: Option<Time>,
}

/// The figures of a subscription, but for the age of its oldest message.
struct Half {
    id: SubscriptionId,
    oldest: Option<(TopicId, Seq)>,
    stats: SubscriptionStats,
}

impl Figures {
    pub(in crate::engine::embedded) fn new(started: Time) -> Self {
        Self {
            journal_bytes: AtomicU64::new(0),
            journal_segments: AtomicU64::new(0),
            journal_syncs: AtomicU64::new(0),
            sync_seconds: Histogram::new(SYNC_SECONDS),
            started,
            oldest: Mutex::default(),
        }
    }

    /// What the journal is by now.
    pub(in crate::engine::embedded) fn note<D: Disk>(&self, journal: &Journal<D>) {
        self.journal_bytes.store(journal.bytes_on_disk(), Ordering::Relaxed);
        self.journal_segments.store(journal.segment_count() as u64, Ordering::Relaxed);
    }

    fn journal(&self) -> JournalStats {
        JournalStats {
            bytes: self.journal_bytes.load(Ordering::Relaxed),
            segments: self.journal_segments.load(Ordering::Relaxed),
            syncs: self.journal_syncs.load(Ordering::Relaxed),
        }
    }

    /// The oldest messages whose time is not known yet.
    fn unknown(&self, halves: &[Half]) -> Vec<(SubscriptionId, TopicId, Seq)> {
        let known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |id: SubscriptionId, topic: TopicId, seq: Seq| {
            known.get(&id).is_some_and(|oldest| (oldest.topic, oldest.seq) == (topic, seq))
        };
        let oldest = halves.iter().filter_map(|half| half.oldest.map(|(topic, seq)| (half.id, topic, seq)));
        oldest.filter(|(id, topic, seq)| !is_known(*id, *topic, *seq)).collect()
    }

    /// Keeps what was read, and forgets what is not asked for any more.
    fn complete(&self, halves: Vec<Half>, read: Vec<(SubscriptionId, Oldest)>) -> Vec<SubscriptionStats> {
        let mut known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(read);
        let mut kept = HashMap::with_capacity(halves.len());
        let complete = |Half { id, oldest, mut stats }| {
            if oldest.is_some()
                && let Some(oldest) = known.get(&id)
            {
                stats.oldest_unacked = oldest.published;
                kept.insert(id, *oldest);
            }
            stats
        };
        let all = halves.into_iter().map(complete).collect();
        *known = kept;
        all
    }
}

impl Embedded {
    /// How long syncs of the journal took.
    pub(crate) fn sync_seconds(&self) -> Histogram {
        self.figures.sync_seconds.clone()
    }

    pub(in crate::engine::embedded) async fn figures(&self) -> Result<Stats, Error> {
        let all = |state: &mut State| Ok::<_, Error>((halves(&state.core, state.now), topics(state), state.now));
        let (halves, topics, time) = self.ask(all).await?;
        let unknown = self.figures.unknown(&halves);
        let read = if unknown.is_empty() {
            Vec::new()
        } else {
            self.read(move |reader| unknown.into_iter().map(|oldest| look(reader, oldest)).collect()).await?
        };
        let subscriptions = self.figures.complete(halves, read);
        Ok(Stats { subscriptions, topics, journal: self.figures.journal(), started: self.figures.started, time })
    }
}

fn look(
    reader: &Reader,
    (id, topic, seq): (SubscriptionId, TopicId, Seq),
) -> Result<(SubscriptionId, Oldest), Failure> {
    Ok((id, Oldest { topic, seq, published: published_at(reader, topic, seq)? }))
}

fn halves(core: &Broker, now: Time) -> Vec<Half> {
    let half = |id| {
        let (view, stats) = (core.subscription_by_id(id)?, core.stats(id, now)?);
        let topic = view.topic;
        let shown = SubscriptionStats {
            subscription: subscription_of(core, view),
            backlog_messages: stats.backlog_messages,
            backlog_bytes: stats.backlog_bytes,
            backlog_bytes_exact: stats.backlog_bytes_exact,
            oldest_unacked: None,
            outstanding_messages: stats.outstanding_messages as u64,
            outstanding_bytes: stats.outstanding_bytes,
            delayed_messages: stats.delayed_messages as u64,
            consumers: u32::try_from(stats.consumers).unwrap_or(u32::MAX),
            totals: stats.totals,
            run: stats.run,
            rates: stats.rates,
        };
        Some(Half { id, oldest: stats.oldest_unacked.map(|seq| (topic, seq)), stats: shown })
    };
    let mut all: Vec<Half> = core.subscription_ids().filter_map(half).collect();
    all.sort_by(|one, other| one.stats.subscription.config.name.cmp(&other.stats.subscription.config.name));
    all
}

fn topics(state: &State) -> Vec<TopicStats> {
    let core = &state.core;
    let topic = |id| {
        let view = core.topic_by_id(id).filter(|view| !view.deleted)?;
        Some(TopicStats { name: view.config.name, stats: core.topic_stats(id, state.now)? })
    };
    let mut all: Vec<TopicStats> = core.topic_ids().filter_map(topic).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

#[cfg(test)]
mod tests {
    use broker_core::{SubscriptionConfig, TopicConfig, TopicName};
    use tempfile::TempDir;

    use super::super::super::open::{Options, open};
    use super::*;
    use crate::engine::{Engine, Message, Pull, Taker};

    #[tokio::test]
    async fn the_age_of_the_oldest_message_is_read_once_for_each_that_comes_to_be_the_oldest() {
        let dir = TempDir::new().unwrap();
        let options = Options::new(dir.path().to_owned());
        let running = open(options).await.unwrap();
        let engine = &running.engine;
        let topic: TopicName = "projects/p/topics/orders".parse().unwrap();
        let name: broker_core::SubscriptionName = "projects/p/subscriptions/payment".parse().unwrap();
        engine.create_topic(TopicConfig::new(topic.clone())).await.unwrap();
        engine.create_subscription(SubscriptionConfig::new(name.clone(), topic.clone())).await.unwrap();
        let unknown = async || {
            let halves = engine.ask(|state| Ok::<_, Error>(halves(&state.core, state.now))).await.unwrap();
            engine.figures.unknown(&halves).len()
        };
        assert_eq!(unknown().await, 0, "there is no message");
        for _ in 0..2 {
            let message = Message { data: "data".into(), ..Message::default() };
            engine.publish(topic.clone(), vec![message.into()]).await.unwrap();
        }
        assert_eq!(unknown().await, 1);
        let first = engine.stats().await.unwrap().subscriptions[0].oldest_unacked;
        assert!(first.is_some());
        assert_eq!(unknown().await, 0, "it is not read again");
        let patience = std::time::Duration::from_secs(30);
        let one = Pull { messages_max: 1, bytes_max: 0, ack_deadline: None, patience, taker: Taker::Client };
        let leases = engine.pull(name.clone(), one).await.unwrap();
        engine.acknowledge(name, vec![leases[0].ack_id.clone()]).await.unwrap();
        assert_eq!(unknown().await, 1, "another one is the oldest now");
        assert!(engine.stats().await.unwrap().subscriptions[0].oldest_unacked >= first);
        running.close().await.unwrap();
    }
}
