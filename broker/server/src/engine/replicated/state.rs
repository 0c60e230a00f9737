//! How a journal in a NATS cluster stands, for somebody who only looks.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use tokio::time::timeout;

use super::claim::owner_in;
use super::cluster::{REQUEST_TIMEOUT, check_version, client_options};
use super::failure::Failure;
use super::options::{EngineAddress, EngineName};

/// How a journal in a NATS cluster stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalState {
    /// The version of the server that was asked.
    pub version: String,
    /// The stream with the journal; none while no broker has made it.
    pub stream: Option<StreamState>,
    /// Where the broker that owns the journal is reached; none while nobody does, or nobody can tell.
    pub owner: Option<String>,
}

/// How the stream of a journal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// How many servers keep it.
    pub replicas: usize,
    /// The name of the server that leads it; none during an election.
    pub leader: Option<String>,
    /// Whether every server that keeps it, and the name of the owner, has everything: any one of them may go.
    pub is_whole: bool,
    /// How many changes it holds.
    pub changes: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

impl JournalState {
    /// Asks the cluster, and changes nothing. An answer or an error comes within some seconds.
    pub async fn look(servers: &EngineAddress, name: &EngineName) -> Result<Self, crate::Error> {
        Ok(look(servers, name).await?)
    }
}

async fn look(servers: &EngineAddress, name: &EngineName) -> Result<JournalState, Failure> {
    let late = |_| Failure::Request { what: "answer", why: "it took too long".to_owned() };
    let connecting = client_options(servers, "orderflow").connect(servers.servers());
    let client = timeout(REQUEST_TIMEOUT, connecting).await.map_err(late)?.map_err(Failure::Connect)?;
    let server = client.server_info();
    check_version(&server.server_name, &server.version)?;
    if !server.jetstream {
        return Err(Failure::NoJetStream(server.server_name));
    }
    let context = jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client);
    let journal = stream_in(&context, name.stream()).await?;
    let owner = owner_in(&context, name).await;
    let owners = stream_in(&context, format!("KV_{}", name.bucket())).await?;
    let stream = journal.map(|info| StreamState {
        replicas: info.config.num_replicas,
        leader: info.cluster.as_ref().and_then(|cluster| cluster.leader.clone()),
        is_whole: is_whole(&info) && owners.is_some_and(|owners| is_whole(&owners)),
        changes: info.state.messages,
        bytes: info.state.bytes,
    });
    Ok(JournalState { version: server.version, stream, owner })
}

async fn stream_in(context: &Context, name: String) -> Result<Option<stream::Info>, Failure> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(Failure::Request { what: "show the stream of the journal", why: error.to_string() }),
        },
    }
}

/// Whether its leader knows of every other replica that it has everything.
fn is_whole(info: &stream::Info) -> bool {
    let Some(cluster) = &info.cluster else { return info.config.num_replicas == 1 };
    let others = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline).count();
    cluster.leader.is_some() && others + 1 == info.config.num_replicas
}
