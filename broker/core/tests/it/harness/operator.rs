//! What an operator asks for: other settings, another place, snapshots.

use broker_core::*;

use super::judge::Cause;
use super::{World, plain, snapshot_name, subscription_name};

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

    /// Takes a message of a subscription back to another one.
    pub(crate) fn redrive(&mut self, subscription: &str, seq: u64, target: &str) -> Result<RedriveOutcome, Error> {
        let (name, target) = (subscription_name(subscription), subscription_name(target));
        let topic = self.model.subscription_id(&name).map(|id| self.model.subscriptions[&id].topic);
        let source = topic.and_then(|topic| self.metas.get(&(topic, Seq(seq))).copied()).unwrap_or(plain(0));
        // Without the attributes that tell where it came from.
        let meta = Meta { bytes: source.bytes / 2, ..source };
        self.call(Cause::Other, &[meta], |broker, now, out| {
            let letter = DeadLetter { subscription: name, seq: Seq(seq), bytes: source.bytes, target, meta };
            broker.handle_redrive(&letter, now, out)
        })
    }

    pub(crate) fn set_policy(&mut self, resource: &ResourceName, body: &[u8]) -> Result<Policy, Error> {
        self.call(Cause::Other, &[], |broker, _, out| broker.handle_set_policy(resource, body.to_vec(), out))
    }

    pub(crate) fn cut(&mut self, keeper: Keeper, before: u64) {
        let cuts = [Cut { keeper, before: Seq(before) }];
        self.call(Cause::Cut, &[], |broker, now, out| broker.handle_retention(&cuts, now, out));
    }
}
