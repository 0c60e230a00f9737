//! How topics, subscriptions, journal and process stand, as series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::engine::{Stats, SubscriptionStats, TopicStats};

/// The figures of one moment.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) stats: Stats,
}

impl Collector for Series {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_subscriptions(&mut encoder)?;
        self.encode_attempts(&mut encoder)?;
        self.encode_topics(&mut encoder)?;
        self.encode_broker(&mut encoder)
    }
}

type OfSubscription<N> = fn(&SubscriptionStats) -> N;
type OfTopic = fn(&TopicStats) -> u64;

impl Series {
    fn encode_subscriptions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauges: [(&str, &str, OfSubscription<u64>); 6] = [
            ("backlog_messages", "Messages that are not acked", |stats| stats.backlog_messages),
            ("backlog_bytes", "Bytes of the messages that are not acked", |stats| stats.backlog_bytes),
            ("outstanding_messages", "Messages out on a lease", |stats| stats.outstanding_messages),
            ("outstanding_bytes", "Bytes of the messages out on a lease", |stats| stats.outstanding_bytes),
            ("delayed_messages", "Messages that wait for their backoff", |stats| stats.delayed_messages),
            ("consumers", "Open streams and waiting pulls", |stats| stats.consumers.into()),
        ];
        for (name, help, value) in gauges {
            let name = format!("broker_subscription_{name}");
            let values = self.stats.subscriptions.iter().map(|stats| (stats, float(value(stats))));
            gauge(encoder, &name, help, values)?;
        }
        let age = |stats: &SubscriptionStats| {
            let since = stats.oldest_unacked.unwrap_or(self.stats.time);
            float(self.stats.time.0.saturating_sub(since.0)) / 1_000.0
        };
        let ages = self.stats.subscriptions.iter().map(|stats| (stats, age(stats)));
        gauge(encoder, "broker_subscription_oldest_unacked_age_seconds", "Age of the oldest message not acked", ages)?;
        let counters: [(&str, &str, OfSubscription<u64>); 7] = [
            ("acked_messages", "Messages acked", |stats| stats.totals.acked),
            ("delivered_messages", "Deliveries since the start", |stats| stats.run.delivered),
            ("dead_lettered_messages", "Messages sent to the dead-letter topic", |stats| stats.totals.dead_lettered),
            ("redriven_messages", "Dead letters sent back", |stats| stats.totals.redriven),
            ("filtered_messages", "Messages that the filter kept out", |stats| stats.totals.filtered),
            ("expired_messages", "Messages that became too old", |stats| stats.totals.too_old),
            ("returned_leases", "Leases that came back uncounted since the start", |stats| stats.run.returned),
        ];
        for (name, help, value) in counters {
            let name = format!("broker_subscription_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for stats in &self.stats.subscriptions {
                let labels = [("subscription", stats.subscription.config.name.as_str())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(stats), None)?;
            }
        }
        Ok(())
    }

    fn encode_attempts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let reasons: [(&str, OfSubscription<u64>); 3] = [
            ("nacked", |stats| stats.totals.nacked),
            ("expired", |stats| stats.totals.expired),
            ("lost", |stats| stats.totals.lost),
        ];
        let (name, help) = ("broker_subscription_failed_attempts", "Delivery attempts that failed");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for stats in &self.stats.subscriptions {
            for (reason, value) in reasons {
                let labels = [("subscription", stats.subscription.config.name.as_str()), ("reason", reason)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(stats), None)?;
            }
        }
        Ok(())
    }

    fn encode_topics(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures: [(&str, &str, MetricType, OfTopic); 5] = [
            ("published_messages", "Messages published", MetricType::Counter, |topic| topic.stats.published_messages),
            ("published_bytes", "Bytes published", MetricType::Counter, |topic| topic.stats.published_bytes),
            ("retained_messages", "Messages kept", MetricType::Gauge, |topic| topic.stats.retained_messages),
            ("retained_bytes", "Bytes kept, about", MetricType::Gauge, |topic| topic.stats.retained_bytes),
            ("subscriptions", "Subscriptions", MetricType::Gauge, |topic| topic.stats.subscriptions as u64),
        ];
        for (name, help, kind, value) in figures {
            let name = format!("broker_topic_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
            for topic in &self.stats.topics {
                let labels = [("topic", topic.name.as_str())];
                let mut one = metric.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => one.encode_counter::<NoLabelSet, _, u64>(&value(topic), None)?,
                    _ => one.encode_gauge(&float(value(topic)))?,
                }
            }
        }
        Ok(())
    }

    fn encode_broker(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Stats { journal, started, .. } = &self.stats;
        plain(encoder, "broker_journal_bytes", "Bytes of the journal on disk", &float(journal.bytes))?;
        plain(encoder, "broker_journal_segments", "Files of the journal", &float(journal.segments))?;
        let started = float(started.0) / 1_000.0;
        plain(encoder, "process_start_time_seconds", "Start, in seconds since the Unix epoch", &started)?;
        if let Some(bytes) = resident_bytes() {
            plain(encoder, "process_resident_memory_bytes", "Resident memory", &float(bytes))?;
        }
        let mut build = encoder.encode_descriptor("broker_build", "The broker's version", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

fn gauge<'s>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'s SubscriptionStats, f64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (stats, value) in values {
        let labels = [("subscription", stats.subscription.config.name.as_str())];
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn plain(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
}

/// As precise as Prometheus is.
fn float(number: u64) -> f64 {
    number as f64
}

/// What the process has in memory, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
