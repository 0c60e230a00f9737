//! The `google.pubsub.v1.Subscriber` service, unary part.

use std::time::Duration;

use broker_core::{ProjectName, SubscriptionConfig, SubscriptionName};
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::seek_request::Target;
use orderflow_proto::google::pubsub::v1::subscriber_server;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::parse::{ack_ids, lease_ms, name, next_page_token, page, time_ms};
use super::status::{Invalid, stopping};
use super::streaming_pull::Session;
use super::{mask, received, settings};
use crate::connection::ConnectionInfo;
use crate::engine::{self, AckId, Confirmation, DeadlineChange, Engine, Pull, Seek, Snapshot, Subscription, Taker};
use crate::front::FORWARDED;

/// How long a pull waits for its first message before it answers with none. Clients give up after 60 s or more.
const PULL_PATIENCE: Duration = Duration::from_secs(20);
/// How long a pull waits that was told to return at once: as long as messages may take to come from the disk.
const PULL_PATIENCE_IMMEDIATE: Duration = Duration::from_millis(250);
/// The most messages that one pull returns, as the public API caps it.
const PULL_MESSAGES_MAX: u32 = 1_000;

/// Manages subscriptions and gives messages out.
#[derive(Debug)]
pub(crate) struct Subscriber<E> {
    engine: E,
    stop: CancellationToken,
}

impl<E> Subscriber<E> {
    /// A service whose streams and waiting pulls end when `stop` is cancelled.
    pub(crate) fn new(engine: E, stop: CancellationToken) -> Self {
        Self { engine, stop }
    }
}

#[tonic::async_trait]
impl<E: Engine> subscriber_server::Subscriber for Subscriber<E> {
    type StreamingPullStream = ReceiverStream<Result<pb::StreamingPullResponse, Status>>;

    async fn create_subscription(
        &self,
        request: Request<pb::Subscription>,
    ) -> Result<Response<pb::Subscription>, Status> {
        let config = settings::subscription_config(request.into_inner())?;
        let created = Subscription::new(config.clone());
        self.engine.create_subscription(config).await?;
        Ok(Response::new(settings::subscription(&created)))
    }

    async fn get_subscription(
        &self,
        request: Request<pb::GetSubscriptionRequest>,
    ) -> Result<Response<pb::Subscription>, Status> {
        let subscription = name("subscription", &request.into_inner().subscription)?;
        Ok(Response::new(settings::subscription(&self.engine.subscription(subscription).await?)))
    }

    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let request = request.into_inner();
        let project: ProjectName = name("project", &request.project)?;
        let page = page(request.page_size, &request.page_token)?;
        let limit = page.limit;
        let found = self.engine.subscriptions(project, page).await?;
        let last = found.last().map(|subscription| subscription.config.name.as_str());
        let next_page_token = next_page_token(limit, found.len(), last);
        Ok(Response::new(pb::ListSubscriptionsResponse {
            subscriptions: found.iter().map(settings::subscription).collect(),
            next_page_token,
        }))
    }

    async fn delete_subscription(
        &self,
        request: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<()>, Status> {
        let subscription = name("subscription", &request.into_inner().subscription)?;
        self.engine.delete_subscription(subscription).await?;
        Ok(Response::new(()))
    }

    async fn pull(&self, request: Request<pb::PullRequest>) -> Result<Response<pb::PullResponse>, Status> {
        let request = request.into_inner();
        let subscription: SubscriptionName = name("subscription", &request.subscription)?;
        let messages_max = u32::try_from(request.max_messages).unwrap_or(0);
        if messages_max == 0 {
            return Err(Invalid::new("max_messages", "must be positive").into());
        }
        #[expect(deprecated, reason = "clients still set it")]
        let patience = if request.return_immediately { PULL_PATIENCE_IMMEDIATE } else { PULL_PATIENCE };
        let messages_max = messages_max.min(PULL_MESSAGES_MAX);
        let pull = Pull { messages_max, bytes_max: 0, ack_deadline: None, patience, taker: Taker::Client };
        let leases = tokio::select! {
            leases = self.engine.pull(subscription, pull) => leases?,
            () = self.stop.cancelled() => return Err(stopping()),
        };
        Ok(Response::new(pb::PullResponse { received_messages: leases.into_iter().map(received::message).collect() }))
    }

    async fn acknowledge(&self, request: Request<pb::AcknowledgeRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let subscription = name("subscription", &request.subscription)?;
        ack_ids("ack_ids", &request.ack_ids)?;
        let ids = request.ack_ids.into_iter().map(AckId).collect();
        confirm(self.engine.acknowledge(subscription, ids).await?)
    }

    async fn modify_ack_deadline(
        &self,
        request: Request<pb::ModifyAckDeadlineRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let subscription = name("subscription", &request.subscription)?;
        ack_ids("ack_ids", &request.ack_ids)?;
        let deadline_ms = lease_ms("ack_deadline_seconds", request.ack_deadline_seconds)?;
        let change = |id| DeadlineChange { ack_id: AckId(id), deadline_ms };
        let changes = request.ack_ids.into_iter().map(change).collect();
        confirm(self.engine.modify_ack_deadline(subscription, changes).await?)
    }

    /// Answers with the response's headers before it reads the first request: clients wait for them to send it.
    async fn streaming_pull(
        &self,
        request: Request<Streaming<pb::StreamingPullRequest>>,
    ) -> Result<Response<Self::StreamingPullStream>, Status> {
        let mut connection = request.extensions().get::<ConnectionInfo>().cloned().unwrap_or_default();
        connection.is_forwarded = request.metadata().contains_key(FORWARDED.as_str());
        let responses = Session::spawn(self.engine.clone(), request.into_inner(), connection, self.stop.clone());
        Ok(Response::new(responses))
    }

    async fn update_subscription(
        &self,
        request: Request<pb::UpdateSubscriptionRequest>,
    ) -> Result<Response<pb::Subscription>, Status> {
        let pb::UpdateSubscriptionRequest { subscription, update_mask } = request.into_inner();
        let update = subscription.ok_or_else(|| Invalid::new("subscription", "must be set"))?;
        let subscription = name("subscription.name", &update.name)?;
        let paths = mask::paths(update_mask)?;
        let change = move |config: &SubscriptionConfig| {
            let mut subscription = settings::subscription_settings(config);
            mask::update_subscription(&mut subscription, &update, &paths)?;
            Ok(settings::subscription_config(subscription).map_err(|invalid| invalid.within("subscription"))?)
        };
        Ok(Response::new(settings::subscription(&self.engine.update_subscription(subscription, change).await?)))
    }

    /// An empty configuration ends the push: from then on messages wait to be pulled.
    async fn modify_push_config(&self, request: Request<pb::ModifyPushConfigRequest>) -> Result<Response<()>, Status> {
        let pb::ModifyPushConfigRequest { subscription, push_config } = request.into_inner();
        let subscription = name("subscription", &subscription)?;
        let change = move |config: &SubscriptionConfig| {
            let settings = settings::subscription_settings(config);
            Ok(settings::subscription_config(pb::Subscription { push_config, ..settings })?)
        };
        self.engine.update_subscription(subscription, change).await?;
        Ok(Response::new(()))
    }

    async fn create_snapshot(
        &self,
        request: Request<pb::CreateSnapshotRequest>,
    ) -> Result<Response<pb::Snapshot>, Status> {
        let pb::CreateSnapshotRequest { name: snapshot, subscription, labels, tags } = request.into_inner();
        let snapshot = name("name", &snapshot)?;
        let subscription = name("subscription", &subscription)?;
        let labels = settings::labels_of(labels)?;
        settings::refuse([("tags", !tags.is_empty())])?;
        let created = self.engine.create_snapshot(snapshot, subscription, labels).await?;
        Ok(Response::new(settings::snapshot(&created)))
    }

    async fn get_snapshot(&self, request: Request<pb::GetSnapshotRequest>) -> Result<Response<pb::Snapshot>, Status> {
        let snapshot = name("snapshot", &request.into_inner().snapshot)?;
        Ok(Response::new(settings::snapshot(&self.engine.snapshot(snapshot).await?)))
    }

    async fn list_snapshots(
        &self,
        request: Request<pb::ListSnapshotsRequest>,
    ) -> Result<Response<pb::ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let project: ProjectName = name("project", &request.project)?;
        let page = page(request.page_size, &request.page_token)?;
        let limit = page.limit;
        let found = self.engine.snapshots(project, page).await?;
        let next_page_token = next_page_token(limit, found.len(), found.last().map(|found| found.name.as_str()));
        Ok(Response::new(pb::ListSnapshotsResponse {
            snapshots: found.iter().map(settings::snapshot).collect(),
            next_page_token,
        }))
    }

    async fn update_snapshot(
        &self,
        request: Request<pb::UpdateSnapshotRequest>,
    ) -> Result<Response<pb::Snapshot>, Status> {
        let pb::UpdateSnapshotRequest { snapshot, update_mask } = request.into_inner();
        let update = snapshot.ok_or_else(|| Invalid::new("snapshot", "must be set"))?;
        let snapshot = name("snapshot.name", &update.name)?;
        let paths = mask::paths(update_mask)?;
        let change = move |snapshot: &Snapshot| {
            let mut shown = settings::snapshot(snapshot);
            mask::update_snapshot(&mut shown, &update, &paths)?;
            Ok(settings::snapshot_settings(shown).map_err(|invalid| invalid.within("snapshot"))?)
        };
        Ok(Response::new(settings::snapshot(&self.engine.update_snapshot(snapshot, change).await?)))
    }

    async fn delete_snapshot(&self, request: Request<pb::DeleteSnapshotRequest>) -> Result<Response<()>, Status> {
        let snapshot = name("snapshot", &request.into_inner().snapshot)?;
        self.engine.delete_snapshot(snapshot).await?;
        Ok(Response::new(()))
    }

    async fn seek(&self, request: Request<pb::SeekRequest>) -> Result<Response<pb::SeekResponse>, Status> {
        let pb::SeekRequest { subscription, target } = request.into_inner();
        let subscription = name("subscription", &subscription)?;
        let to = match target.ok_or_else(|| Invalid::new("target", "must be a time or a snapshot"))? {
            Target::Time(time) => Seek::Time(time_ms("time", &time)?),
            Target::Snapshot(snapshot) => Seek::Snapshot(name("snapshot", &snapshot)?),
        };
        self.engine.seek(subscription, to).await?;
        Ok(Response::new(pb::SeekResponse {}))
    }
}

/// With exactly-once delivery the client learns which of its ack ids stand for nothing any more.
fn confirm(confirmation: Confirmation) -> Result<Response<()>, Status> {
    if confirmation.failed.is_empty() {
        return Ok(Response::new(()));
    }
    Err(engine::Error::Leases(confirmation.failed).into())
}
