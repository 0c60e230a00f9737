//! Where subscriptions stand in their topics: seek, and snapshots to seek to.

use broker_core::{Labels, SeekTo, Seq, SnapshotName, SnapshotView, SubscriptionName, Time};

use super::codec::Bodies;
use super::fetch::{first_since, published_at};
use super::task::State;
use super::{Embedded, Error};
use crate::engine::{SNAPSHOT_MS_MAX, SNAPSHOT_MS_MIN, Seek, Snapshot};

impl Embedded {
    pub(super) async fn go_to(&self, name: SubscriptionName, to: Seek) -> Result<(), Error> {
        let to = match to {
            Seek::Snapshot(snapshot) => SeekTo::Snapshot(snapshot),
            Seek::Time(time) => SeekTo::After(self.last_before(name.clone(), time).await?),
        };
        self.ask_now(Bodies::default(), move |state| state.core.handle_seek(&name, to, state.now, &mut state.out)).await
    }

    /// The last message that was published before `time`. All that there is when the time has yet to come, also what is
    /// published until the seek is carried out.
    async fn last_before(&self, name: SubscriptionName, time: Time) -> Result<Seq, Error> {
        let bounds = move |state: &mut State| {
            let topic = state.core.subscription(&name)?.topic;
            let floor = state.core.topic_floor(topic).unwrap_or_default();
            let last = state.core.topic_by_id(topic).map_or(Seq::ZERO, |topic| topic.last);
            Ok::<_, Error>((topic, floor, last, state.now))
        };
        let (topic, floor, last, now) = self.ask(bounds).await?;
        if time > now {
            return Ok(Seq(u64::MAX));
        }
        let first = self.read(move |reader| first_since(reader, topic, floor.next(), last, time)).await?;
        Ok(Seq(first.0.saturating_sub(1)))
    }

    /// A snapshot lives for [`SNAPSHOT_MS_MAX`], less the age of the oldest message that it keeps.
    pub(super) async fn take_snapshot(
        &self,
        name: SnapshotName,
        subscription: SubscriptionName,
        labels: Labels,
    ) -> Result<Snapshot, Error> {
        let of = subscription.clone();
        let oldest = move |state: &mut State| {
            let view = state.core.subscription(&of)?;
            Ok::<_, Error>((
                view.topic,
                state.core.stats(view.id, state.now).and_then(|stats| stats.oldest_unacked),
                state.now,
            ))
        };
        let (topic, oldest, now) = self.ask(oldest).await?;
        let since = match oldest {
            Some(seq) => self.read(move |reader| published_at(reader, topic, seq)).await?,
            None => None,
        };
        let expires = since.unwrap_or(now).min(now).plus_ms(SNAPSHOT_MS_MAX);
        if expires < now.plus_ms(SNAPSHOT_MS_MIN) {
            return Err(Error::BacklogTooOld(subscription));
        }
        self.ask_now(Bodies::default(), move |state| {
            let (now, out) = (state.now, &mut state.out);
            state.core.handle_create_snapshot(name, &subscription, labels, expires, now, out).map(Snapshot::from)
        })
        .await
    }

    pub(super) async fn change_snapshot(
        &self,
        name: SnapshotName,
        change: impl FnOnce(&Snapshot) -> Result<(Labels, Time), Error> + Send + 'static,
    ) -> Result<Snapshot, Error> {
        self.ask_now(Bodies::default(), move |state| {
            let (labels, expires) = change(&state.core.snapshot_view(&name)?.into())?;
            let most = state.now.plus_ms(SNAPSHOT_MS_MAX);
            if expires > most {
                let why = "must not be more than 7 days from now".to_owned();
                return Err(Error::Setting { field: "expire_time".to_owned(), why });
            }
            let changed = state.core.handle_update_snapshot(&name, labels, expires, state.now, &mut state.out)?;
            Ok(Snapshot::from(changed))
        })
        .await
    }
}

impl From<SnapshotView> for Snapshot {
    fn from(view: SnapshotView) -> Self {
        let SnapshotView { name, topic_name, labels, expires, .. } = view;
        Self { name, topic: topic_name, labels, expires }
    }
}
