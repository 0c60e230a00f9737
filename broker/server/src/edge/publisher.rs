//! The `google.pubsub.v1.Publisher` service.

use broker_core::{ProjectName, TopicConfig, TopicName};
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_server;
use tonic::{Request, Response, Status};

use super::parse::{name, next_page_token, page};
use super::status::Invalid;
use super::{mask, settings};
use crate::engine::Engine;

/// Manages topics and takes messages.
#[derive(Debug)]
pub(crate) struct Publisher<E> {
    engine: E,
}

impl<E> Publisher<E> {
    pub(crate) fn new(engine: E) -> Self {
        Self { engine }
    }

    pub(super) fn engine(&self) -> &E {
        &self.engine
    }
}

#[tonic::async_trait]
impl<E: Engine> publisher_server::Publisher for Publisher<E> {
    async fn create_topic(&self, request: Request<pb::Topic>) -> Result<Response<pb::Topic>, Status> {
        let config = settings::topic_config(request.into_inner())?;
        let answer = settings::topic(&config);
        self.engine.create_topic(config).await?;
        Ok(Response::new(answer))
    }

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        let ids = self.publish_all(request.into_inner()).await?;
        Ok(Response::new(pb::PublishResponse { message_ids: ids.iter().map(|id| id.0).collect() }))
    }

    async fn get_topic(&self, request: Request<pb::GetTopicRequest>) -> Result<Response<pb::Topic>, Status> {
        let topic = name("topic", &request.into_inner().topic)?;
        Ok(Response::new(settings::topic(&self.engine.topic(topic).await?)))
    }

    async fn list_topics(
        &self,
        request: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<pb::ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let project: ProjectName = name("project", &request.project)?;
        let page = page(request.page_size, &request.page_token)?;
        let limit = page.limit;
        let found = self.engine.topics(project, page).await?;
        let last = found.last().map(|config| config.name.as_str());
        let next_page_token = next_page_token(limit, found.len(), last);
        Ok(Response::new(pb::ListTopicsResponse {
            topics: found.iter().map(settings::topic).collect(),
            next_page_token,
        }))
    }

    async fn list_topic_subscriptions(
        &self,
        request: Request<pb::ListTopicSubscriptionsRequest>,
    ) -> Result<Response<pb::ListTopicSubscriptionsResponse>, Status> {
        let request = request.into_inner();
        let topic: TopicName = name("topic", &request.topic)?;
        let page = page(request.page_size, &request.page_token)?;
        let limit = page.limit;
        let found = self.engine.topic_subscriptions(topic, page).await?;
        let next_page_token = next_page_token(limit, found.len(), found.last().map(|name| name.as_str()));
        Ok(Response::new(pb::ListTopicSubscriptionsResponse {
            subscriptions: found.iter().map(ToString::to_string).collect(),
            next_page_token,
        }))
    }

    async fn delete_topic(&self, request: Request<pb::DeleteTopicRequest>) -> Result<Response<()>, Status> {
        let topic = name("topic", &request.into_inner().topic)?;
        self.engine.delete_topic(topic).await?;
        Ok(Response::new(()))
    }

    async fn update_topic(&self, request: Request<pb::UpdateTopicRequest>) -> Result<Response<pb::Topic>, Status> {
        let pb::UpdateTopicRequest { topic, update_mask } = request.into_inner();
        let update = topic.ok_or_else(|| Invalid::new("topic", "must be set"))?;
        let topic = name("topic.name", &update.name)?;
        let paths = mask::paths(update_mask)?;
        let change = move |config: &TopicConfig| {
            let mut topic = settings::topic(config);
            mask::update_topic(&mut topic, &update, &paths)?;
            Ok(settings::topic_config(topic).map_err(|invalid| invalid.within("topic"))?)
        };
        Ok(Response::new(settings::topic(&self.engine.update_topic(topic, change).await?)))
    }

    async fn list_topic_snapshots(
        &self,
        request: Request<pb::ListTopicSnapshotsRequest>,
    ) -> Result<Response<pb::ListTopicSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let topic: TopicName = name("topic", &request.topic)?;
        let page = page(request.page_size, &request.page_token)?;
        let limit = page.limit;
        let found = self.engine.topic_snapshots(topic, page).await?;
        let next_page_token = next_page_token(limit, found.len(), found.last().map(|name| name.as_str()));
        Ok(Response::new(pb::ListTopicSnapshotsResponse {
            snapshots: found.iter().map(ToString::to_string).collect(),
            next_page_token,
        }))
    }

    async fn detach_subscription(
        &self,
        request: Request<pb::DetachSubscriptionRequest>,
    ) -> Result<Response<pb::DetachSubscriptionResponse>, Status> {
        let subscription = name("subscription", &request.into_inner().subscription)?;
        self.engine.detach_subscription(subscription).await?;
        Ok(Response::new(pb::DetachSubscriptionResponse {}))
    }
}
