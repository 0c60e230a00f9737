//! The `orderflow.broker.v1.BrokerService` service.

mod render;
mod watch;

use broker_core::{ProjectName, SubscriptionName};
use orderflow_proto::orderflow::broker::v1 as pb;
use orderflow_proto::orderflow::broker::v1::broker_service_server;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::watch::Watch;
use super::parse;
use super::status::Invalid;
use crate::engine::{Engine, MessageId, Page, Peek, Redrive};

/// The most messages that one request may name.
pub(crate) const MESSAGE_IDS_MAX: usize = 1_000;
/// The shortest and the longest interval at which figures are sent, in seconds.
pub(crate) const WATCH_SECONDS_MIN: u64 = 1;
pub(crate) const WATCH_SECONDS_MAX: u64 = 60 * 60;

/// Tells how everything stands.
#[derive(Debug)]
pub(crate) struct Inspector<E> {
    engine: E,
    watch: Watch<E>,
}

impl<E: Engine> Inspector<E> {
    pub(crate) fn new(engine: E, stop: CancellationToken) -> Self {
        Self { watch: Watch::new(engine.clone(), stop), engine }
    }
}

#[tonic::async_trait]
impl<E: Engine> broker_service_server::BrokerService for Inspector<E> {
    async fn get_stats(&self, request: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        let project = project(&request.into_inner().project)?;
        let stats = self.engine.stats().await?;
        Ok(Response::new(render::stats(&stats, project.as_ref())))
    }

    type WatchStatsStream = ReceiverStream<Result<pb::WatchStatsResponse, Status>>;

    async fn watch_stats(
        &self,
        request: Request<pb::WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let pb::WatchStatsRequest { project: of, interval } = request.into_inner();
        let seconds = interval_seconds(interval)?;
        Ok(Response::new(self.watch.open(project(&of)?, seconds)))
    }

    async fn peek_messages(
        &self,
        request: Request<pb::PeekMessagesRequest>,
    ) -> Result<Response<pb::PeekMessagesResponse>, Status> {
        let pb::PeekMessagesRequest { subscription, page_size, page_token, data_bytes_max, message_ids } =
            request.into_inner();
        let subscription: SubscriptionName = parse::name("subscription", &subscription)?;
        let Page { after, limit } = parse::page::<String>(page_size, &page_token)?;
        let data_bytes_max = match usize::try_from(data_bytes_max) {
            Ok(0) => usize::MAX,
            Ok(bytes) => bytes,
            Err(_) => return Err(Invalid::new("data_bytes_max", "must not be negative").into()),
        };
        let (ids, after) = (self::message_ids(message_ids)?, after.map(MessageId));
        let peek = Peek { ids, after, messages_max: limit, data_bytes_max };
        let peeked = self.engine.peek(subscription, peek).await?;
        Ok(Response::new(pb::PeekMessagesResponse {
            next_page_token: parse::next_page_token(0, 0, peeked.last.as_ref().map(|MessageId(id)| id.as_str())),
            messages: peeked.messages.into_iter().map(render::peeked).collect(),
        }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<pb::RedriveDeadLettersRequest>,
    ) -> Result<Response<pb::RedriveDeadLettersResponse>, Status> {
        let pb::RedriveDeadLettersRequest { subscription, message_ids, messages_max } = request.into_inner();
        let subscription: SubscriptionName = parse::name("subscription", &subscription)?;
        let messages_max = match u64::try_from(messages_max) {
            Ok(0) => u64::MAX,
            Ok(max) => max,
            Err(_) => return Err(Invalid::new("messages_max", "must not be negative").into()),
        };
        let redrive = Redrive { ids: self::message_ids(message_ids)?, messages_max };
        let redriven = self.engine.redrive(subscription, redrive).await?;
        Ok(Response::new(render::redriven(redriven)))
    }
}

fn project(text: &str) -> Result<Option<ProjectName>, Invalid> {
    if text.is_empty() { Ok(None) } else { parse::name("project", text).map(Some) }
}

fn message_ids(ids: Vec<String>) -> Result<Vec<MessageId>, Invalid> {
    if ids.len() > MESSAGE_IDS_MAX {
        return Err(Invalid::new("message_ids", format!("{} ids are more than {MESSAGE_IDS_MAX}", ids.len())));
    }
    Ok(ids.into_iter().map(MessageId).collect())
}

fn interval_seconds(interval: Option<prost_types::Duration>) -> Result<u64, Invalid> {
    let Some(interval) = interval else { return Ok(WATCH_SECONDS_MIN) };
    let ms = parse::duration_ms("interval", &interval)?;
    if ms % 1_000 != 0 || !(WATCH_SECONDS_MIN..=WATCH_SECONDS_MAX).contains(&(ms / 1_000)) {
        let why = format!("must be whole seconds, {WATCH_SECONDS_MIN} to {WATCH_SECONDS_MAX}");
        return Err(Invalid::new("interval", why));
    }
    Ok(ms / 1_000)
}
