//! The settings of topics and subscriptions. What has a range is a type of its own, checked where it is made.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::filter::Filter;
use crate::names::{SubscriptionName, TopicName};
use crate::push::PushConfig;

/// The shortest ack deadline of a subscription or stream, in milliseconds.
pub const ACK_DEADLINE_MS_MIN: u32 = 10_000;
/// The longest ack deadline, also by extension, in milliseconds.
pub const ACK_DEADLINE_MS_MAX: u32 = 600_000;
/// The ack deadline of a subscription that names none, in milliseconds.
pub const ACK_DEADLINE_MS_DEFAULT: u32 = 10_000;
/// The longest delay before a redelivery, in milliseconds.
pub const BACKOFF_MS_MAX: u32 = 600_000;
/// The fewest failed attempts after which a message may go to the dead-letter topic.
pub const ATTEMPTS_MIN: u32 = 5;
/// The most failed attempts after which a message goes to the dead-letter topic.
pub const ATTEMPTS_MAX: u32 = 100;
/// The shortest time for which messages can be kept, in milliseconds: 10 minutes.
pub const RETENTION_MS_MIN: u64 = 10 * 60 * 1_000;
/// The longest time for which messages can be kept, in milliseconds: 31 days.
pub const RETENTION_MS_MAX: u64 = 31 * DAY_MS;
/// How long a subscription keeps messages that says nothing else, in milliseconds: 7 days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * DAY_MS;
/// The shortest time without activity after which a subscription can be deleted, in milliseconds: a day.
pub const EXPIRATION_MS_MIN: u64 = DAY_MS;
/// The time without activity after which a subscription is deleted that says nothing else, in milliseconds: 31 days.
pub const EXPIRATION_MS_DEFAULT: u64 = 31 * DAY_MS;
/// The most labels on one resource.
pub const LABELS_MAX: usize = 64;
/// The longest key or value of a label, in characters.
pub const LABEL_CHARS_MAX: usize = 63;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A topic as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// The full name.
    pub name: TopicName,
    /// What its owner noted on it.
    pub labels: Labels,
    /// For how long it keeps every message, so that any subscription can go back to it; none keeps only what a
    /// subscription or a snapshot needs.
    pub retention: Option<Retention>,
}

impl TopicConfig {
    /// A topic with every setting at its default.
    pub fn new(name: TopicName) -> Self {
        TopicConfig { name, labels: Labels::default(), retention: None }
    }
}

/// A subscription as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionConfig {
    /// The full name.
    pub name: SubscriptionName,
    /// The topic that it was created on.
    pub topic: TopicName,
    /// How long a lease lasts for a consumer that does not say otherwise.
    pub ack_deadline: AckDeadline,
    /// What its owner noted on it.
    pub labels: Labels,
    /// Whether messages with the same ordering key arrive in the order of their publication.
    pub ordering: bool,
    /// How long a failed message waits; without a policy it comes back at once.
    pub retry: Option<RetryPolicy>,
    /// Where a message goes that keeps failing; without a policy it is tried for ever.
    pub dead_letter: Option<DeadLetterPolicy>,
    /// Which messages it sees; none sees all. Never changes.
    pub filter: Option<Filter>,
    /// Whether it can go back to messages that it has acked.
    pub retain_acked: bool,
    /// For how long it keeps messages: those that nobody acks, and with `retain_acked` also those that were.
    pub retention: Retention,
    /// Whether only the lease that stands can ack a message.
    pub exactly_once: bool,
    /// After how long without activity it is deleted; none is never.
    pub expiration: Option<Expiration>,
    /// Where its messages are pushed to; none waits for them to be pulled.
    pub push: Option<PushConfig>,
}

impl SubscriptionConfig {
    /// A subscription with every setting at its default.
    pub fn new(name: SubscriptionName, topic: TopicName) -> Self {
        SubscriptionConfig {
            name,
            topic,
            ack_deadline: AckDeadline::default(),
            labels: Labels::default(),
            ordering: false,
            retry: None,
            dead_letter: None,
            filter: None,
            retain_acked: false,
            retention: Retention::default(),
            exactly_once: false,
            expiration: Some(Expiration::default()),
            push: None,
        }
    }
}

/// How long a lease lasts: 10 to 600 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckDeadline(u32);

impl AckDeadline {
    /// A deadline in milliseconds, refused outside of [`ACK_DEADLINE_MS_MIN`] to [`ACK_DEADLINE_MS_MAX`].
    pub fn from_ms(ms: u32) -> Result<Self, Error> {
        if !(ACK_DEADLINE_MS_MIN..=ACK_DEADLINE_MS_MAX).contains(&ms) {
            let why = format!("{ms} ms is not within {ACK_DEADLINE_MS_MIN} to {ACK_DEADLINE_MS_MAX} ms");
            return Err(Error::InvalidArgument { field: "ack_deadline", why });
        }
        Ok(AckDeadline(ms))
    }

    /// The deadline in milliseconds.
    pub fn ms(self) -> u32 {
        self.0
    }
}

impl Default for AckDeadline {
    fn default() -> Self {
        AckDeadline(ACK_DEADLINE_MS_DEFAULT)
    }
}

/// For how long messages are kept: 10 minutes to 31 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention(u64);

impl Retention {
    /// A time in milliseconds, refused outside of [`RETENTION_MS_MIN`] to [`RETENTION_MS_MAX`].
    pub fn from_ms(ms: u64) -> Result<Self, Error> {
        if !(RETENTION_MS_MIN..=RETENTION_MS_MAX).contains(&ms) {
            let why = format!("{ms} ms is not within {RETENTION_MS_MIN} to {RETENTION_MS_MAX} ms");
            return Err(Error::InvalidArgument { field: "message_retention_duration", why });
        }
        Ok(Retention(ms))
    }

    /// The time in milliseconds.
    pub fn ms(self) -> u64 {
        self.0
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention(RETENTION_MS_DEFAULT)
    }
}

/// After how long without activity a subscription is deleted: a day or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiration(u64);

impl Expiration {
    /// A time in milliseconds, refused below [`EXPIRATION_MS_MIN`].
    pub fn from_ms(ms: u64) -> Result<Self, Error> {
        if ms < EXPIRATION_MS_MIN {
            let why = format!("{ms} ms is less than {EXPIRATION_MS_MIN} ms");
            return Err(Error::InvalidArgument { field: "expiration_policy.ttl", why });
        }
        Ok(Expiration(ms))
    }

    /// The time in milliseconds.
    pub fn ms(self) -> u64 {
        self.0
    }
}

impl Default for Expiration {
    fn default() -> Self {
        Expiration(EXPIRATION_MS_DEFAULT)
    }
}

/// The delay before a redelivery: it doubles with each failed attempt from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    backoff_ms_min: u32,
    backoff_ms_max: u32,
}

impl RetryPolicy {
    /// Delays in milliseconds, each 0 to [`BACKOFF_MS_MAX`], the least not above the most.
    pub fn new(backoff_ms_min: u32, backoff_ms_max: u32) -> Result<Self, Error> {
        let range = |field, ms| {
            if ms > BACKOFF_MS_MAX {
                let why = format!("{ms} ms is not within 0 to {BACKOFF_MS_MAX} ms");
                return Err(Error::InvalidArgument { field, why });
            }
            Ok(())
        };
        range("retry_policy.minimum_backoff", backoff_ms_min)?;
        range("retry_policy.maximum_backoff", backoff_ms_max)?;
        if backoff_ms_min > backoff_ms_max {
            let why = format!("{backoff_ms_min} ms is more than the maximum backoff of {backoff_ms_max} ms");
            return Err(Error::InvalidArgument { field: "retry_policy.minimum_backoff", why });
        }
        Ok(RetryPolicy { backoff_ms_min, backoff_ms_max })
    }

    /// The delay after the first failed attempt.
    pub fn backoff_ms_min(&self) -> u32 {
        self.backoff_ms_min
    }

    /// The longest delay.
    pub fn backoff_ms_max(&self) -> u32 {
        self.backoff_ms_max
    }
}

/// Where a message goes after too many failed attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterPolicy {
    topic: TopicName,
    attempts_max: u32,
}

impl DeadLetterPolicy {
    /// A policy; `attempts_max` outside of [`ATTEMPTS_MIN`] to [`ATTEMPTS_MAX`] is refused.
    pub fn new(topic: TopicName, attempts_max: u32) -> Result<Self, Error> {
        if !(ATTEMPTS_MIN..=ATTEMPTS_MAX).contains(&attempts_max) {
            let why = format!("{attempts_max} is not within {ATTEMPTS_MIN} to {ATTEMPTS_MAX}");
            return Err(Error::InvalidArgument { field: "dead_letter_policy.max_delivery_attempts", why });
        }
        Ok(DeadLetterPolicy { topic, attempts_max })
    }

    /// The dead-letter topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The failed attempt with this number is the last.
    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }
}

/// What the owner of a resource noted on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Labels: at most [`LABELS_MAX`], keys of 1 and values of 0 up to [`LABEL_CHARS_MAX`] characters.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, Error> {
        let invalid = |why| Err(Error::InvalidArgument { field: "labels", why });
        if labels.len() > LABELS_MAX {
            return invalid(format!("{} labels are more than {LABELS_MAX}", labels.len()));
        }
        for (key, value) in &labels {
            if key.is_empty() || key.chars().count() > LABEL_CHARS_MAX {
                return invalid(format!("key `{key}` does not have 1 to {LABEL_CHARS_MAX} characters"));
            }
            if value.chars().count() > LABEL_CHARS_MAX {
                return invalid(format!("the value of `{key}` has more than {LABEL_CHARS_MAX} characters"));
            }
        }
        Ok(Labels(labels))
    }

    /// The labels by key.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}
