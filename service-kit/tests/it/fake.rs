//! A small broker in memory: topics, ordered subscriptions, leases, nacks, and a cord that can be pulled.
//!
//! It keeps what a real one would have on disk when it is killed, and forgets the leases. A lost connection gives its
//! leases back without counting an attempt; a nack counts one.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orderflow_proto::google::pubsub::v1::publisher_server::{Publisher, PublisherServer};
use orderflow_proto::google::pubsub::v1::subscriber_server::{Subscriber, SubscriberServer};
use orderflow_proto::google::pubsub::v1::*;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

/// Calls that the kit never makes, in the form that `async_trait` gives them.
macro_rules! unimplemented_calls {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {$(
        fn $name<'s, 'a>(&'s self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'a>>
        where
            's: 'a,
            Self: 'a,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        }
    )*};
}

type Answer<T> = Result<Response<T>, Status>;

/// The broker's handle. Dropping it kills the broker.
pub(crate) struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Keeps the port while nobody listens on it.
    _place: TcpSocket,
    runtime: Option<Runtime>,
}

const LISTEN_BACKLOG: u32 = 128;

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    /// What was published, by topic, in order.
    pub(crate) published: HashMap<String, Vec<PubsubMessage>>,
    /// Ordering keys whose next publication fails once.
    pub(crate) fail_keys_once: HashSet<String>,
    /// Topics that are not there.
    pub(crate) missing_topics: HashSet<String>,
    /// Ordering keys whose publications are refused as invalid.
    pub(crate) refused_keys: HashSet<String>,
    /// Messages with more attributes are refused as invalid.
    pub(crate) published_attributes_max: Option<usize>,
    /// Publications take their place and get no answer: the connection dies first.
    pub(crate) lose_replies: bool,
    /// Every stream is opened, and then ends with this. A client may not see it of the first: the end of the connection
    /// can overtake the status.
    pub(crate) break_streams: Option<Code>,
    /// More messages are out than the client has asked for.
    pub(crate) ignore_credit: bool,
    pub(crate) subscriptions: HashMap<String, Vec<Entry>>,
    pub(crate) acked: Vec<String>,
    pub(crate) nacked: Vec<String>,
    pub(crate) streams_opened: u64,
    ids: u64,
}

pub(crate) struct Entry {
    pub(crate) message: PubsubMessage,
    pub(crate) attempts: i32,
    lease: Option<Lease>,
}

struct Lease {
    stream: u64,
    ack_id: String,
    extended: bool,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let place = socket(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = place.local_addr().unwrap();
        let mut fake = Self { shared: Arc::default(), address, _place: place, runtime: None };
        fake.revive();
        fake
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Cuts every connection at once.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for inside another one, and the sockets are closed when it is gone.
            let shutdown = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(30)));
            shutdown.join().unwrap();
        }
        let mut state = self.state();
        state.subscriptions.values_mut().flatten().for_each(|entry| entry.lease = None);
    }

    /// Starts on the same address again.
    pub(crate) fn revive(&mut self) {
        let runtime = Runtime::new().unwrap();
        let (shared, address) = (self.shared.clone(), self.address);
        let _inside = runtime.enter();
        let listener = socket(address).listen(LISTEN_BACKLOG).unwrap();
        let incoming = TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_service(PublisherServer::new(Service(shared.clone())))
            .add_service(SubscriberServer::new(Service(shared)));
        runtime.spawn(async move { server.serve_with_incoming(incoming).await });
        self.runtime = Some(runtime);
    }

    pub(crate) fn subscription(&self, id: &str) {
        self.state().subscriptions.insert(format!("projects/test/subscriptions/{id}"), Vec::new());
    }

    /// Puts a message into a subscription.
    pub(crate) fn put(&self, subscription: &str, key: &str, attributes: &[(&str, &str)], data: impl AsRef<[u8]>) {
        let mut state = self.state();
        state.ids += 1;
        let message = PubsubMessage {
            data: data.as_ref().to_vec().into(),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            message_id: state.ids.to_string(),
            publish_time: None,
            ordering_key: key.into(),
        };
        let name = format!("projects/test/subscriptions/{subscription}");
        state.subscriptions.get_mut(&name).unwrap().push(Entry { message, attempts: 0, lease: None });
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Whether nothing waits in the subscription.
    pub(crate) fn is_drained(&self, subscription: &str) -> bool {
        self.state().subscriptions[&format!("projects/test/subscriptions/{subscription}")].is_empty()
    }

    pub(crate) fn published(&self, topic: &str) -> Vec<PubsubMessage> {
        self.state().published.get(&format!("projects/test/topics/{topic}")).cloned().unwrap_or_default()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

impl State {
    /// Whether everything is out on leases that a consumer knows of, because it has extended them.
    pub(crate) fn is_held(&self) -> bool {
        let mut entries = self.subscriptions.values().flatten();
        entries.all(|entry| entry.lease.as_ref().is_some_and(|lease| lease.extended))
    }

    /// Whether nothing is leased to anybody.
    pub(crate) fn is_free(&self) -> bool {
        self.subscriptions.values().flatten().all(|entry| entry.lease.is_none())
    }

    /// Leases the next messages to a stream, each key's in order, and no key to two streams.
    fn lease(&mut self, subscription: &str, stream: u64, most: i64) -> Result<Vec<ReceivedMessage>, Status> {
        let Self { subscriptions, ids, .. } = self;
        let missing = || Status::not_found(format!("`{subscription}` does not exist"));
        let entries = subscriptions.get_mut(subscription).ok_or_else(missing)?;
        let out =
            entries.iter().filter(|entry| entry.lease.as_ref().is_some_and(|lease| lease.stream == stream)).count();
        let credit = usize::try_from(most).unwrap().saturating_sub(out);
        let others = entries.iter().filter(|entry| entry.lease.as_ref().is_some_and(|lease| lease.stream != stream));
        let busy: HashSet<_> = others.map(|entry| entry.message.ordering_key.clone()).collect();
        let is_free = |entry: &&mut Entry| {
            let key = &entry.message.ordering_key;
            entry.lease.is_none() && (key.is_empty() || !busy.contains(key))
        };
        let free = entries.iter_mut().filter(is_free).take(credit);
        let received = free.map(|entry| {
            *ids += 1;
            let ack_id = format!("lease-{ids}");
            entry.lease = Some(Lease { stream, ack_id: ack_id.clone(), extended: false });
            let message = Some(entry.message.clone());
            ReceivedMessage { ack_id, message, delivery_attempt: entry.attempts + 1 }
        });
        Ok(received.collect())
    }

    fn ack(&mut self, ack_ids: Vec<String>) {
        for entries in self.subscriptions.values_mut() {
            entries.retain(|entry| {
                let acks = entry.lease.as_ref().is_some_and(|lease| ack_ids.contains(&lease.ack_id));
                if acks {
                    self.acked.push(entry.message.message_id.clone());
                }
                !acks
            });
        }
    }

    fn extend(&mut self, ack_ids: &[String]) {
        let leases = self.subscriptions.values_mut().flatten().filter_map(|entry| entry.lease.as_mut());
        leases.filter(|lease| ack_ids.contains(&lease.ack_id)).for_each(|lease| lease.extended = true);
    }

    /// Counts the attempt and takes the leases of the key's later messages back.
    fn nack(&mut self, ack_ids: &[String]) {
        for entries in self.subscriptions.values_mut() {
            for at in 0..entries.len() {
                let entry = &mut entries[at];
                if !entry.lease.as_ref().is_some_and(|lease| ack_ids.contains(&lease.ack_id)) {
                    continue;
                }
                entry.lease = None;
                entry.attempts += 1;
                self.nacked.push(entry.message.message_id.clone());
                let key = entry.message.ordering_key.clone();
                let later = entries[at + 1..].iter_mut().filter(|e| !key.is_empty() && e.message.ordering_key == key);
                later.for_each(|entry| entry.lease = None);
            }
        }
    }
}

/// The service that answers; one type for both traits.
struct Service(Arc<Shared>);

/// Gives a stream's leases back when its connection is lost.
struct Detach {
    shared: Arc<Shared>,
    stream: u64,
}

impl Drop for Detach {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        for entry in state.subscriptions.values_mut().flatten() {
            entry.lease.take_if(|lease| lease.stream == self.stream);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

impl Service {
    async fn deliver(
        shared: Arc<Shared>,
        first: StreamingPullRequest,
        out: mpsc::Sender<Result<StreamingPullResponse, Status>>,
    ) {
        let (stream, broken) = {
            let mut state = shared.state.lock().unwrap();
            state.streams_opened += 1;
            (state.streams_opened, state.break_streams)
        };
        if let Some(code) = broken {
            drop(out.send(Err(Status::new(code, "broken on purpose"))).await);
            return;
        }
        let _detach = Detach { shared: shared.clone(), stream };
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let leased = {
                let mut state = shared.state.lock().unwrap();
                let credit = if state.ignore_credit { i64::MAX } else { first.max_outstanding_messages };
                state.lease(&first.subscription, stream, credit)
            };
            let response = match leased {
                Ok(leased) if leased.is_empty() => {
                    tokio::select! {
                        () = changed => continue,
                        () = out.closed() => return,
                    }
                }
                Ok(received_messages) => Ok(StreamingPullResponse { received_messages, ..Default::default() }),
                Err(status) => Err(status),
            };
            let over = response.is_err();
            if out.send(response).await.is_err() || over {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Publisher for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Answer<PublishResponse> {
        let PublishRequest { topic, messages } = request.into_inner();
        let mut message_ids = Vec::new();
        let lose_reply = {
            let mut state = self.0.state.lock().unwrap();
            if let Some(message) = messages.first()
                && state.fail_keys_once.remove(&message.ordering_key)
            {
                return Err(Status::unavailable("not now"));
            }
            if state.missing_topics.iter().any(|id| topic.ends_with(id)) {
                return Err(Status::not_found("there is no such topic"));
            }
            if messages.iter().any(|message| state.refused_keys.contains(&message.ordering_key)) {
                return Err(Status::invalid_argument("no such message"));
            }
            let attributes_max = state.published_attributes_max.unwrap_or(usize::MAX);
            if messages.iter().any(|message| message.attributes.len() > attributes_max) {
                return Err(Status::invalid_argument("too many attributes"));
            }
            for mut message in messages {
                state.ids += 1;
                message.message_id = state.ids.to_string();
                message_ids.push(message.message_id.clone());
                state.published.entry(topic.clone()).or_default().push(message);
            }
            state.lose_replies
        };
        if lose_reply {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(PublishResponse { message_ids }))
    }

    unimplemented_calls! {
        create_topic(Topic) -> Topic;
        get_topic(GetTopicRequest) -> Topic;
        list_topics(ListTopicsRequest) -> ListTopicsResponse;
        list_topic_subscriptions(ListTopicSubscriptionsRequest) -> ListTopicSubscriptionsResponse;
        list_topic_snapshots(ListTopicSnapshotsRequest) -> ListTopicSnapshotsResponse;
        update_topic(UpdateTopicRequest) -> Topic;
        delete_topic(DeleteTopicRequest) -> ();
        detach_subscription(DetachSubscriptionRequest) -> DetachSubscriptionResponse;
    }
}

#[tonic::async_trait]
impl Subscriber for Service {
    type StreamingPullStream = Pin<Box<dyn Stream<Item = Result<StreamingPullResponse, Status>> + Send>>;

    async fn streaming_pull(
        &self,
        request: Request<Streaming<StreamingPullRequest>>,
    ) -> Answer<Self::StreamingPullStream> {
        let mut requests = request.into_inner();
        let (out, responses) = mpsc::channel(1);
        let shared = self.0.clone();
        tokio::spawn(async move {
            if let Ok(Some(first)) = requests.message().await {
                let keepalives = async { while let Ok(Some(_)) = requests.message().await {} };
                tokio::select! {
                    () = Service::deliver(shared, first, out) => {}
                    () = keepalives => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Answer<()> {
        self.0.state.lock().unwrap().ack(request.into_inner().ack_ids);
        self.0.changed.notify_waiters();
        Ok(Response::new(()))
    }

    async fn modify_ack_deadline(&self, request: Request<ModifyAckDeadlineRequest>) -> Answer<()> {
        let ModifyAckDeadlineRequest { ack_ids, ack_deadline_seconds, .. } = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        match ack_deadline_seconds {
            0 => state.nack(&ack_ids),
            _ => state.extend(&ack_ids),
        }
        drop(state);
        self.0.changed.notify_waiters();
        Ok(Response::new(()))
    }

    unimplemented_calls! {
        pull(PullRequest) -> PullResponse;
        create_subscription(Subscription) -> Subscription;
        get_subscription(GetSubscriptionRequest) -> Subscription;
        list_subscriptions(ListSubscriptionsRequest) -> ListSubscriptionsResponse;
        update_subscription(UpdateSubscriptionRequest) -> Subscription;
        delete_subscription(DeleteSubscriptionRequest) -> ();
        seek(SeekRequest) -> SeekResponse;
        modify_push_config(ModifyPushConfigRequest) -> ();
        create_snapshot(CreateSnapshotRequest) -> Snapshot;
        get_snapshot(GetSnapshotRequest) -> Snapshot;
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        update_snapshot(UpdateSnapshotRequest) -> Snapshot;
        delete_snapshot(DeleteSnapshotRequest) -> ();
    }
}
