//! `broker peek`, and what other commands need of it.

use orderflow_proto::orderflow::broker::v1 as pb;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use serde_json::Value;
use tonic::transport::Channel;

use super::error::Error;
use super::messages::{add_text, body_beginning};
use super::output::{self, to_json};
use super::remote::Remote;
use super::table::{Column, Table};
use super::units;

const PEEKED_MESSAGE: &str = "orderflow.broker.v1.PeekedMessage";
/// Bytes of each body that a table shows.
const TABLE_DATA_BYTES: i64 = 120;
/// Messages that are asked for at a time, so that an answer stays small though its messages may be large.
const PAGE_MESSAGES: u32 = 100;
/// The most messages that are shown.
const LIMIT_MAX: i64 = 100_000;

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub struct Peek {
    /// The subscription
    subscription: String,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    remote: Remote,
}

/// How much to look at.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Extent {
    /// The most messages to show, from the oldest on
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
    limit: u32,
    /// Show bodies whole in tables as well
    #[arg(long)]
    full: bool,
}

impl Peek {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Self { subscription, extent, remote } = self;
        let found = extent.messages(&remote, &subscription).await?;
        if remote.is_json() {
            return print_json(&found);
        }
        if found.is_empty() {
            output::remark("no messages");
            return Ok(());
        }
        let mut table = Table::new([
            Column::Left("MESSAGE-ID"),
            Column::Left("PUBLISHED"),
            Column::Left("STATE"),
            Column::Right("FAILED"),
            Column::Left("KEY"),
            Column::Left("ATTRIBUTES"),
            Column::Left("DATA"),
        ]);
        for peeked in &found {
            let message = peeked.message.clone().unwrap_or_default();
            table.row([
                message.message_id,
                units::iso(message.publish_time.as_ref()),
                state(peeked),
                failed(peeked),
                units::printable(&message.ordering_key),
                units::labels(&message.attributes),
                body_beginning(&message.data, peeked.data_bytes),
            ]);
        }
        output::line(&table.to_string())
    }
}

impl Extent {
    /// The oldest messages of a subscription's backlog; bodies are cut if a table can't hold them.
    pub(super) async fn messages(self, remote: &Remote, subscription: &str) -> Result<Vec<pb::PeekedMessage>, Error> {
        let mut inspector = remote.inspector().await?;
        let limit = self.limit as usize;
        let mut request = pb::PeekMessagesRequest {
            subscription: remote.subscription(subscription),
            data_bytes_max: if self.full || remote.is_json() { 0 } else { TABLE_DATA_BYTES },
            ..Default::default()
        };
        let mut found = Vec::new();
        loop {
            let size = limit.saturating_sub(found.len()).min(PAGE_MESSAGES as usize);
            request.page_size = i32::try_from(size).unwrap_or(i32::MAX);
            let page = inspector.peek_messages(request.clone()).await?.into_inner();
            found.extend(page.messages);
            if page.next_page_token.is_empty() || found.len() >= limit {
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// One message of a subscription's backlog, whole.
pub(super) async fn message(
    inspector: &mut BrokerServiceClient<Channel>,
    subscription: String,
    id: &str,
) -> Result<pb::PeekedMessage, Error> {
    let message_ids = vec![id.to_owned()];
    let request = pb::PeekMessagesRequest { subscription: subscription.clone(), message_ids, ..Default::default() };
    let found = inspector.peek_messages(request).await?.into_inner().messages.pop();
    found.ok_or_else(|| Error::NotInBacklog { id: id.to_owned(), subscription })
}

pub(super) fn print_json(peeked: &[pb::PeekedMessage]) -> Result<(), Error> {
    let peeked: Vec<_> = peeked.iter().map(json).collect::<Result<_, _>>()?;
    output::document(&peeked.into())
}

pub(super) fn json(peeked: &pb::PeekedMessage) -> Result<Value, Error> {
    let mut value = to_json(PEEKED_MESSAGE, peeked)?;
    if let Some(message) = &peeked.message {
        add_text(&mut value["message"], &message.data);
    }
    Ok(value)
}

pub(super) fn state(peeked: &pb::PeekedMessage) -> String {
    let state = peeked.state().as_str_name().trim_start_matches("MESSAGE_STATE_").to_lowercase();
    match &peeked.until_time {
        Some(until) => format!("{state} until {until}"),
        None => state,
    }
}

fn failed(peeked: &pb::PeekedMessage) -> String {
    let reason = peeked.last_failure().as_str_name().trim_start_matches("FAILURE_REASON_").to_lowercase();
    if peeked.failed_attempts == 0 { "-".to_owned() } else { format!("{} ({reason})", peeked.failed_attempts) }
}
