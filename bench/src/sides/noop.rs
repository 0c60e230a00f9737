//! The server that does nothing: it decodes what comes in and answers, over the same protocol, and keeps nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_server::{self, PublisherServer};
use orderflow_proto::google::pubsub::v1::subscriber_server::{self, SubscriberServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::cases::BYTES_DEFAULT;
use crate::error::Outcome;

/// The largest request that is decoded, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Messages of one response of a stream.
const RESPONSE_MESSAGES: usize = 1_000;
/// Messages that a stream has out at most.
const OUTSTANDING_MAX: u64 = 10_000;

/// What a publish is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    /// Nothing at all.
    Nothing,
    /// An id for each message.
    Ids,
}

impl Answer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Ids => "ids",
        }
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, answer: Answer) -> Outcome {
    let publisher = PublisherServer::new(Publisher { answer, last: AtomicU64::new(0) });
    let subscriber = SubscriberServer::new(Subscriber);
    tonic::transport::Server::builder()
        .add_service(publisher.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(subscriber)
        .serve(address)
        .await?;
    Ok(())
}

struct Publisher {
    answer: Answer,
    last: AtomicU64,
}

struct Subscriber;

/// Implements a service of which most methods refuse.
macro_rules! service {
    ($service:path, $server:ty, refuse { $($method:ident($request:ty) -> $response:ty;)* } $($own:tt)*) => {
        #[tonic::async_trait]
        impl $service for $server {
            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("this server does nothing"))
            })*
            $($own)*
        }
    };
}

service! {
    publisher_server::Publisher, Publisher,
    refuse {
        update_topic(pb::UpdateTopicRequest) -> pb::Topic;
        get_topic(pb::GetTopicRequest) -> pb::Topic;
        list_topics(pb::ListTopicsRequest) -> pb::ListTopicsResponse;
        list_topic_subscriptions(pb::ListTopicSubscriptionsRequest) -> pb::ListTopicSubscriptionsResponse;
        list_topic_snapshots(pb::ListTopicSnapshotsRequest) -> pb::ListTopicSnapshotsResponse;
        delete_topic(pb::DeleteTopicRequest) -> ();
        detach_subscription(pb::DetachSubscriptionRequest) -> pb::DetachSubscriptionResponse;
    }

    async fn create_topic(&self, request: Request<pb::Topic>) -> Result<Response<pb::Topic>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        let count = request.into_inner().messages.len() as u64;
        let message_ids = match self.answer {
            Answer::Nothing => Vec::new(),
            Answer::Ids => {
                let first = self.last.fetch_add(count, Ordering::Relaxed);
                (first..first + count).map(|id| id.to_string()).collect()
            }
        };
        Ok(Response::new(pb::PublishResponse { message_ids }))
    }
}

service! {
    subscriber_server::Subscriber, Subscriber,
    refuse {
        get_subscription(pb::GetSubscriptionRequest) -> pb::Subscription;
        update_subscription(pb::UpdateSubscriptionRequest) -> pb::Subscription;
        list_subscriptions(pb::ListSubscriptionsRequest) -> pb::ListSubscriptionsResponse;
        delete_subscription(pb::DeleteSubscriptionRequest) -> ();
        modify_ack_deadline(pb::ModifyAckDeadlineRequest) -> ();
        acknowledge(pb::AcknowledgeRequest) -> ();
        pull(pb::PullRequest) -> pb::PullResponse;
        modify_push_config(pb::ModifyPushConfigRequest) -> ();
        get_snapshot(pb::GetSnapshotRequest) -> pb::Snapshot;
        list_snapshots(pb::ListSnapshotsRequest) -> pb::ListSnapshotsResponse;
        create_snapshot(pb::CreateSnapshotRequest) -> pb::Snapshot;
        update_snapshot(pb::UpdateSnapshotRequest) -> pb::Snapshot;
        delete_snapshot(pb::DeleteSnapshotRequest) -> ();
        seek(pb::SeekRequest) -> pb::SeekResponse;
    }

    type StreamingPullStream = ReceiverStream<Result<pb::StreamingPullResponse, Status>>;

    async fn create_subscription(
        &self,
        request: Request<pb::Subscription>,
    ) -> Result<Response<pb::Subscription>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn streaming_pull(
        &self,
        request: Request<Streaming<pb::StreamingPullRequest>>,
    ) -> Result<Response<Self::StreamingPullStream>, Status> {
        let (responses, stream) = mpsc::channel(1);
        tokio::spawn(deliver(request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Sends messages that nobody has published, as many as are acked.
async fn deliver(
    mut requests: Streaming<pb::StreamingPullRequest>,
    responses: mpsc::Sender<Result<pb::StreamingPullResponse, Status>>,
) {
    let body = Bytes::from(vec![b'x'; BYTES_DEFAULT]);
    let (mut sent, mut acked) = (0, 0);
    loop {
        let room = sent - acked < OUTSTANDING_MAX;
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => acked += request.ack_ids.len() as u64,
                Ok(None) | Err(_) => return,
            },
            permit = responses.reserve(), if room => {
                let Ok(permit) = permit else { return };
                permit.send(Ok(response(sent, &body)));
                sent += RESPONSE_MESSAGES as u64;
            }
        }
    }
}

fn response(first: u64, body: &Bytes) -> pb::StreamingPullResponse {
    let message = |number: u64| pb::ReceivedMessage {
        // As long as the broker's.
        ack_id: format!("{number:038}"),
        message: Some(pb::PubsubMessage {
            data: body.clone(),
            message_id: number.to_string(),
            publish_time: Some(Default::default()),
            ..Default::default()
        }),
        delivery_attempt: 0,
    };
    let received_messages = (first..first + RESPONSE_MESSAGES as u64).map(message).collect();
    pb::StreamingPullResponse { received_messages, ..Default::default() }
}
