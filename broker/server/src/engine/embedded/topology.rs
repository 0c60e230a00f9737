//! Changes of what topics and subscriptions are.

use std::sync::atomic::Ordering;

use broker_core::{Broker, SubscriptionConfig, SubscriptionName, SubscriptionView, TopicConfig, TopicName};

use super::Embedded;
use super::codec::Bodies;
use super::task::State;
use crate::engine::{Error, Subscription};

impl Embedded {
    pub(super) async fn change_topic(
        &self,
        name: TopicName,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Error> + Send + 'static,
    ) -> Result<TopicConfig, Error> {
        self.ask_now(Bodies::default(), move |state| {
            let changed = change(&state.core.topic(&name)?.config)?;
            state.core.handle_update_topic(changed.clone(), &mut state.out)?;
            Ok::<_, Error>(changed)
        })
        .await
    }

    pub(super) async fn change_subscription(
        &self,
        name: SubscriptionName,
        change: impl FnOnce(&SubscriptionConfig) -> Result<SubscriptionConfig, Error> + Send + 'static,
    ) -> Result<Subscription, Error> {
        self.ask_now(Bodies::default(), move |state| {
            let changed = change(&state.core.subscription(&name)?.config)?;
            let exactly_once = changed.exactly_once;
            state.core.handle_update_subscription(changed, state.now, &mut state.out)?;
            tell_streams(state, &name, exactly_once);
            let view = state.core.subscription(&name)?;
            Ok::<_, Error>(subscription_of(&state.core, view))
        })
        .await
    }
}

/// Streams tell their clients whether acks are confirmed, and that may have changed.
fn tell_streams(state: &State, name: &SubscriptionName, exactly_once: bool) {
    let of_it = state.consumers.values().filter(|consumer| consumer.subscription == *name);
    of_it.for_each(|consumer| consumer.exactly_once.store(exactly_once, Ordering::Relaxed));
}

pub(super) fn subscription_of(core: &Broker, view: SubscriptionView) -> Subscription {
    let SubscriptionView { topic, topic_deleted, detached, config, .. } = view;
    let kept_by_topic = core.topic_by_id(topic).and_then(|topic| topic.config.retention);
    Subscription { config, topic_deleted, topic_retention: kept_by_topic.filter(|_| !topic_deleted), detached }
}
