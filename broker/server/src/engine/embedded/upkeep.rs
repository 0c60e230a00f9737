//! What is done now and then: messages that are too old are given up.

use std::collections::HashMap;
use std::time::Duration;

use broker_core::{Cut, Retained, Seq, Time, TopicId};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Embedded;
use super::failure::Failure;
use super::fetch::{first_since, published_at};
use super::store::Reader;
use super::task::State;
use crate::engine::Error;

/// How often messages are looked for that are too old. One lives at most this much longer than it should.
const PERIOD: Duration = Duration::from_secs(60);

/// Works until it is told to stop, or the engine has ended.
pub(super) async fn run(engine: Embedded, stop: CancellationToken) {
    let mut known = Published::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(Error::Unavailable) = give_up(&engine, &mut known).await {
            return;
        }
    }
}

/// When the oldest messages were published that are kept: as long as they stay the oldest, no journal is read for it.
type Published = HashMap<(TopicId, Seq), Option<Time>>;

/// Gives up what is too old by now.
async fn give_up(engine: &Embedded, known: &mut Published) -> Result<(), Error> {
    let retained = |state: &mut State| Ok::<_, Error>((state.core.retained(), state.now));
    let (retained, now) = engine.ask(retained).await?;
    if retained.is_empty() {
        return Ok(());
    }
    let before = std::mem::take(known);
    let (cuts, now_known) = engine.read(move |reader| cuts(reader, &retained, now, &before)).await?;
    *known = now_known;
    if cuts.is_empty() {
        return Ok(());
    }
    engine
        .ask(move |state| {
            state.core.handle_retention(&cuts, state.now, &mut state.out);
            Ok::<_, Error>(())
        })
        .await
}

fn cuts(
    reader: &Reader,
    retained: &[Retained],
    now: Time,
    before: &Published,
) -> Result<(Vec<Cut>, Published), Failure> {
    let mut cuts = Vec::new();
    let mut known = Published::new();
    for Retained { keeper, topic, retention, oldest, last } in retained.iter().copied() {
        let since = Time(now.0.saturating_sub(retention.ms()));
        let published = match known.get(&(topic, oldest)).or_else(|| before.get(&(topic, oldest))) {
            Some(published) => *published,
            None => published_at(reader, topic, oldest)?,
        };
        known.insert((topic, oldest), published);
        // Mostly nothing is too old.
        if published.is_some_and(|published| published < since) {
            cuts.push(Cut { keeper, before: first_since(reader, topic, oldest, last, since)? });
        }
    }
    Ok((cuts, known))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use broker_core::{Expiration, Retention, SubscriptionConfig, SubscriptionName, TopicConfig, TopicName};
    use tempfile::TempDir;

    use super::super::clock::Clock;
    use super::super::open::{Options, Running, open_at};
    use super::*;
    use crate::engine::{Engine, Message, Pull, Seek, Taker};

    const MINUTE_MS: u64 = 60 * 1_000;
    const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
    const BEGIN_MS: u64 = 1_700_000_000_000;
    /// Nothing that a test waits for takes longer, unless it does not happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn topic() -> TopicName {
        "projects/p/topics/orders".parse().unwrap()
    }

    fn subscription() -> SubscriptionName {
        "projects/p/subscriptions/payment".parse().unwrap()
    }

    /// An engine that believes that so many minutes have passed since the beginning.
    async fn open(dir: &Path, minutes: u64) -> Running {
        open_at(Options::new(dir.to_owned()), Clock::start_at(Time(BEGIN_MS + minutes * MINUTE_MS))).await.unwrap()
    }

    async fn publish(running: &Running, text: &'static str) {
        let message = Message { data: text.into(), ..Default::default() };
        running.engine.publish(topic(), vec![message.into()]).await.unwrap();
    }

    async fn backlog(running: &Running) -> u64 {
        running.engine.stats().await.unwrap().subscriptions[0].backlog_messages
    }

    async fn until_backlog(running: &Running, expected: u64) {
        let begun = Instant::now();
        while backlog(running).await != expected {
            assert!(begun.elapsed() < PATIENCE, "the backlog stays at {}", backlog(running).await);
            tokio::task::yield_now().await;
        }
    }

    const TEN: Pull =
        Pull { messages_max: 10, bytes_max: 0, ack_deadline: None, patience: PATIENCE, taker: Taker::Client };

    async fn pull(running: &Running) -> Vec<String> {
        let leases = running.engine.pull(subscription(), TEN).await.unwrap();
        let text = |lease: &crate::engine::Lease| String::from_utf8(lease.message.data.to_vec()).unwrap();
        leases.iter().map(text).collect()
    }

    fn retention(minutes: u64) -> Retention {
        Retention::from_ms(minutes * MINUTE_MS).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_older_than_its_subscription_keeps_is_given_up_and_no_seek_brings_it_back() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 0).await;
        running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
        let retained = SubscriptionConfig {
            retention: retention(10),
            retain_acked: true,
            ..SubscriptionConfig::new(subscription(), topic())
        };
        running.engine.create_subscription(retained).await.unwrap();
        publish(&running, "first").await;
        publish(&running, "second").await;
        running.close().await.unwrap();

        let running = open(dir.path(), 6).await;
        publish(&running, "young").await;
        give_up(&running.engine, &mut Published::default()).await.unwrap();
        assert_eq!(backlog(&running).await, 3, "nothing is too old yet");
        running.close().await.unwrap();

        // The loop looks right after the start as well.
        let running = open(dir.path(), 12).await;
        until_backlog(&running, 1).await;
        running.engine.seek(subscription(), Seek::Time(Time(0))).await.unwrap();
        assert_eq!(pull(&running).await, ["young"]);
        running.close().await.unwrap();
        let running = open(dir.path(), 12).await;
        running.engine.seek(subscription(), Seek::Time(Time(0))).await.unwrap();
        assert_eq!(pull(&running).await, ["young"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_topic_keeps_is_there_for_a_seek_until_it_is_too_old() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 0).await;
        let kept = TopicConfig { retention: Some(retention(10)), ..TopicConfig::new(topic()) };
        running.engine.create_topic(kept).await.unwrap();
        running.engine.create_subscription(SubscriptionConfig::new(subscription(), topic())).await.unwrap();
        publish(&running, "old").await;
        running.close().await.unwrap();
        let running = open(dir.path(), 6).await;
        publish(&running, "young").await;
        let leases = running.engine.pull(subscription(), TEN).await.unwrap();
        assert_eq!(leases.len(), 2);
        let ids = leases.into_iter().map(|lease| lease.ack_id).collect();
        running.engine.acknowledge(subscription(), ids).await.unwrap();
        assert_eq!(backlog(&running).await, 0);
        running.close().await.unwrap();

        let running = open(dir.path(), 12).await;
        give_up(&running.engine, &mut Published::default()).await.unwrap();
        running.engine.seek(subscription(), Seek::Time(Time(0))).await.unwrap();
        assert_eq!(pull(&running).await, ["young"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_of_an_old_backlog_lives_shorter_and_then_not_at_all() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 0).await;
        running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
        let kept = SubscriptionConfig {
            retention: Retention::from_ms(31 * DAY_MS).unwrap(),
            ..SubscriptionConfig::new(subscription(), topic())
        };
        running.engine.create_subscription(kept).await.unwrap();
        publish(&running, "old").await;
        running.close().await.unwrap();
        let week = 7 * 24 * 60;
        for (minutes, lives) in [(10, true), (week - 70, true), (week - 50, false), (2 * week, false)] {
            let running = open(dir.path(), minutes).await;
            let name = format!("projects/p/snapshots/after-{minutes}").parse().unwrap();
            match running.engine.create_snapshot(name, subscription(), Default::default()).await {
                Ok(snapshot) => {
                    let lived_out = BEGIN_MS + week * MINUTE_MS;
                    assert!((lived_out..lived_out + MINUTE_MS).contains(&snapshot.expires.0), "{snapshot:?}");
                    assert!(lives, "after {minutes} min");
                }
                Err(error) => {
                    assert!(matches!(error, Error::BacklogTooOld(_)), "{error}");
                    assert!(!lives, "after {minutes} min");
                }
            }
            running.close().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_journal_is_read_only_when_another_message_has_become_the_oldest() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 0).await;
        running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
        running.engine.create_subscription(SubscriptionConfig::new(subscription(), topic())).await.unwrap();
        publish(&running, "oldest").await;
        let id = TopicId(1);
        // A time that no journal holds shows where an answer comes from.
        let mut known = Published::from([((id, Seq(1)), Some(Time(7))), ((id, Seq(9)), None)]);
        give_up(&running.engine, &mut known).await.unwrap();
        assert_eq!(known, Published::from([((id, Seq(1)), Some(Time(7)))]), "what is not asked for is forgotten");
        let leases = running.engine.pull(subscription(), Pull { messages_max: 1, ..TEN }).await.unwrap();
        running.engine.acknowledge(subscription(), vec![leases[0].ack_id.clone()]).await.unwrap();
        publish(&running, "next").await;
        give_up(&running.engine, &mut known).await.unwrap();
        let ages: Vec<_> = known.into_iter().collect();
        assert!(matches!(ages[..], [((_, Seq(2)), Some(Time(BEGIN_MS..)))]), "{ages:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_that_was_set_back_goes_on_from_the_youngest_message() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 60).await;
        running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
        running.engine.create_subscription(SubscriptionConfig::new(subscription(), topic())).await.unwrap();
        publish(&running, "before").await;
        running.close().await.unwrap();
        let running = open(dir.path(), 0).await;
        publish(&running, "after").await;
        let leases = running.engine.pull(subscription(), TEN).await.unwrap();
        let times: Vec<u64> = leases.iter().map(|lease| lease.publish_time_ms).collect();
        assert!(times.len() == 2 && times[0] >= BEGIN_MS + 60 * MINUTE_MS && times[1] >= times[0], "{times:?}");
    }

    /// The clock of the test runs ahead whenever everybody waits, so that days pass in no time.
    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_nobody_uses_is_deleted_and_one_that_never_expires_stays() {
        let dir = TempDir::new().unwrap();
        let running = open(dir.path(), 0).await;
        running.engine.create_topic(TopicConfig::new(topic())).await.unwrap();
        let for_ever: SubscriptionName = "projects/p/subscriptions/for-ever".parse().unwrap();
        let stays = SubscriptionConfig { expiration: None, ..SubscriptionConfig::new(for_ever.clone(), topic()) };
        running.engine.create_subscription(stays).await.unwrap();
        let goes = SubscriptionConfig {
            expiration: Some(Expiration::from_ms(DAY_MS).unwrap()),
            ..SubscriptionConfig::new(subscription(), topic())
        };
        running.engine.create_subscription(goes).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2 * DAY_MS)).await;
        let gone = running.engine.subscription(subscription()).await.unwrap_err();
        assert!(matches!(gone, Error::Refused(broker_core::Error::SubscriptionNotFound(_))), "{gone}");
        running.engine.subscription(for_ever).await.unwrap();
    }
}
