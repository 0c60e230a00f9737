//! The command line of the broker: serving, and everything that a running broker can be asked.

mod check;
mod completions;
mod copy;
mod dead_letter;
mod error;
mod health;
mod input;
mod messages;
mod names;
mod output;
mod peek;
mod publish;
mod pull;
mod remote;
mod seek;
mod serve;
mod snapshot;
mod stats;
mod subscription;
mod table;
mod tail;
mod topic;
mod units;

pub use completions::Shell;
pub use error::Error as CommandError;
pub use serve::LogFormat;

use std::io::ErrorKind;

use crate::Error;

/// What the broker can be asked to do from the command line.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or ctrl-c
    Serve(serve::Serve),
    /// Read a whole journal that no broker has open, and change nothing; exits with 0 when it is sound
    Check(check::Check),
    /// Copy a journal that no broker has open into a NATS cluster, or from there into a directory
    Copy(copy::Copy),
    /// Ask a running broker whether it is healthy; exits with 0 when it is
    Health(health::Health),
    /// Create, list, describe, update and delete topics
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Create, list, describe, update, detach and delete subscriptions
    #[command(subcommand)]
    Subscription(subscription::Subscription),
    /// Create, list and delete snapshots: marks in a subscription to seek back to
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Publish messages to a topic
    Publish(publish::Publish),
    /// Take messages from a subscription
    Pull(pull::Pull),
    /// Print messages as they come, until ctrl-c
    Tail(tail::Tail),
    /// Ack messages that `pull` has leased
    Ack(pull::Ack),
    /// Give messages that `pull` has leased back; each counts as a failed attempt
    Nack(pull::Nack),
    /// Take a subscription back to what was published before, or forward
    Seek(seek::Seek),
    /// Show the first messages of a subscription, without taking them
    Peek(peek::Peek),
    /// Show how topics and subscriptions stand
    Stats(stats::Stats),
    /// List, show and redrive messages that failed too often
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetter),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Does what was asked. `program` is the whole command line that this one is a part of, for the shell completions.
    pub async fn execute(self, program: clap::Command) -> Result<(), Error> {
        match self.run(program).await {
            // Whoever read the output has what they wanted.
            Err(Error::Command(CommandError::Output(error))) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    async fn run(self, program: clap::Command) -> Result<(), Error> {
        match self {
            Self::Serve(serve) => serve.execute().await?,
            Self::Check(check) => check.execute()?,
            Self::Copy(copy) => copy.execute().await?,
            Self::Health(health) => health.execute().await?,
            Self::Topic(topic) => topic.execute().await?,
            Self::Subscription(subscription) => subscription.execute().await?,
            Self::Snapshot(snapshot) => snapshot.execute().await?,
            Self::Publish(publish) => publish.execute().await?,
            Self::Pull(pull) => pull.execute().await?,
            Self::Tail(tail) => tail.execute().await?,
            Self::Ack(ack) => ack.execute().await?,
            Self::Nack(nack) => nack.execute().await?,
            Self::Seek(seek) => seek.execute().await?,
            Self::Peek(peek) => peek.execute().await?,
            Self::Stats(stats) => stats.execute().await?,
            Self::DeadLetter(dead_letter) => dead_letter.execute().await?,
            Self::Completions { shell } => shell.print(program)?,
        }
        Ok(())
    }
}
