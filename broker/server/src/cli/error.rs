//! Why a command did not do what it was asked, and what to do next.

use std::fmt;
use std::path::PathBuf;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::names::program;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is none.
    #[error("`{address}` (--address, BROKER_ADDRESS) is not an address like http://127.0.0.1:8085: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error(
        "no broker answers at {address}\n  start one:   {} serve\n  or name it:  --address http://HOST:PORT, or \
         BROKER_ADDRESS",
        program()
    )]
    Unreachable {
        /// The address that was tried.
        address: String,
    },
    /// The broker said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Some of a stream of messages are published, and then one was not.
    #[error("{source}\n  {published} messages are published; the first that is not: {first}")]
    Partly {
        /// How many messages the broker has.
        published: usize,
        /// Where the first stands that it does not have.
        first: String,
        /// What went wrong with it.
        source: Box<Error>,
    },
    /// The subscription does not hold the message.
    #[error(
        "message `{id}` is not in the backlog of `{subscription}`\n  see what is there:  {} peek {subscription}",
        program()
    )]
    NotInBacklog {
        /// The message that was asked for.
        id: String,
        /// Where it was looked for.
        subscription: String,
    },
    /// Some dead letters were not redriven.
    #[error("{count} dead letters stay where they are")]
    Skipped {
        /// How many.
        count: u64,
    },
    /// A file can't be read.
    #[error("`{}` can't be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The standard input can't be read, or is too large.
    #[error("the standard input can't be used: {0}")]
    Input(std::io::Error),
    /// The standard output can't be written.
    #[error("the output can't be written: {0}")]
    Output(std::io::Error),
    /// The answer of the broker can't be shown as JSON.
    #[error("the answer can't be shown as JSON: {0}")]
    Json(String),
    /// The process can't hear the signals that stop it.
    #[error("stop signals can't be heard: {0}")]
    Signal(String),
}

/// What the broker answered instead of doing what it was asked.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    advice: Vec<String>,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(Refusal::of(&status)))
    }
}

impl Refusal {
    fn of(status: &Status) -> Self {
        let message = match status.code() {
            // What the transport says for itself ("transport error") helps nobody.
            Code::Unavailable | Code::Unknown if std::error::Error::source(status).is_some() => {
                "the connection to the broker broke off".to_owned()
            }
            Code::Unimplemented => format!("the broker does not do this: {}", status.message()),
            _ => status.message().to_owned(),
        };
        Self { message, advice: advice(status) }
    }
}

fn advice(status: &Status) -> Vec<String> {
    let program = program();
    let details = status.get_error_details();
    if let Some(resource) = details.resource_info() {
        let (kind, name) = (&resource.resource_type, &resource.resource_name);
        let project = name.split('/').nth(1).unwrap_or_default();
        return match status.code() {
            Code::NotFound => {
                let more = match kind.as_str() {
                    "topic" => "",
                    "subscription" => " --topic TOPIC",
                    _ => " --subscription SUBSCRIPTION",
                };
                vec![
                    format!("see what is there:  {program} {kind} list --project {project}"),
                    format!("create it:          {program} {kind} create {name}{more}"),
                ]
            }
            Code::AlreadyExists if kind == "snapshot" => {
                vec![format!("see what is there:  {program} snapshot list --project {project}")]
            }
            Code::AlreadyExists => vec![format!("look at it:  {program} {kind} describe {name}")],
            _ => Vec::new(),
        };
    }
    if let Some(info) = details.error_info() {
        return match info.reason.as_str() {
            "EXACTLY_ONCE_ACKID_FAILURE" => {
                let mut failed: Vec<_> = info.metadata.iter().map(|(id, why)| format!("{id}: {why}")).collect();
                failed.sort();
                failed
            }
            "BUSY" => vec!["the broker has more to do than it can queue: try again".to_owned()],
            "STOPPING" => vec!["the broker is stopping: try again when it serves".to_owned()],
            _ => Vec::new(),
        };
    }
    let detached = details.precondition_failure().and_then(|failure| failure.violations.first());
    match detached {
        Some(violation) if violation.r#type == "DETACHED" => {
            vec![format!("it can only be deleted:  {program} subscription delete {}", violation.subject)]
        }
        _ => Vec::new(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.advice.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
