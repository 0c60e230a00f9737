//! One pull: attached, delivered to once, and nothing lost when the caller goes away in between.

use broker_core::{AckRef, Attach, ConsumerKind, Delivery, SubscriptionName};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::Embedded;
use super::task::Event;
use crate::engine::{Engine, Error, Lease, Pull};

impl Embedded {
    pub(super) async fn pull_once(&self, subscription: SubscriptionName, pull: Pull) -> Result<Vec<Lease>, Error> {
        let Pull { messages_max, bytes_max, ack_deadline, patience, taker } = pull;
        let ack_deadline = match ack_deadline {
            Some(deadline) => deadline,
            None => self.subscription(subscription.clone()).await?.config.ack_deadline,
        };
        let attach = Attach { messages_max, bytes_max, ack_deadline, kind: ConsumerKind::Pull };
        let (events, deliveries) = unbounded_channel();
        // Before the attachment: the first messages may be there before its answer is, and the caller gone by then.
        let mut unclaimed = Unclaimed { engine: self.clone(), events: deliveries, refs: Vec::new() };
        let (attachment, attached) = self.attach(subscription, attach, taker, events).await?;
        let event = match timeout(patience, unclaimed.events.recv()).await {
            Ok(event) => event.ok_or(Error::Unavailable)?,
            Err(_) => {
                // A delivery that came before the end of the attachment still counts.
                drop(attachment);
                match unclaimed.events.recv().await {
                    Some(event) => event,
                    None => return Ok(Vec::new()),
                }
            }
        };
        let (subscription, topic, messages) = match event {
            Event::Delivered { subscription, topic, messages } => (subscription, topic, messages),
            Event::Closed(error) => return Err(error),
        };
        let with_ref =
            |delivery: Delivery| (AckRef { subscription, seq: delivery.seq, lease: delivery.lease }, topic, delivery);
        let batch: Vec<_> = messages.into_iter().map(with_ref).collect();
        unclaimed.refs.extend(batch.iter().map(|(reference, _, _)| *reference));
        let leases = self.leases(batch, attached.shows_attempts).await?;
        unclaimed.refs.clear();
        Ok(leases)
    }
}

/// What was delivered to a pull and has not reached its caller. It goes back when the caller goes away, so that no
/// attempt is counted for what nobody has seen.
struct Unclaimed {
    engine: Embedded,
    events: UnboundedReceiver<Event>,
    refs: Vec<AckRef>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // What comes later finds no receiver, and goes back from there.
        self.events.close();
        while let Ok(event) = self.events.try_recv() {
            self.refs.extend(event.refs());
        }
        Embedded::give_back(&self.engine, std::mem::take(&mut self.refs));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use broker_core::{DeadLetterPolicy, SubscriptionConfig, TopicConfig, TopicName};
    use tempfile::TempDir;

    use super::super::open::{Options, open};
    use super::*;
    use crate::engine::{Message, Taker};

    #[tokio::test]
    async fn what_was_delivered_to_a_pull_that_goes_away_comes_again_and_no_attempt_is_counted() {
        let dir = TempDir::new().unwrap();
        let options = Options::new(dir.path().to_owned());
        let running = open(options).await.unwrap();
        let engine = running.engine.clone();
        let topic: TopicName = "projects/p/topics/orders".parse().unwrap();
        let name: SubscriptionName = "projects/p/subscriptions/payment".parse().unwrap();
        engine.create_topic(TopicConfig::new(topic.clone())).await.unwrap();
        let mut config = SubscriptionConfig::new(name.clone(), topic.clone());
        // Attempts are told only with a dead-letter policy.
        config.dead_letter = Some(DeadLetterPolicy::new(topic.clone(), 5).unwrap());
        engine.create_subscription(config).await.unwrap();
        let patience = Duration::from_secs(30);
        let wish = Pull { messages_max: 1, bytes_max: 0, ack_deadline: None, patience, taker: Taker::Client };
        {
            let mut pull = pin!(engine.pull(name.clone(), wish));
            while engine.stats().await.unwrap().subscriptions[0].consumers == 0 {
                tokio::select! {
                    biased;
                    pulled = &mut pull => panic!("{pulled:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
            // The pull has not even taken the answer to its attachment when it gets its message, and then it is gone.
            engine.publish(topic, vec![Message { data: "x".into(), ..Default::default() }.into()]).await.unwrap();
            while engine.stats().await.unwrap().subscriptions[0].outstanding_messages == 0 {
                tokio::task::yield_now().await;
            }
        }
        let leases = engine.pull(name, wish).await.unwrap();
        assert_eq!(leases[0].attempt, Some(1));
        drop(engine);
        running.close().await.unwrap();
    }
}
