//! The `orderflow.broker.v1.BrokerService` service.

use orderflow_proto::orderflow::broker::v1 as pb;
use orderflow_proto::orderflow::broker::v1::broker_service_server;
use tonic::{Request, Response, Status};

use super::settings;
use crate::engine::{Engine, SubscriptionStats};

/// Tells how everything stands.
#[derive(Debug)]
pub(crate) struct Inspector<E> {
    engine: E,
}

impl<E> Inspector<E> {
    pub(crate) fn new(engine: E) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl<E: Engine> broker_service_server::BrokerService for Inspector<E> {
    async fn get_stats(&self, _: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        let stats = self.engine.stats().await?;
        Ok(Response::new(pb::GetStatsResponse {
            subscriptions: stats.subscriptions.iter().map(subscription).collect(),
            journal_bytes: stats.journal_bytes,
            ..pb::GetStatsResponse::default()
        }))
    }

    type WatchStatsStream = tokio_stream::Empty<Result<pb::WatchStatsResponse, Status>>;

    async fn watch_stats(&self, _: Request<pb::WatchStatsRequest>) -> Result<Response<Self::WatchStatsStream>, Status> {
        Err(Status::unimplemented("WatchStats is not there yet"))
    }

    async fn peek_messages(
        &self,
        _: Request<pb::PeekMessagesRequest>,
    ) -> Result<Response<pb::PeekMessagesResponse>, Status> {
        Err(Status::unimplemented("PeekMessages is not there yet"))
    }

    async fn redrive_dead_letters(
        &self,
        _: Request<pb::RedriveDeadLettersRequest>,
    ) -> Result<Response<pb::RedriveDeadLettersResponse>, Status> {
        Err(Status::unimplemented("RedriveDeadLetters is not there yet"))
    }
}

fn subscription(stats: &SubscriptionStats) -> pb::SubscriptionStats {
    let shown = settings::subscription(&stats.subscription);
    pb::SubscriptionStats {
        subscription: shown.name,
        topic: shown.topic,
        backlog_messages: stats.backlog_messages,
        outstanding_messages: stats.outstanding_messages,
        delayed_messages: stats.delayed_messages,
        consumers: stats.consumers,
        dead_lettered_messages: stats.dead_lettered_messages,
        ..pb::SubscriptionStats::default()
    }
}
