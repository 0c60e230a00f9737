//! `broker stats`.

use std::io::IsTerminal;

use orderflow_proto::orderflow::broker::v1 as pb;

use super::error::Error;
use super::output::{self, to_json};
use super::remote::Remote;
use super::table::{Column, Table};
use super::units;

const STATS: &str = "orderflow.broker.v1.GetStatsResponse";
/// Takes the cursor of a terminal to the upper left corner of an empty screen.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Which figures to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Stats {
    /// Show them again and again, until ctrl-c
    #[arg(long)]
    watch: bool,
    /// With --watch: how often, in whole seconds
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration, requires = "watch")]
    interval: prost_types::Duration,
    /// With --watch: end after so many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "watch")]
    count: Option<u64>,
    /// The figures of all projects
    #[arg(long)]
    all_projects: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Stats {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let project = if self.all_projects { String::new() } else { self.remote.project() };
        let mut inspector = self.remote.inspector().await?;
        if !self.watch {
            let stats = inspector.get_stats(pb::GetStatsRequest { project }).await?.into_inner();
            return self.show(&stats);
        }
        let request = pb::WatchStatsRequest { project, interval: Some(self.interval) };
        let mut responses = inspector.watch_stats(request).await?.into_inner();
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0
            && let Some(response) = responses.message().await?
        {
            left -= 1;
            self.show_again(&response.stats.unwrap_or_default())?;
        }
        Ok(())
    }

    fn show(&self, stats: &pb::GetStatsResponse) -> Result<(), Error> {
        if self.remote.is_json() {
            return output::document(&to_json(STATS, stats)?);
        }
        output::line(&report(&self.remote, stats))
    }

    fn show_again(&self, stats: &pb::GetStatsResponse) -> Result<(), Error> {
        if self.remote.is_json() {
            return output::json_line(&to_json(STATS, stats)?);
        }
        let report = report(&self.remote, stats);
        if std::io::stdout().is_terminal() {
            return output::line(&format!("{CLEAR_SCREEN}{report}"));
        }
        output::line(&format!("{report}\n"))
    }
}

/// Everything, in three paragraphs.
fn report(remote: &Remote, stats: &pb::GetStatsResponse) -> String {
    let journal = format!("journal {}", units::bytes(stats.journal_bytes));
    let broker = stats.broker.as_ref().map(|broker| {
        let (segments, syncs) = (broker.journal_segments, broker.journal_syncs);
        let up = units::age(broker.uptime.as_ref());
        format!("broker {}, up {up}, {journal} in {segments} segments, {syncs} syncs", broker.version)
    });
    let mut paragraphs = vec![broker.unwrap_or(journal)];
    if stats.topics.is_empty() {
        paragraphs.push("no topics".to_owned());
    } else {
        paragraphs.push(topics(remote, &stats.topics).to_string());
    }
    if !stats.subscriptions.is_empty() {
        paragraphs.push(subscriptions(remote, &stats.subscriptions).to_string());
    }
    paragraphs.join("\n\n")
}

fn topics(remote: &Remote, topics: &[pb::TopicStats]) -> Table<6> {
    let mut table = Table::new([
        Column::Left("TOPIC"),
        Column::Right("SUBSCRIPTIONS"),
        Column::Right("PUBLISHED"),
        Column::Right("KEPT"),
        Column::Right("SIZE"),
        Column::Right("IN/S"),
    ]);
    for topic in topics {
        table.row([
            remote.shown(&topic.topic),
            topic.subscriptions.to_string(),
            topic.published_messages.to_string(),
            topic.retained_messages.to_string(),
            units::bytes(topic.retained_bytes),
            units::rate(topic.published_per_second),
        ]);
    }
    table
}

fn subscriptions(remote: &Remote, subscriptions: &[pb::SubscriptionStats]) -> Table<12> {
    let mut table = Table::new([
        Column::Left("SUBSCRIPTION"),
        Column::Right("BACKLOG"),
        Column::Right("SIZE"),
        Column::Right("OLDEST"),
        Column::Right("OUTSTANDING"),
        Column::Right("DELAYED"),
        Column::Right("CONSUMERS"),
        Column::Right("FAILED"),
        Column::Right("DEAD-LETTERED"),
        Column::Right("IN/S"),
        Column::Right("OUT/S"),
        Column::Right("ACKED/S"),
    ]);
    for one in subscriptions {
        let about = if one.backlog_bytes_estimated { "~" } else { "" };
        table.row([
            remote.shown(&one.subscription),
            one.backlog_messages.to_string(),
            format!("{about}{}", units::bytes(one.backlog_bytes)),
            one.oldest_unacked_age.as_ref().map_or_else(|| "-".to_owned(), |age| units::age(Some(age))),
            one.outstanding_messages.to_string(),
            one.delayed_messages.to_string(),
            one.consumers.to_string(),
            (one.nacked_attempts + one.expired_attempts + one.lost_attempts).to_string(),
            one.dead_lettered_messages.to_string(),
            units::rate(one.published_per_second),
            units::rate(one.delivered_per_second),
            units::rate(one.acked_per_second),
        ]);
    }
    table
}
