//! From the terms of the engine to the wire.

use broker_core::{FailReason, MessageState, ProjectName, Time};
use orderflow_proto::google::pubsub::v1::PubsubMessage;
use orderflow_proto::orderflow::broker::v1 as pb;

use super::super::parse::timestamp;
use super::super::settings;
use crate::engine::{MessageId, PeekedMessage, Redriven, SkipReason, Skipped, Stats, SubscriptionStats, TopicStats};

/// The figures of a project, or of all.
pub(super) fn stats(stats: &Stats, project: Option<&ProjectName>) -> pb::GetStatsResponse {
    let Stats { subscriptions, topics, journal, started, time } = stats;
    let within = |of: &str| project.is_none_or(|project| project.id() == of);
    let subscriptions = subscriptions
        .iter()
        .filter(|stats| within(stats.subscription.config.name.project()))
        .map(|stats| subscription(stats, *time));
    let topics = topics.iter().filter(|stats| within(stats.name.project())).map(topic);
    pb::GetStatsResponse {
        subscriptions: subscriptions.collect(),
        journal_bytes: journal.bytes,
        topics: topics.collect(),
        broker: Some(pb::BrokerStats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(timestamp(started.0)),
            uptime: Some(duration(started.0, time.0)),
            journal_segments: journal.segments,
            journal_syncs: journal.syncs,
            time: Some(timestamp(time.0)),
        }),
    }
}

fn subscription(stats: &SubscriptionStats, now: Time) -> pb::SubscriptionStats {
    let shown = settings::subscription(&stats.subscription);
    pb::SubscriptionStats {
        subscription: shown.name,
        topic: shown.topic,
        backlog_messages: stats.backlog_messages,
        outstanding_messages: stats.outstanding_messages,
        delayed_messages: stats.delayed_messages,
        consumers: stats.consumers,
        dead_lettered_messages: stats.totals.dead_lettered,
        backlog_bytes: stats.backlog_bytes,
        backlog_bytes_estimated: !stats.backlog_bytes_exact,
        oldest_unacked_publish_time: stats.oldest_unacked.map(|time| timestamp(time.0)),
        oldest_unacked_age: stats.oldest_unacked.map(|time| duration(time.0, now.0)),
        outstanding_bytes: stats.outstanding_bytes,
        acked_messages: stats.totals.acked,
        delivered_messages: stats.run.delivered,
        nacked_attempts: stats.totals.nacked,
        expired_attempts: stats.totals.expired,
        lost_attempts: stats.totals.lost,
        returned_leases: stats.run.returned,
        filtered_messages: stats.totals.filtered,
        expired_messages: stats.totals.too_old,
        redriven_messages: stats.totals.redriven,
        delivered_per_second: stats.rates.delivered,
        acked_per_second: stats.rates.acked,
        published_per_second: stats.rates.published,
        detached: stats.subscription.detached,
    }
}

fn topic(TopicStats { name, stats }: &TopicStats) -> pb::TopicStats {
    pb::TopicStats {
        topic: name.to_string(),
        subscriptions: u32::try_from(stats.subscriptions).unwrap_or(u32::MAX),
        published_messages: stats.published_messages,
        published_bytes: stats.published_bytes,
        retained_messages: stats.retained_messages,
        retained_bytes: stats.retained_bytes,
        published_per_second: stats.published_rate,
    }
}

/// One message of a backlog.
pub(super) fn peeked(peeked: PeekedMessage) -> pb::PeekedMessage {
    let PeekedMessage { message_id: MessageId(message_id), publish_time, message, data_bytes, state, failure } = peeked;
    let (state, until) = match state {
        MessageState::Waiting => (pb::MessageState::Waiting, None),
        MessageState::Outstanding(until) => (pb::MessageState::Outstanding, Some(until)),
        MessageState::Delayed(until) => (pb::MessageState::Delayed, Some(until)),
        MessageState::Forwarding => (pb::MessageState::Forwarding, None),
    };
    let reason = match failure.map(|failure| failure.reason) {
        None => pb::FailureReason::Unspecified,
        Some(FailReason::Nacked) => pb::FailureReason::Nacked,
        Some(FailReason::Expired) => pb::FailureReason::Expired,
        Some(FailReason::Lost) => pb::FailureReason::Lost,
    };
    pb::PeekedMessage {
        message: Some(PubsubMessage {
            data: message.data,
            attributes: message.attributes,
            message_id,
            publish_time: Some(timestamp(publish_time.0)),
            ordering_key: message.ordering_key,
        }),
        state: state.into(),
        failed_attempts: failure.map_or(0, |failure| failure.attempts),
        last_failure: reason.into(),
        data_bytes: data_bytes as u64,
        until_time: until.map(|until| timestamp(until.0)),
    }
}

/// What became of dead letters.
pub(super) fn redriven(redriven: Redriven) -> pb::RedriveDeadLettersResponse {
    let skipped = |Skipped { message_id: MessageId(message_id), why, source }| {
        let reason = match why {
            SkipReason::Outstanding => pb::RedriveSkipReason::Outstanding,
            SkipReason::SourceUnknown => pb::RedriveSkipReason::SourceUnknown,
            SkipReason::SourceNotFound => pb::RedriveSkipReason::SourceNotFound,
            SkipReason::SourceDetached => pb::RedriveSkipReason::SourceDetached,
            SkipReason::NotInBacklog => pb::RedriveSkipReason::NotInBacklog,
        };
        let source_subscription = source.map(|name| name.to_string()).unwrap_or_default();
        pb::SkippedDeadLetter { message_id, reason: reason.into(), source_subscription }
    };
    pb::RedriveDeadLettersResponse {
        redriven_messages: redriven.redriven,
        skipped_messages: redriven.skipped,
        skipped: redriven.shown.into_iter().map(skipped).collect(),
    }
}

/// The time between two points in time, none if they stand the other way round.
fn duration(from_ms: u64, to_ms: u64) -> prost_types::Duration {
    let ms = to_ms.saturating_sub(from_ms);
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    prost_types::Duration { seconds, nanos }
}
