//! The NATS cluster: connected, new enough, and set up as the journal needs it.

use std::io;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, ErrorCode, kv};
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions};
use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;

use super::change::MESSAGE_BYTES_MAX;
use super::failure::Failure;
use super::options::{Credentials, EngineAddress, EngineName, Replicas, Target};

/// The oldest server that honours all that is asked of it here.
const SERVER_VERSION_MIN: (u64, u64) = (2, 14);
/// The same, for people.
const SERVER_VERSION_MIN_TEXT: &str = "2.14";
/// How long one request waits for its answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a start waits for a cluster that is starting as well.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits for servers of the cluster that have yet to find one another.
const FORMING_PATIENCE: Duration = Duration::from_secs(10);
/// How long it pauses between tries.
const START_PAUSE: Duration = Duration::from_millis(250);
/// How long the stream remembers the id of a message, so that one that is sent again is not stored again.
pub(super) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How many servers keep the journal unless it is said.
const REPLICAS_DEFAULT: usize = 3;
/// How many changes are asked for at a time.
const FOLLOW_MESSAGES_MAX: usize = 1_000;
/// How many bytes of changes are asked for at a time.
const FOLLOW_BYTES_MAX: usize = 4 << 20;

/// A cluster that holds the journal.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) name: EngineName,
    /// Who owns the journal.
    pub(super) owners: kv::Store,
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// The message before it in the same answer; 0 for the first one.
    pub(super) previous: u64,
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

impl Cluster {
    /// Connects, checks the server, makes the stream and the bucket, or checks those that are there.
    pub(super) async fn join(target: &Target) -> Result<Self, Failure> {
        let client = connect(target).await?;
        let server = client.server_info();
        check_version(&server.server_name, &server.version)?;
        check_payload(&server.server_name, server.max_payload)?;
        if !server.jetstream {
            return Err(Failure::NoJetStream(server.server_name));
        }
        let context = jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).ack_timeout(REQUEST_TIMEOUT);
        let context = context.build(client.clone());
        let replicas = match target.replicas {
            Some(Replicas(replicas)) => replicas,
            None if server.cluster.is_some() => REPLICAS_DEFAULT,
            None => 1,
        };
        let begun = Instant::now();
        let fixed = target.replicas.is_some();
        let replicas = retried(begun, || prepare_stream(&context, &target.name, replicas, fixed)).await?;
        let owners = retried(begun, || prepare_bucket(&context, &target.name, replicas, fixed)).await?;
        Ok(Self { client, context, name: target.name.clone(), owners })
    }

    /// The subject of a file's changes.
    pub(super) fn file_subjects(&self) -> String {
        format!("{}file.", self.name.subjects())
    }

    /// The subject on which a new owner says that it is one.
    pub(super) fn claim_subject(&self) -> String {
        format!("{}claim", self.name.subjects())
    }

    /// The subject on which it is said that a journal is being copied into the stream, and that it is whole.
    pub(super) fn transfer_subject(&self) -> String {
        format!("{}transfer", self.name.subjects())
    }

    /// What comes in the stream behind `last`, from whichever server is at hand: it may be behind, but leaves nothing out.
    /// Empty when there is nothing yet.
    pub(super) async fn after(&self, last: u64) -> Result<Vec<Stored>, Failure> {
        let failed = |why: String| Failure::Request { what: "show the stream", why };
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| failed(error.to_string()))?;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.name.stream());
        let request = json!({
            "seq": last + 1,
            "next_by_subj": ">",
            "batch": FOLLOW_MESSAGES_MAX,
            "max_bytes": FOLLOW_BYTES_MAX,
        });
        let sent = self.client.publish_with_reply(subject, inbox, request.to_string().into()).await;
        sent.map_err(|error| failed(error.to_string()))?;
        let mut found: Vec<Stored> = Vec::new();
        loop {
            // What has come by then is of use, whatever becomes of the rest.
            let answer = match timeout(REQUEST_TIMEOUT, answers.next()).await {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) if !found.is_empty() => break,
                Ok(None) | Err(_) => return Err(failed("no answer came in time".to_owned())),
            };
            match answer.status.map(|status| status.as_u16()) {
                // The end of the batch; nothing there.
                Some(204 | 404) => break,
                Some(code) if found.is_empty() => return Err(failed(format!("it answered {code}"))),
                Some(_) => break,
                None => {}
            }
            let message = stored(answer).ok_or_else(|| failed("an answer made no sense".to_owned()))?;
            // A connection that changes servers in the middle of a batch may lose some of it.
            if message.previous != found.last().map_or(0, |last: &Stored| last.sequence) {
                if found.is_empty() {
                    return Err(failed("the first answers were lost".to_owned()));
                }
                break;
            }
            found.push(message);
        }
        Ok(found)
    }

    /// The id of a message that the stream holds; none if it can't be learned.
    pub(super) async fn id_of(&self, sequence: u64) -> Option<String> {
        let stream = self.context.get_stream_no_info(self.name.stream()).await.ok()?;
        let message = stream.get_raw_message(sequence).await.ok()?;
        Some(message.headers.get(NATS_MESSAGE_ID)?.as_str().to_owned())
    }

    /// The files that the stream speaks of, by their names, and in how many messages.
    pub(super) async fn files(&self) -> Result<Vec<(String, usize)>, Failure> {
        let failed = |why: String| Failure::Request { what: "list the subjects of the stream", why };
        let stream = self.context.get_stream_no_info(self.name.stream()).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        let files = self.file_subjects();
        let mut subjects =
            stream.info_with_subjects(format!("{files}>")).await.map_err(|error| failed(error.to_string()))?;
        let mut found = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, messages) = subject.map_err(|error| failed(error.to_string()))?;
            if let Some(file) = subject.strip_prefix(&files) {
                found.push((file.to_owned(), messages));
            }
        }
        Ok(found)
    }

    /// The last message about a file.
    pub(super) async fn last_of(&self, file: &str) -> Result<Stored, Failure> {
        let failed = |why: String| Failure::Request { what: "show the last change of a file", why };
        let stream = self.context.get_stream_no_info(self.name.stream()).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        let subject = format!("{}{file}", self.file_subjects());
        let last = stream.get_last_raw_message_by_subject(&subject).await;
        let last = last.map_err(|error| failed(error.to_string()))?;
        Ok(Stored { sequence: last.sequence, previous: 0, subject, payload: last.payload })
    }

    /// The last message about a transfer, if there was one.
    pub(super) async fn transfer(&self) -> Result<Option<Bytes>, Failure> {
        let failed = |why: String| Failure::Request { what: "say whether its journal is whole", why };
        let stream = self.context.get_stream_no_info(self.name.stream()).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        match stream.get_last_raw_message_by_subject(&self.transfer_subject()).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The number of the last message of the stream, 0 if there was none.
    pub(super) async fn last(&self) -> Result<u64, Failure> {
        let failed = |why: String| Failure::Request { what: "show the stream of the journal", why };
        let stream = self.context.get_stream(self.name.stream()).await.map_err(|error| failed(error.to_string()))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Gives back the space of everything before a message.
    pub(super) async fn purge_before(&self, sequence: u64) -> Result<(), Failure> {
        let failed = |why: String| Failure::Request { what: "give back the space of a transfer before", why };
        let stream = self.context.get_stream_no_info(self.name.stream()).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        stream.purge().sequence(sequence).await.map_err(|error| failed(error.to_string()))?;
        Ok(())
    }

    /// Gives back the space of what was said of a file before `removal`, the message that it is gone. That one stays, for
    /// whoever is still reading, and so does what comes behind it, if the name is used again.
    pub(super) async fn purge(&self, subject: &str, removal: u64) -> Result<(), Failure> {
        let failed = |why: String| Failure::Request { what: "give back the space of a file", why };
        let stream = self.context.get_stream_no_info(self.name.stream()).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        stream.purge().sequence(removal).filter(subject).await.map_err(|error| failed(error.to_string()))?;
        Ok(())
    }
}

fn stored(answer: async_nats::Message) -> Option<Stored> {
    let headers = answer.headers?;
    let number = |name: &str| headers.get(name)?.as_str().parse().ok();
    Some(Stored {
        sequence: number("Nats-Sequence")?,
        previous: number("Nats-Last-Sequence")?,
        subject: headers.get("Nats-Subject")?.as_str().to_owned(),
        payload: answer.payload,
    })
}

/// How a client with this name connects.
pub(super) fn client_options(servers: &EngineAddress, name: &str) -> ConnectOptions {
    let options =
        ConnectOptions::new().name(name).connection_timeout(REQUEST_TIMEOUT).request_timeout(Some(REQUEST_TIMEOUT));
    // The client does not look for them in the addresses.
    match servers.credentials() {
        Some(Credentials::UserAndPassword(user, password)) => options.user_and_password(user, password),
        Some(Credentials::Token(token)) => options.token(token),
        None => options,
    }
}

async fn connect(target: &Target) -> Result<Client, Failure> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let connecting = client_options(&target.servers, "orderflow broker").connect(target.servers.servers());
        match connecting.await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline || is_final(&error) => return Err(Failure::Connect(error)),
            Err(error) => {
                tracing::info!(%error, "The NATS cluster can't be reached yet.");
                sleep(START_PAUSE).await;
            }
        }
    }
}

/// Whether another try would end like this one: the server has said no, or is not the one that it has to be.
fn is_final(error: &ConnectError) -> bool {
    use ConnectErrorKind::{Authentication, AuthorizationViolation, Io, ServerParse, Tls};
    let of_system = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match error.kind() {
        Authentication | AuthorizationViolation | ServerParse | Tls => true,
        // A certificate that can't be trusted comes like this.
        Io => of_system.is_some_and(|error| error.kind() == io::ErrorKind::InvalidData),
        _ => false,
    }
}

pub(super) fn check_version(server: &str, version: &str) -> Result<(), Failure> {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u64>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= SERVER_VERSION_MIN => Ok(()),
        _ => {
            let (server, version) = (server.to_owned(), version.to_owned());
            Err(Failure::Version { server, version, needed: SERVER_VERSION_MIN_TEXT })
        }
    }
}

fn check_payload(server: &str, found: usize) -> Result<(), Failure> {
    if found >= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::Payload { server: server.to_owned(), found, needed: MESSAGE_BYTES_MAX })
}

/// Tries again while the cluster is not ready, but not when it has said that something can't be.
async fn retried<T, F: Future<Output = Result<T, Failure>>>(
    begun: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, Failure> {
    loop {
        match attempt().await {
            Err(Failure::Request { what, why }) if begun.elapsed() < START_PATIENCE => {
                tracing::info!(what, why, "The NATS cluster is not ready yet.");
            }
            Err(Failure::Replicas { why, is_final: false, .. }) if begun.elapsed() < FORMING_PATIENCE => {
                tracing::info!(why, "The NATS cluster has too few servers yet.");
            }
            outcome => return outcome,
        }
        sleep(START_PAUSE).await;
    }
}

/// How the stream of the journal is set: it keeps everything until it is purged, on disk.
fn stream_config(name: &EngineName, replicas: usize) -> stream::Config {
    stream::Config {
        name: name.stream(),
        subjects: vec![format!("{}>", name.subjects())],
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        discard: DiscardPolicy::New,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Default::default()
    }
}

/// Answers with the replicas that there are.
async fn prepare_stream(
    context: &Context,
    name: &EngineName,
    replicas: usize,
    is_fixed: bool,
) -> Result<usize, Failure> {
    let failed = |what, why: String| Failure::Request { what, why };
    let wanted = stream_config(name, replicas);
    let found = match context.get_stream(name.stream()).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                let created = context.create_stream(wanted.clone()).await;
                created.map_err(|error| stream_failure(&error, replicas))?
            }
            _ => return Err(failed("show the stream of the journal", error.to_string())),
        },
    };
    // What the server says that it has, not what it was asked for.
    let info = found.get_info().await.map_err(|error| failed("show the stream of the journal", error.to_string()))?;
    check_stream(&info.config, &wanted, is_fixed)?;
    Ok(info.config.num_replicas)
}

fn stream_failure(error: &jetstream::context::CreateStreamError, replicas: usize) -> Failure {
    const TOO_FEW: [ErrorCode; 3] =
        [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::INSUFFICIENT_RESOURCES, ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED];
    match error.kind() {
        CreateStreamErrorKind::JetStream(why) if TOO_FEW.contains(&why.error_code()) => {
            let is_final = why.error_code() != ErrorCode::CLUSTER_NO_PEERS;
            Failure::Replicas { replicas, why: why.to_string(), is_final }
        }
        _ => Failure::Request { what: "make the stream of the journal", why: error.to_string() },
    }
}

fn check_stream(found: &stream::Config, wanted: &stream::Config, replicas_fixed: bool) -> Result<(), Failure> {
    let settings = [
        ("subjects", text(&found.subjects), text(&wanted.subjects)),
        ("max_bytes", text(&unlimited(found.max_bytes)), text(&wanted.max_bytes)),
        ("max_msgs", text(&unlimited(found.max_messages)), text(&wanted.max_messages)),
        ("max_msgs_per_subject", text(&unlimited(found.max_messages_per_subject)), text(&-1)),
        ("max_msg_size", text(&unlimited(found.max_message_size.into())), text(&wanted.max_message_size)),
        ("max_age", text(&found.max_age), text(&wanted.max_age)),
        ("discard", text(&found.discard), text(&wanted.discard)),
        ("retention", text(&found.retention), text(&wanted.retention)),
        ("storage", text(&found.storage), text(&wanted.storage)),
        ("duplicate_window", text(&found.duplicate_window), text(&wanted.duplicate_window)),
        ("allow_direct", text(&found.allow_direct), text(&wanted.allow_direct)),
        ("no_ack", text(&found.no_ack), text(&wanted.no_ack)),
        ("deny_purge", text(&found.deny_purge), text(&wanted.deny_purge)),
        ("mirror", text(&found.mirror.is_some()), text(&false)),
        ("sources", text(&found.sources.as_ref().is_some_and(|sources| !sources.is_empty())), text(&false)),
        ("num_replicas", text(&found.num_replicas), text(&wanted.num_replicas)),
    ];
    check_settings(&found.name, settings, replicas_fixed)
}

/// What the owner writes has to stay until somebody else writes it.
fn check_bucket(found: &stream::Config, replicas: usize, replicas_fixed: bool) -> Result<(), Failure> {
    let settings = [
        ("max_bytes", text(&unlimited(found.max_bytes)), text(&-1)),
        ("max_age", text(&found.max_age), text(&Duration::ZERO)),
        ("retention", text(&found.retention), text(&RetentionPolicy::Limits)),
        ("storage", text(&found.storage), text(&StorageType::File)),
        ("no_ack", text(&found.no_ack), text(&false)),
        ("mirror", text(&found.mirror.is_some()), text(&false)),
        ("num_replicas", text(&found.num_replicas), text(&replicas)),
    ];
    check_settings(&found.name, settings, replicas_fixed)
}

/// A setting, as it is and as it has to be.
type Setting = (&'static str, String, String);

fn check_settings(
    stream: &str,
    settings: impl IntoIterator<Item = Setting>,
    replicas_fixed: bool,
) -> Result<(), Failure> {
    let counts = |setting: &str| setting != "num_replicas" || replicas_fixed;
    match settings.into_iter().find(|(setting, found, wanted)| counts(setting) && found != wanted) {
        Some((setting, found, wanted)) => {
            Err(Failure::Setting { what: format!("stream {stream}"), setting, found, wanted })
        }
        None => Ok(()),
    }
}

fn text(value: &dyn std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// Servers write in more than one way that there is no limit.
fn unlimited(limit: i64) -> i64 {
    if limit <= 0 { -1 } else { limit }
}

async fn prepare_bucket(
    context: &Context,
    name: &EngineName,
    replicas: usize,
    is_fixed: bool,
) -> Result<kv::Store, Failure> {
    let failed = |why: String| Failure::Request { what: "make the bucket that names the owner", why };
    let config = kv::Config {
        bucket: name.bucket(),
        history: 1,
        storage: StorageType::File,
        num_replicas: replicas,
        ..Default::default()
    };
    let found = match context.get_key_value(name.bucket()).await {
        Ok(found) => found,
        Err(_) => context.create_key_value(config).await.map_err(|error| failed(error.to_string()))?,
    };
    let info = found.stream.get_info().await.map_err(|error| failed(error.to_string()))?;
    check_bucket(&info.config, replicas, is_fixed)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_too_old_are_refused_with_the_version_that_is_needed() {
        for (version, good) in [
            ("2.14.0", true),
            ("2.15.1", true),
            ("3.0.0", true),
            ("2.14.0-RC.1", true),
            ("2.13.9", false),
            ("1.99.0", false),
            ("", false),
            ("newest", false),
        ] {
            assert_eq!(check_version("n1", version).is_ok(), good, "{version}");
        }
        let refused = check_version("n1", "2.10.3").unwrap_err().to_string();
        assert_eq!(refused, "NATS server `n1` has version 2.10.3; 2.14 or newer is needed");
    }

    /// The time is the runtime's.
    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_forming_has_some_seconds_to_find_enough_servers_and_no_time_if_it_never_will() {
        let too_few = |is_final| Failure::Replicas { replicas: 3, why: String::new(), is_final };
        let begun = Instant::now();
        let joins = async || if begun.elapsed() < FORMING_PATIENCE / 2 { Err(too_few(false)) } else { Ok(()) };
        retried(begun, joins).await.unwrap();
        for (is_final, waited) in [(false, FORMING_PATIENCE), (true, Duration::ZERO)] {
            let begun = Instant::now();
            let outcome = retried::<(), _>(begun, async || Err(too_few(is_final))).await;
            assert!(matches!(outcome, Err(Failure::Replicas { .. })), "{outcome:?}");
            assert!(begun.elapsed() >= waited && is_final == begun.elapsed().is_zero(), "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn a_stream_that_could_lose_something_is_refused_by_its_setting() {
        let wanted = stream_config(&"test".parse().unwrap(), 3);
        check_stream(&wanted, &wanted, true).unwrap();
        let refused = |found: stream::Config| match check_stream(&found, &wanted, true) {
            Err(Failure::Setting { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
        let base = || wanted.clone();
        assert_eq!(refused(stream::Config { max_bytes: 1, ..base() }), "max_bytes");
        assert_eq!(refused(stream::Config { max_messages: 1, ..base() }), "max_msgs");
        assert_eq!(refused(stream::Config { max_messages_per_subject: 1, ..base() }), "max_msgs_per_subject");
        assert_eq!(refused(stream::Config { max_age: DUPLICATE_WINDOW, ..base() }), "max_age");
        assert_eq!(refused(stream::Config { discard: DiscardPolicy::Old, ..base() }), "discard");
        assert_eq!(refused(stream::Config { storage: StorageType::Memory, ..base() }), "storage");
        assert_eq!(refused(stream::Config { duplicate_window: Duration::ZERO, ..base() }), "duplicate_window");
        assert_eq!(refused(stream::Config { num_replicas: 1, ..base() }), "num_replicas");
        check_stream(&stream::Config { num_replicas: 1, ..base() }, &wanted, false).unwrap();
    }
}
