//! What an operator asks for: other settings, another place, snapshots.

use broker_core::*;

use super::judge::Cause;
use super::{World, snapshot_name, subscription_name};

impl World {
    pub(crate) fn update_topic(&mut self, config: TopicConfig) -> Result<TopicId, Error> {
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_update_topic(config, out))
    }

    /// Changes the settings of a subscription as `change` does.
    pub(crate) fn update(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut SubscriptionConfig),
    ) -> Result<SubscriptionId, Error> {
        let mut config = self.broker.subscription(&subscription_name(id))?.config;
        change(&mut config);
        self.call(Cause::Other, &[], |broker, now, out| broker.handle_update_subscription(config, now, out))
    }

    pub(crate) fn detach_subscription(&mut self, id: &str) -> Result<(), Error> {
        let name = subscription_name(id);
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_detach_subscription(&name, out))
    }

    pub(crate) fn seek(&mut self, subscription: &str, to: SeekTo) -> Result<(), Error> {
        let name = subscription_name(subscription);
        self.call(Cause::Other, &[], |broker, now, out| broker.handle_seek(&name, to, now, out))
    }

    /// A snapshot that lives for `lives_ms`.
    pub(crate) fn create_snapshot(
        &mut self,
        id: &str,
        subscription: &str,
        lives_ms: u64,
    ) -> Result<SnapshotView, Error> {
        let (name, of) = (snapshot_name(id), subscription_name(subscription));
        self.call(Cause::Other, &[], |broker, now, out| {
            broker.handle_create_snapshot(name, &of, Labels::default(), now.plus_ms(lives_ms), now, out)
        })
    }

    pub(crate) fn update_snapshot(&mut self, id: &str, lives_ms: u64) -> Result<SnapshotView, Error> {
        let labels = Labels::new([("changed".to_owned(), lives_ms.to_string())].into()).unwrap();
        self.call(Cause::Other, &[], |broker, now, out| {
            broker.handle_update_snapshot(&snapshot_name(id), labels, now.plus_ms(lives_ms), now, out)
        })
    }

    pub(crate) fn delete_snapshot(&mut self, id: &str) -> Result<(), Error> {
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_delete_snapshot(&snapshot_name(id), out))
    }

    pub(crate) fn cut(&mut self, keeper: Keeper, before: u64) {
        let cuts = [Cut { keeper, before: Seq(before) }];
        self.call(Cause::Cut, &[], |broker, now, out| broker.handle_retention(&cuts, now, out));
    }
}
