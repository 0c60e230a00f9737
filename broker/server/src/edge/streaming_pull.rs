//! `StreamingPull`: one task for each stream, from its first request to its last response.

use std::time::Duration;

use broker_core::{AckDeadline, SubscriptionName};
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::streaming_pull_response::{
    AcknowledgeConfirmation, ModifyAckDeadlineConfirmation, SubscriptionProperties,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::parse::{ack_deadline, ack_ids_max, lease_ms, name};
use super::received;
use super::status::{Invalid, stopping};
use crate::connection::{ConnectionInfo, LOST_GRACE};
use crate::engine::{AckId, Confirmation, DeadlineChange, Ending, Engine, Flow, LeaseControl, Leases};

/// An idle stream sends an empty response this often to a client that knows how to take it as a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The protocol version from which clients understand heartbeats.
const HEARTBEAT_PROTOCOL_VERSION: i64 = 1;
/// Responses that wait for the client to read them. More would only sit here while their leases run.
const RESPONSES_MAX: usize = 1;
/// Confirmations that wait for the client to read them. While there are so many, none of its requests is read.
const CONFIRMATIONS_MAX: usize = 16;

type Response = Result<pb::StreamingPullResponse, Status>;

/// One stream.
#[derive(Debug)]
pub(super) struct Session<E> {
    engine: E,
    connection: ConnectionInfo,
    stop: CancellationToken,
}

/// What the first request says.
#[derive(Debug)]
struct Opening {
    subscription: SubscriptionName,
    client_id: String,
    flow: Flow,
    heartbeat: Option<Duration>,
}

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// The client has no more requests and wants no more messages.
    HalfClosed,
    /// The client cancelled the stream, or its connection ended.
    Gone,
    /// The client is told so.
    Failed(Status),
}

impl<E: Engine> Session<E> {
    /// Starts the stream's task; the responses are what it sends.
    pub(super) fn spawn(
        engine: E,
        requests: Streaming<pb::StreamingPullRequest>,
        connection: ConnectionInfo,
        stop: CancellationToken,
    ) -> ReceiverStream<Response> {
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        tokio::spawn(async move {
            let session = Self { engine, connection, stop };
            if let Err(status) = session.serve(requests, &responses).await {
                // Nobody listens any more if the client has gone, and then nobody has to be told.
                responses.send(Err(status)).await.ok();
            }
        });
        ReceiverStream::new(stream)
    }

    async fn serve(
        &self,
        mut requests: Streaming<pb::StreamingPullRequest>,
        responses: &mpsc::Sender<Response>,
    ) -> Result<(), Status> {
        let first = tokio::select! {
            first = requests.message() => first?,
            () = self.stop.cancelled() => return Err(stopping()),
            () = responses.closed() => return Ok(()),
        };
        let first = first.ok_or_else(|| Invalid::new("subscription", "the stream ended before its first request"))?;
        let opening = Opening::parse(&first)?;
        let changes = Changes::parse(first)?;

        let mut leases = self.engine.subscribe(opening.subscription.clone(), opening.flow).await?;
        let control = leases.control();
        let (confirm, confirmed) = mpsc::channel(CONFIRMATIONS_MAX);
        let end = tokio::select! {
            end = self.uplink(&opening, changes, requests, control, &confirm) => end,
            end = downlink(&mut leases, confirmed, responses, opening.heartbeat) => end,
            () = self.connection.lost.cancelled() => End::Gone,
            () = responses.closed() => End::Gone,
            () = self.stop.cancelled() => End::Failed(stopping()),
        };
        leases.end(self.ending(&end).await);
        match end {
            End::HalfClosed | End::Gone => Ok(()),
            End::Failed(status) => Err(status),
        }
    }

    /// Carries out what the client asks for, request by request, until it closes its side.
    async fn uplink(
        &self,
        opening: &Opening,
        first: Changes,
        mut requests: Streaming<pb::StreamingPullRequest>,
        control: impl LeaseControl,
        confirm: &mpsc::Sender<pb::StreamingPullResponse>,
    ) -> End {
        let mut changes = first;
        loop {
            match self.apply(opening, changes, &control).await {
                // The other end lives as long as this one.
                Ok(Some(confirmation)) => confirm.send(confirmation).await.unwrap_or_default(),
                Ok(None) => {}
                Err(status) => return End::Failed(status),
            }
            changes = match requests.message().await {
                Ok(Some(request)) => match opening.check_later(&request).and_then(|()| Changes::parse(request)) {
                    Ok(changes) => changes,
                    Err(invalid) => return End::Failed(invalid.into()),
                },
                Ok(None) => return End::HalfClosed,
                // A request that does not decode ends the stream as well, and leaves the connection alive.
                Err(_) => return End::Gone,
            };
        }
    }

    /// Answers with what is to be confirmed, which is nothing unless the subscription delivers exactly once.
    async fn apply(
        &self,
        opening: &Opening,
        changes: Changes,
        control: &impl LeaseControl,
    ) -> Result<Option<pb::StreamingPullResponse>, Status> {
        let mut confirmations = pb::StreamingPullResponse::default();
        if let Some(deadline) = changes.stream_deadline {
            control.set_ack_deadline(deadline).await?;
        }
        if !changes.deadlines.is_empty() {
            let changed = self.engine.modify_ack_deadline(opening.subscription.clone(), changes.deadlines).await?;
            confirmations.modify_ack_deadline_confirmation = modified(changed);
        }
        if !changes.acks.is_empty() {
            let acked = self.engine.acknowledge(opening.subscription.clone(), changes.acks).await?;
            confirmations.acknowledge_confirmation = acknowledged(acked);
        }
        Ok(Some(confirmations).filter(|confirmations| *confirmations != Default::default()))
    }

    /// What becomes of the leases: a consumer whose connection ended does not come back for them.
    async fn ending(&self, end: &End) -> Ending {
        // A broker that forwards has waited already.
        if matches!(end, End::Gone) && !self.connection.is_forwarded {
            // Stream and connection end one shortly after the other, in either order.
            tokio::time::timeout(LOST_GRACE, self.connection.lost.cancelled()).await.ok();
        }
        if self.connection.lost.is_cancelled() { Ending::ConnectionLost } else { Ending::Graceful }
    }
}

/// Sends leases and confirmations as the client reads them, and heartbeats when there are none.
async fn downlink(
    leases: &mut impl Leases,
    mut confirmed: mpsc::Receiver<pb::StreamingPullResponse>,
    responses: &mpsc::Sender<Response>,
    heartbeat: Option<Duration>,
) -> End {
    loop {
        let Ok(permit) = responses.reserve().await else { return End::Gone };
        let mut response = tokio::select! {
            next = leases.next() => match next {
                Ok(leases) => pb::StreamingPullResponse {
                    received_messages: leases.into_iter().map(received::message).collect(),
                    ..Default::default()
                },
                Err(error) => return End::Failed(error.into()),
            },
            Some(confirmation) = confirmed.recv() => confirmation,
            () = pass(heartbeat) => pb::StreamingPullResponse::default(),
        };
        response.subscription_properties = Some(SubscriptionProperties {
            exactly_once_delivery_enabled: leases.is_exactly_once(),
            message_ordering_enabled: leases.is_ordered(),
        });
        permit.send(Ok(response));
    }
}

async fn pass(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn acknowledged(acked: Confirmation) -> Option<AcknowledgeConfirmation> {
    let Confirmation { exactly_once, done, failed } = acked;
    exactly_once.then(|| AcknowledgeConfirmation {
        ack_ids: texts(done),
        invalid_ack_ids: texts(failed),
        ..Default::default()
    })
}

fn modified(changed: Confirmation) -> Option<ModifyAckDeadlineConfirmation> {
    let Confirmation { exactly_once, done, failed } = changed;
    exactly_once.then(|| ModifyAckDeadlineConfirmation {
        ack_ids: texts(done),
        invalid_ack_ids: texts(failed),
        ..Default::default()
    })
}

fn texts(ids: Vec<AckId>) -> Vec<String> {
    ids.into_iter().map(|id| id.0).collect()
}

impl Opening {
    fn parse(first: &pb::StreamingPullRequest) -> Result<Self, Invalid> {
        let heartbeat = first.protocol_version >= HEARTBEAT_PROTOCOL_VERSION;
        Ok(Self {
            subscription: name("subscription", &first.subscription)?,
            client_id: first.client_id.clone(),
            flow: Flow {
                // Zero and less leave it to the broker; more than fits is more than the broker allows anyway.
                messages_max: u32::try_from(first.max_outstanding_messages.max(0)).unwrap_or(u32::MAX),
                bytes_max: u64::try_from(first.max_outstanding_bytes).unwrap_or(0),
                ack_deadline: ack_deadline("stream_ack_deadline_seconds", first.stream_ack_deadline_seconds)?,
            },
            heartbeat: heartbeat.then_some(HEARTBEAT),
        })
    }

    /// Refuses in a later request what only the first one may say. A client may repeat its id.
    fn check_later(&self, request: &pb::StreamingPullRequest) -> Result<(), Invalid> {
        let initial_only = [
            ("subscription", !request.subscription.is_empty()),
            ("client_id", !request.client_id.is_empty() && request.client_id != self.client_id),
            ("max_outstanding_messages", request.max_outstanding_messages != 0),
            ("max_outstanding_bytes", request.max_outstanding_bytes != 0),
            ("protocol_version", request.protocol_version != 0),
        ];
        match initial_only.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) => Err(Invalid::new(field, "can only be set in the first request of a stream")),
            None => Ok(()),
        }
    }
}

/// What every request may ask for. One that asks for nothing is a sign of life.
#[derive(Debug, Default)]
struct Changes {
    acks: Vec<AckId>,
    deadlines: Vec<DeadlineChange>,
    stream_deadline: Option<AckDeadline>,
}

impl Changes {
    fn parse(request: pb::StreamingPullRequest) -> Result<Self, Invalid> {
        let pb::StreamingPullRequest {
            ack_ids,
            modify_deadline_seconds,
            modify_deadline_ack_ids,
            stream_ack_deadline_seconds,
            ..
        } = request;
        ack_ids_max("ack_ids", &ack_ids)?;
        ack_ids_max("modify_deadline_ack_ids", &modify_deadline_ack_ids)?;
        if modify_deadline_seconds.len() != modify_deadline_ack_ids.len() {
            let (seconds, ids) = (modify_deadline_seconds.len(), modify_deadline_ack_ids.len());
            return Err(Invalid::new("modify_deadline_seconds", format!("{seconds} deadlines for {ids} ids")));
        }
        let change = |(id, seconds)| {
            let deadline_ms = lease_ms("modify_deadline_seconds", seconds)?;
            Ok(DeadlineChange { ack_id: AckId(id), deadline_ms })
        };
        let deadlines = modify_deadline_ack_ids.into_iter().zip(modify_deadline_seconds);
        let stream_deadline = match stream_ack_deadline_seconds {
            0 => None,
            seconds => Some(ack_deadline("stream_ack_deadline_seconds", seconds)?),
        };
        Ok(Self {
            acks: ack_ids.into_iter().map(AckId).collect(),
            deadlines: deadlines.map(change).collect::<Result<_, Invalid>>()?,
            stream_deadline,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::engine::{Error, Lease};

    /// A stream on which nothing ever comes.
    struct Silence;

    impl Leases for Silence {
        type Control = Silence;

        async fn next(&mut self) -> Result<Vec<Lease>, Error> {
            std::future::pending().await
        }

        fn is_exactly_once(&self) -> bool {
            false
        }

        fn is_ordered(&self) -> bool {
            true
        }

        fn control(&self) -> Silence {
            Silence
        }

        fn end(self, _: Ending) {}
    }

    impl LeaseControl for Silence {
        async fn set_ack_deadline(&self, _: AckDeadline) -> Result<(), Error> {
            Ok(())
        }
    }

    fn opening(protocol_version: i64) -> Opening {
        let request = pb::StreamingPullRequest {
            subscription: "projects/p/subscriptions/payment".to_owned(),
            stream_ack_deadline_seconds: 10,
            protocol_version,
            ..Default::default()
        };
        Opening::parse(&request).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_sends_an_empty_response_every_thirty_seconds() {
        let (responses, mut received) = mpsc::channel(RESPONSES_MAX);
        let begun = Instant::now();
        let stream =
            tokio::spawn(
                async move { downlink(&mut Silence, mpsc::channel(1).1, &responses, opening(1).heartbeat).await },
            );
        for beat in 1..=3 {
            let response = received.recv().await.unwrap().unwrap();
            assert!(response.received_messages.is_empty());
            assert!(response.subscription_properties.unwrap().message_ordering_enabled);
            assert_eq!(begun.elapsed().as_secs(), 30 * beat);
        }
        drop(received);
        assert!(matches!(stream.await.unwrap(), End::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_the_first_protocol_gets_no_empty_responses() {
        let (responses, mut received) = mpsc::channel(RESPONSES_MAX);
        let stream =
            tokio::spawn(
                async move { downlink(&mut Silence, mpsc::channel(1).1, &responses, opening(0).heartbeat).await },
            );
        let waited = tokio::time::timeout(100 * HEARTBEAT, received.recv()).await;
        assert!(waited.is_err(), "{waited:?}");
        stream.abort();
    }

    #[test]
    fn limits_of_zero_and_less_leave_the_flow_to_the_broker() {
        let flow = |messages, bytes| {
            let request = pb::StreamingPullRequest {
                subscription: "projects/p/subscriptions/payment".to_owned(),
                stream_ack_deadline_seconds: 600,
                max_outstanding_messages: messages,
                max_outstanding_bytes: bytes,
                ..Default::default()
            };
            let flow = Opening::parse(&request).unwrap().flow;
            (flow.messages_max, flow.bytes_max)
        };
        assert_eq!(flow(0, 0), (0, 0));
        assert_eq!(flow(-1, i64::MIN), (0, 0));
        assert_eq!(flow(7, 8), (7, 8));
        assert_eq!(flow(i64::MAX, i64::MAX), (u32::MAX, u64::MAX / 2));
    }
}
