//! `orderflow dead-letters`: looks at what nobody could handle, mends it, and sends it back to where it came from.

mod command;
mod letter;
mod payload;

use std::collections::{HashMap, HashSet};

use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::google::pubsub::v1::{
    AcknowledgeRequest, ModifyAckDeadlineRequest, PublishRequest, PubsubMessage, PullRequest, ReceivedMessage,
};
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use orderflow_proto::orderflow::broker::v1::{
    PeekMessagesRequest, RedriveDeadLettersRequest, RedriveDeadLettersResponse, SkippedDeadLetter,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::audit::{self, channel};

pub use command::{Command, execute};
pub use letter::Letter;

/// The subscription that keeps what nobody could handle.
const SUBSCRIPTION: &str = "projects/orderflow/subscriptions/operator.dead-letters";
/// The topic that it is subscribed to.
const TOPIC: &str = "projects/orderflow/topics/dead-letters";
/// Messages asked for in one page.
const PAGE_SIZE: i32 = 1_000;
/// Messages that one request leases while some among them are looked for.
const LEASED_MAX: i32 = 1_000;
/// Leases that one request gives back or acks.
const LEASES_CHANGED_MAX: usize = 1_000;

/// Why a dead letter stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker was not reached, or refused.
    #[error(transparent)]
    Broker(#[from] audit::Error),
    /// There is no such message.
    #[error("no dead letter has the id `{0}`; `orderflow dead-letters list` shows them")]
    Unknown(String),
    /// Somebody else holds a lease on it.
    #[error("dead letter `{0}` can't be had now: another consumer holds it; try again in a moment")]
    Held(String),
    /// The payload can't be put into words, or words into a payload.
    #[error(transparent)]
    Payload(#[from] payload::Error),
    /// A file can't be read.
    #[error("`{path}` can't be read: {source}")]
    File {
        /// Which one.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Some were not sent back.
    #[error("{} dead letter(s) stay where they are: {}", .0.len(), reasons(.0))]
    Skipped(Vec<SkippedDeadLetter>),
}

fn reasons(skipped: &[SkippedDeadLetter]) -> String {
    let reason = |letter: &SkippedDeadLetter| {
        let reason = letter.reason().as_str_name().trim_start_matches("REDRIVE_SKIP_REASON_").to_lowercase();
        format!("{} ({})", letter.message_id, reason.replace('_', " "))
    };
    skipped.iter().map(reason).collect::<Vec<_>>().join(", ")
}

/// Every dead letter of the broker at `http://HOST:PORT`, the oldest first. None is leased.
pub async fn list(broker: &str) -> Result<Vec<Letter>, audit::Error> {
    let mut client = BrokerServiceClient::new(channel(broker)?);
    let mut request =
        PeekMessagesRequest { subscription: SUBSCRIPTION.into(), page_size: PAGE_SIZE, ..Default::default() };
    let mut letters = Vec::new();
    loop {
        let page = client.peek_messages(request.clone()).await;
        let page = page.map_err(audit::Error::grpc("broker", broker))?.into_inner();
        letters.extend(page.messages.into_iter().filter_map(|peeked| peeked.message).map(Letter::new));
        if page.next_page_token.is_empty() {
            return Ok(letters);
        }
        request.page_token = page.next_page_token;
    }
}

/// One dead letter.
pub async fn show(broker: &str, id: &str) -> Result<Letter, Error> {
    let letters = list(broker).await?;
    letters.into_iter().find(|letter| letter.id() == id).ok_or_else(|| Error::Unknown(id.to_owned()))
}

/// Sends dead letters back to the subscriptions that they came from; all of them when none is named.
pub async fn redrive(broker: &str, ids: Vec<String>) -> Result<RedriveDeadLettersResponse, Error> {
    let request =
        RedriveDeadLettersRequest { subscription: SUBSCRIPTION.into(), message_ids: ids, ..Default::default() };
    let reply = BrokerServiceClient::new(channel(broker)?).redrive_dead_letters(request).await;
    Ok(reply.map_err(audit::Error::grpc("broker", broker))?.into_inner())
}

/// Puts a copy with another payload or other attributes in the place of a dead letter, and gives the copy's id. The copy
/// is on disk before the original goes; a crash between the two leaves both.
pub async fn mend(
    broker: &str,
    id: &str,
    json: Option<&str>,
    attributes: HashMap<String, String>,
) -> Result<String, Error> {
    let mut message = show(broker, id).await?.into_message();
    message.attributes.extend(attributes);
    if let Some(json) = json {
        let letter = Letter::new(message.clone());
        message.data = payload::encode(letter.kind(), json)?.into();
    }
    let copy = PubsubMessage { message_id: String::new(), publish_time: None, ..message };
    let request = PublishRequest { topic: TOPIC.into(), messages: vec![copy] };
    let published = PublisherClient::new(channel(broker)?).publish(request).await;
    let published = published.map_err(audit::Error::grpc("broker", broker))?.into_inner();
    discard(broker, &[id.to_owned()]).await?;
    Ok(published.message_ids.into_iter().next().unwrap_or_default())
}

/// Gives dead letters up for good. If one of them is unknown nothing is changed; one that somebody else holds stays, and
/// the others go.
pub async fn discard(broker: &str, ids: &[String]) -> Result<(), Error> {
    let letters = list(broker).await?;
    let there: HashSet<&str> = letters.iter().map(Letter::id).collect();
    if let Some(unknown) = ids.iter().find(|id| !there.contains(id.as_str())) {
        return Err(Error::Unknown(unknown.clone()));
    }
    let refused = |status| Error::Broker(audit::Error::grpc("broker", broker)(status));
    let mut client = SubscriberClient::new(channel(broker)?);
    let Leases { wanted, others, missing } = lease(&mut client, ids).await.map_err(refused)?;
    let subscription = SUBSCRIPTION.to_owned();
    for ack_ids in others.chunks(LEASES_CHANGED_MAX).map(<[String]>::to_vec) {
        let subscription = subscription.clone();
        let give_back = ModifyAckDeadlineRequest { subscription, ack_ids, ack_deadline_seconds: 0 };
        client.modify_ack_deadline(give_back).await.map_err(refused)?;
    }
    for ack_ids in wanted.chunks(LEASES_CHANGED_MAX).map(<[String]>::to_vec) {
        let subscription = subscription.clone();
        client.acknowledge(AcknowledgeRequest { subscription, ack_ids }).await.map_err(refused)?;
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Held(missing.join("`, `"))) }
}

/// What was leased while some letters were looked for, as ack ids.
struct Leases {
    wanted: Vec<String>,
    others: Vec<String>,
    /// The ids of those that were not to be had.
    missing: Vec<String>,
}

/// Leases letters, and as few others as possible: until all are there, or nothing more is.
async fn lease(client: &mut SubscriberClient<Channel>, ids: &[String]) -> Result<Leases, Status> {
    let mut missing: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    while !missing.is_empty() {
        // An empty answer comes at once: whatever is not leased by somebody else has been seen.
        #[allow(deprecated, reason = "the only way to ask without waiting")]
        let request =
            PullRequest { subscription: SUBSCRIPTION.into(), max_messages: LEASED_MAX, return_immediately: true };
        let leased = client.pull(request).await?.into_inner().received_messages;
        if leased.is_empty() {
            break;
        }
        for ReceivedMessage { ack_id, message, .. } in leased {
            let is_wanted = message.is_some_and(|message| missing.remove(message.message_id.as_str()));
            if is_wanted { wanted.push(ack_id) } else { others.push(ack_id) }
        }
    }
    Ok(Leases { wanted, others, missing: missing.into_iter().map(str::to_owned).collect() })
}
