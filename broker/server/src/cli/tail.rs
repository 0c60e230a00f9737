//! `broker tail`.

use std::time::SystemTime;

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::error::Error;
use super::messages::{received_json, received_line};
use super::output;
use super::remote::Remote;
use super::serve::stop_at_signal;

/// Messages that wait to be printed. Whoever reads slowly holds no more than these.
const OUTSTANDING_MESSAGES_MAX: i64 = 100;
/// The deadline of each, in seconds, as long as can be: a pager may sit on a page.
const ACK_DEADLINE_S: i32 = 600;
/// A subscription for one run that could not be deleted at its end expires by itself after a day, as soon as can be.
const LEFT_OVER_S: i64 = 24 * 60 * 60;
/// It keeps messages no longer than this, ten minutes, as short as can be.
const RETENTION_S: i64 = 10 * 60;

/// What to print as it comes.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true)))]
pub struct Tail {
    /// Take messages from this subscription: each is acked once it is printed, and no other consumer gets it
    #[arg(group = "from")]
    subscription: Option<String>,
    /// Watch a topic instead: all that is published from now on, without taking anything from anybody
    #[arg(long, value_name = "TOPIC", group = "from")]
    topic: Option<String>,
    /// With --topic: only messages with these attributes, such as `attributes.type = "paid"`
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "subscription")]
    filter: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

impl Tail {
    pub(super) async fn execute(self) -> Result<(), Error> {
        // From here on a signal ends the run in order, so that nothing is left behind.
        let stop = stop_at_signal().map_err(|error| Error::Signal(error.to_string()))?;
        let mut subscriber = self.remote.subscriber().await?;
        let Some(topic) = &self.topic else {
            let subscription = self.remote.subscription(self.subscription.as_deref().unwrap_or_default());
            // A stream tells only later that there is no such subscription.
            let request = pb::GetSubscriptionRequest { subscription: subscription.clone() };
            subscriber.get_subscription(request).await?;
            return self.print(&mut subscriber, &subscription, &stop).await;
        };
        let subscription = self.remote.subscription(&name_for_one_run());
        let temporary = self.temporary(&subscription, topic);
        subscriber.create_subscription(temporary).await?;
        let printed = self.print(&mut subscriber, &subscription, &stop).await;
        let deleted = subscriber.delete_subscription(pb::DeleteSubscriptionRequest { subscription }).await;
        printed.and(deleted.map(drop).map_err(Error::from))
    }

    fn temporary(&self, subscription: &str, topic: &str) -> pb::Subscription {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        pb::Subscription {
            name: subscription.to_owned(),
            topic: self.remote.topic(topic),
            filter: self.filter.clone().unwrap_or_default(),
            enable_message_ordering: true,
            message_retention_duration: Some(seconds(RETENTION_S)),
            expiration_policy: Some(pb::ExpirationPolicy { ttl: Some(seconds(LEFT_OVER_S)) }),
            ..Default::default()
        }
    }

    /// Prints and acks until the limit, a signal, or the end of the stream.
    async fn print(
        &self,
        subscriber: &mut SubscriberClient<Channel>,
        subscription: &str,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let first = pb::StreamingPullRequest {
            subscription: subscription.to_owned(),
            stream_ack_deadline_seconds: ACK_DEADLINE_S,
            max_outstanding_messages: OUTSTANDING_MESSAGES_MAX.min(i64::try_from(left).unwrap_or(i64::MAX)),
            protocol_version: 1,
            ..Default::default()
        };
        // The stream of requests stays open behind the first: its end would end the responses.
        let requests = tokio_stream::once(first).chain(tokio_stream::pending());
        let mut responses = subscriber.streaming_pull(requests).await?.into_inner();
        let source = self.topic.as_ref().map_or_else(|| subscription.to_owned(), |topic| self.remote.topic(topic));
        output::remark(&format!("reading {source}; ctrl-c ends it"));
        while left > 0 {
            let response = tokio::select! {
                response = responses.message() => response?,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(response) = response else { return Ok(()) };
            let fitting = usize::try_from(left).unwrap_or(usize::MAX).min(response.received_messages.len());
            let received = &response.received_messages[..fitting];
            left -= fitting as u64;
            self.print_and_ack(subscriber, subscription, received).await?;
        }
        Ok(())
    }

    async fn print_and_ack(
        &self,
        subscriber: &mut SubscriberClient<Channel>,
        subscription: &str,
        received: &[pb::ReceivedMessage],
    ) -> Result<(), Error> {
        if received.is_empty() {
            return Ok(());
        }
        for received in received {
            if self.remote.is_json() {
                output::json_line(&received_json(received)?)?;
            } else {
                output::line(&received_line(received))?;
            }
        }
        let ack_ids = received.iter().map(|received| received.ack_id.clone()).collect();
        subscriber.acknowledge(pb::AcknowledgeRequest { subscription: subscription.to_owned(), ack_ids }).await?;
        Ok(())
    }
}

/// A name that no other run takes.
fn name_for_one_run() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("tail-{}-{nanos:x}", std::process::id())
}
