//! Somebody who changes settings and takes snapshots all the while, and finds after each loss of the connection what
//! was confirmed, or what was asked for last.

use std::collections::{BTreeSet, HashMap};

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use prost_types::FieldMask;
use tonic::Status;
use tonic::transport::Channel;

use super::load::{World, expect_loss_of_connection};
use super::{PROJECT, STRICT, TOPIC};

const LABEL: &str = "value";

/// What was settled, and what was asked for without an answer.
#[derive(Debug, Default)]
struct Known {
    topic: Label,
    subscription: Label,
    snapshots: BTreeSet<String>,
    snapshot_asked: Option<String>,
    next: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Label {
    set: u64,
    asked: Option<u64>,
}

/// Works until nobody publishes any more; answers how many changes were confirmed.
pub(super) async fn operate(mut world: World) -> u64 {
    let mut known = Known::default();
    let mut confirmed = 0;
    while !world.publishing.is_cancelled() {
        let (_, channel) = world.connect().await;
        if let Err(status) = known.work(&world, channel, &mut confirmed).await {
            expect_loss_of_connection(&status);
        }
        tokio::task::yield_now().await;
    }
    let (_, channel) = world.connect().await;
    known.check(channel).await.unwrap();
    confirmed
}

impl Known {
    async fn work(&mut self, world: &World, channel: Channel, confirmed: &mut u64) -> Result<(), Status> {
        self.check(channel.clone()).await?;
        while !world.publishing.is_cancelled() {
            self.next += 1;
            self.topic.asked = Some(self.next);
            label_topic(channel.clone(), self.next).await?;
            self.topic = Label { set: self.next, asked: None };
            *confirmed += 1;
            self.subscription.asked = Some(self.next);
            label_subscription(channel.clone(), self.next).await?;
            self.subscription = Label { set: self.next, asked: None };

            let mut subscriber = SubscriberClient::new(channel.clone());
            let name = format!("{PROJECT}/snapshots/snapshot-{:09}", self.next);
            self.snapshot_asked = Some(name.clone());
            let (subscription, labels) = (STRICT.to_owned(), labels(self.next));
            let request = pb::CreateSnapshotRequest { name: name.clone(), subscription, labels, ..Default::default() };
            subscriber.create_snapshot(request).await?;
            self.snapshots.insert(name);
            self.snapshot_asked = None;
            if self.snapshots.len() > 3 {
                let oldest = self.snapshots.first().unwrap().clone();
                self.snapshot_asked = Some(oldest.clone());
                subscriber.delete_snapshot(pb::DeleteSnapshotRequest { snapshot: oldest.clone() }).await?;
                self.snapshots.remove(&oldest);
                self.snapshot_asked = None;
            }
            *confirmed += 1;
        }
        Ok(())
    }

    /// Everything confirmed stands; of what was asked for, either state is right, and is what counts from now on.
    async fn check(&mut self, channel: Channel) -> Result<(), Status> {
        let mut subscriber = SubscriberClient::new(channel.clone());
        let get = pb::GetSubscriptionRequest { subscription: STRICT.to_owned() };
        let found = subscriber.get_subscription(get).await?.into_inner();
        let topic = PublisherClient::new(channel).get_topic(pb::GetTopicRequest { topic: TOPIC.to_owned() }).await?;
        self.topic.check(&topic.into_inner().labels);
        self.subscription.check(&found.labels);
        assert!(found.enable_exactly_once_delivery && found.enable_message_ordering, "{found:?}");
        assert_eq!(found.dead_letter_policy.map(|policy| policy.max_delivery_attempts), Some(100));

        let list = pb::ListSnapshotsRequest { project: PROJECT.to_owned(), ..Default::default() };
        let snapshots = subscriber.list_snapshots(list).await?.into_inner().snapshots;
        let found: BTreeSet<String> = snapshots.into_iter().map(|snapshot| snapshot.name).collect();
        let known = |name: &String| Some(name) == self.snapshot_asked.as_ref();
        let differing: Vec<&String> = found.symmetric_difference(&self.snapshots).filter(|name| !known(name)).collect();
        assert!(differing.is_empty(), "{differing:?} is there or not, against what was confirmed");
        self.snapshots = found;
        self.snapshot_asked = None;
        Ok(())
    }
}

impl Label {
    fn check(&mut self, labels: &HashMap<String, String>) {
        let found = labels.get(LABEL).map_or(0, |value| value.parse().unwrap());
        assert!(found == self.set || Some(found) == self.asked, "{found} stands there, and not {self:?}");
        *self = Label { set: found, asked: None };
    }
}

async fn label_topic(channel: Channel, value: u64) -> Result<(), Status> {
    let topic = Some(pb::Topic { name: TOPIC.to_owned(), labels: labels(value), ..Default::default() });
    let request = pb::UpdateTopicRequest { topic, update_mask: mask() };
    PublisherClient::new(channel).update_topic(request).await.map(drop)
}

async fn label_subscription(channel: Channel, value: u64) -> Result<(), Status> {
    let (name, labels) = (STRICT.to_owned(), labels(value));
    let subscription = Some(pb::Subscription { name, labels, ..Default::default() });
    let request = pb::UpdateSubscriptionRequest { subscription, update_mask: mask() };
    SubscriberClient::new(channel).update_subscription(request).await.map(drop)
}

fn mask() -> Option<FieldMask> {
    Some(FieldMask { paths: vec!["labels".to_owned()] })
}

fn labels(value: u64) -> HashMap<String, String> {
    [(LABEL.to_owned(), value.to_string())].into()
}
