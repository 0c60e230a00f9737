//! `broker pull`, `broker ack` and `broker nack`.

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use tonic::transport::Channel;

use super::error::Error;
use super::messages::{received_json, received_table};
use super::output;
use super::remote::Remote;

/// The most messages that one pull brings.
const PULL_MESSAGES_MAX: u32 = 1_000;
/// The most messages that the command pulls.
const LIMIT_MAX: i64 = 100_000;

/// What to take from a subscription.
#[derive(Clone, Debug, clap::Args)]
pub struct Pull {
    /// The subscription
    subscription: String,
    /// The most messages to take
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
    limit: u32,
    /// Ack the messages once they are printed; else they come back after the ack deadline, unless `broker ack` is faster
    #[arg(long)]
    auto_ack: bool,
    /// Wait for a message if there is none now, for about 20 seconds
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    remote: Remote,
}

/// What to ack.
#[derive(Clone, Debug, clap::Args)]
pub struct Ack {
    #[command(flatten)]
    leases: Leases,
}

/// What to give back.
#[derive(Clone, Debug, clap::Args)]
pub struct Nack {
    #[command(flatten)]
    leases: Leases,
}

#[derive(Clone, Debug, clap::Args)]
struct Leases {
    /// The subscription that the messages were pulled from
    subscription: String,
    /// Ack ids, as `pull` prints them
    #[arg(required = true)]
    ack_id: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Pull {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let mut subscriber = self.remote.subscriber().await?;
        let received = self.pull(&mut subscriber).await?;
        if self.remote.is_json() {
            let received: Vec<_> = received.iter().map(received_json).collect::<Result<_, _>>()?;
            output::document(&received.into())?;
        } else if received.is_empty() {
            output::remark("no messages");
        } else {
            output::line(&received_table(&received).to_string())?;
            if !self.auto_ack {
                let ids: Vec<_> = received.iter().map(|received| format!("  {}", received.ack_id)).collect();
                output::line(&format!("\nack ids, in the same order:\n{}", ids.join("\n")))?;
            }
        }
        if self.auto_ack {
            let subscription = self.remote.subscription(&self.subscription);
            for received in received.chunks(PULL_MESSAGES_MAX as usize) {
                let ack_ids = received.iter().map(|received| received.ack_id.clone()).collect();
                let request = pb::AcknowledgeRequest { subscription: subscription.clone(), ack_ids };
                subscriber.acknowledge(request).await?;
            }
        }
        Ok(())
    }

    /// Pulls until there are as many as wanted, or no more.
    async fn pull(&self, subscriber: &mut SubscriberClient<Channel>) -> Result<Vec<pb::ReceivedMessage>, Error> {
        let limit = self.limit as usize;
        let mut all = Vec::new();
        while all.len() < limit {
            let max_messages = (limit - all.len()).min(PULL_MESSAGES_MAX as usize);
            #[expect(deprecated, reason = "there is no other way to say that nobody wants to wait")]
            let request = pb::PullRequest {
                subscription: self.remote.subscription(&self.subscription),
                max_messages: i32::try_from(max_messages).unwrap_or(i32::MAX),
                return_immediately: !self.wait || !all.is_empty(),
            };
            let received = subscriber.pull(request).await?.into_inner().received_messages;
            if received.is_empty() {
                break;
            }
            all.extend(received);
        }
        Ok(all)
    }
}

impl Ack {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Leases { subscription, ack_id, remote } = self.leases;
        let count = ack_id.len();
        let request = pb::AcknowledgeRequest { subscription: remote.subscription(&subscription), ack_ids: ack_id };
        remote.subscriber().await?.acknowledge(request).await?;
        output::done(remote.is_json(), &format!("acked {count}"))
    }
}

impl Nack {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Leases { subscription, ack_id, remote } = self.leases;
        let count = ack_id.len();
        let request = pb::ModifyAckDeadlineRequest {
            subscription: remote.subscription(&subscription),
            ack_ids: ack_id,
            // Nobody wants them any longer.
            ack_deadline_seconds: 0,
        };
        remote.subscriber().await?.modify_ack_deadline(request).await?;
        output::done(remote.is_json(), &format!("gave back {count}"))
    }
}
