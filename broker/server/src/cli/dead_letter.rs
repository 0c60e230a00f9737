//! `broker dead-letter`.

use std::collections::HashMap;

use orderflow_proto::google::pubsub::v1 as pubsub;
use orderflow_proto::orderflow::broker::v1 as pb;

use super::error::Error;
use super::messages::{body, body_beginning};
use super::names;
use super::output::{self, to_json};
use super::peek::{self, Extent};
use super::remote::Remote;
use super::table::{Column, Table, pairs};
use super::units;

/// What the broker writes into the attributes of a dead letter. These names are those of the public service.
const SOURCE_SUBSCRIPTION: &str = "CloudPubSubDeadLetterSourceSubscription";
const SOURCE_PROJECT: &str = "CloudPubSubDeadLetterSourceSubscriptionProject";
const SOURCE_PUBLISH_TIME: &str = "CloudPubSubDeadLetterSourceTopicPublishTime";
const SOURCE_ATTEMPTS: &str = "CloudPubSubDeadLetterSourceDeliveryCount";
/// And this one is ours.
const REASON: &str = "BrokerDeadLetterReason";
/// What a consumer writes that sets a message aside by itself.
const SET_ASIDE_SUBSCRIPTION: &str = "dead-letter-subscription";
const SET_ASIDE_REASON: &str = "dead-letter-reason";

/// What can be done with dead letters.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadLetter {
    /// List the dead letters that a subscription holds, the oldest first
    List(List),
    /// Show a dead letter whole
    Show(Show),
    /// Take dead letters back to the subscriptions that they came from
    Redrive(Redrive),
}

/// Where to look.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// The subscription of the dead-letter topic that holds them
    subscription: String,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    remote: Remote,
}

/// Which dead letter is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// The subscription that holds it
    subscription: String,
    /// Its id, as `list` prints it
    message_id: String,
    #[command(flatten)]
    remote: Remote,
}

/// Which dead letters to take back.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub struct Redrive {
    /// The subscription that holds them
    subscription: String,
    /// Their ids, as `list` prints them
    #[arg(group = "which")]
    message_id: Vec<String>,
    /// All that there are now
    #[arg(long, group = "which")]
    all: bool,
    /// With --all: at most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "message_id")]
    limit: Option<i64>,
    #[command(flatten)]
    remote: Remote,
}

impl DeadLetter {
    pub(super) async fn execute(self) -> Result<(), Error> {
        match self {
            Self::List(list) => list.execute().await,
            Self::Show(show) => show.execute().await,
            Self::Redrive(redrive) => redrive.execute().await,
        }
    }
}

impl List {
    async fn execute(self) -> Result<(), Error> {
        let Self { subscription, extent, remote } = self;
        let found = extent.messages(&remote, &subscription).await?;
        if remote.is_json() {
            return peek::print_json(&found);
        }
        if found.is_empty() {
            output::remark("no dead letters");
            return Ok(());
        }
        let mut table = Table::new([
            Column::Left("MESSAGE-ID"),
            Column::Left("DEAD-LETTERED"),
            Column::Left("SOURCE"),
            Column::Right("ATTEMPTS"),
            Column::Left("REASON"),
            Column::Left("KEY"),
            Column::Left("DATA"),
        ]);
        for peeked in &found {
            let message = peeked.message.clone().unwrap_or_default();
            let cause = Cause::of(&message);
            table.row([
                message.message_id.clone(),
                units::iso(message.publish_time.as_ref()),
                remote.shown(&cause.source),
                cause.attempts,
                units::printable(&cause.reason),
                units::printable(&message.ordering_key),
                body_beginning(&message.data, peeked.data_bytes),
            ]);
        }
        output::line(&table.to_string())
    }
}

impl Show {
    async fn execute(self) -> Result<(), Error> {
        let Self { subscription, message_id, remote } = self;
        let subscription = remote.subscription(&subscription);
        let peeked = peek::message(&mut remote.inspector().await?, subscription, &message_id).await?;
        if remote.is_json() {
            return output::document(&peek::json(&peeked)?);
        }
        let message = peeked.message.clone().unwrap_or_default();
        let cause = Cause::of(&message);
        output::line(&pairs([
            ("message id", message.message_id),
            ("state", peek::state(&peeked)),
            ("source", remote.shown(&cause.source)),
            ("attempts", cause.attempts),
            ("reason", units::printable(&cause.reason)),
            ("published", cause.published),
            ("dead-lettered", units::iso(message.publish_time.as_ref())),
            ("ordering key", units::printable(&message.ordering_key)),
            ("attributes", units::labels(&cause.other_attributes)),
            ("size", units::bytes(peeked.data_bytes)),
            ("data", body(&message.data)),
        ]))
    }
}

impl Redrive {
    async fn execute(self) -> Result<(), Error> {
        let Self { subscription, message_id, all: _, limit, remote } = self;
        let request = pb::RedriveDeadLettersRequest {
            subscription: remote.subscription(&subscription),
            message_ids: message_id,
            messages_max: limit.unwrap_or_default(),
        };
        let answer = remote.inspector().await?.redrive_dead_letters(request).await?.into_inner();
        if remote.is_json() {
            output::document(&to_json("orderflow.broker.v1.RedriveDeadLettersResponse", &answer)?)?;
        } else {
            output::line(&format!("took back {}", answer.redriven_messages))?;
            if !answer.skipped.is_empty() {
                output::line(&skipped(&remote, &answer.skipped).to_string())?;
            }
        }
        if answer.skipped_messages > 0 { Err(Error::Skipped { count: answer.skipped_messages }) } else { Ok(()) }
    }
}

fn skipped(remote: &Remote, skipped: &[pb::SkippedDeadLetter]) -> Table<3> {
    let mut table = Table::new([Column::Left("MESSAGE-ID"), Column::Left("SOURCE"), Column::Left("STAYS BECAUSE")]);
    for one in skipped {
        let why = match one.reason() {
            pb::RedriveSkipReason::Unspecified => "the broker does not say why",
            pb::RedriveSkipReason::Outstanding => "a consumer holds it: try again when it is back",
            pb::RedriveSkipReason::SourceUnknown => "its attributes do not say where it came from",
            pb::RedriveSkipReason::SourceNotFound => "the subscription that it came from does not exist",
            pb::RedriveSkipReason::SourceDetached => "the subscription that it came from is detached",
            pb::RedriveSkipReason::NotInBacklog => "it is not here, or not any more",
        };
        table.row([one.message_id.clone(), remote.shown(&one.source_subscription), why.to_owned()]);
    }
    table
}

/// Why a message is a dead letter, as its attributes say.
#[derive(Debug, Default)]
struct Cause {
    source: String,
    attempts: String,
    reason: String,
    published: String,
    other_attributes: HashMap<String, String>,
}

impl Cause {
    fn of(message: &pubsub::PubsubMessage) -> Self {
        let mut cause = Self::default();
        let mut project = None;
        for (key, value) in &message.attributes {
            let place = match key.as_str() {
                SOURCE_SUBSCRIPTION | SET_ASIDE_SUBSCRIPTION => &mut cause.source,
                SOURCE_ATTEMPTS => &mut cause.attempts,
                SOURCE_PUBLISH_TIME => &mut cause.published,
                SOURCE_PROJECT => project.insert(String::new()),
                REASON | SET_ASIDE_REASON => &mut cause.reason,
                _ => {
                    cause.other_attributes.insert(key.clone(), value.clone());
                    continue;
                }
            };
            place.clone_from(value);
        }
        if let Some(project) = project {
            cause.source = names::full(&project, "subscriptions", &cause.source);
        }
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_dead_letter_is_told_apart_from_its_own_attributes() {
        let attribute = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let attributes = [
            (SOURCE_SUBSCRIPTION, "payment"),
            (SOURCE_PROJECT, "p"),
            (SOURCE_ATTEMPTS, "5"),
            (REASON, "nacked"),
            ("type", "paid"),
        ];
        let attributes = attributes.into_iter().map(attribute).collect();
        let cause = Cause::of(&pubsub::PubsubMessage { attributes, ..Default::default() });
        assert_eq!(
            (cause.source.as_str(), cause.attempts.as_str(), cause.reason.as_str()),
            ("projects/p/subscriptions/payment", "5", "nacked")
        );
        assert_eq!(units::labels(&cause.other_attributes), "type=paid");
    }
}
