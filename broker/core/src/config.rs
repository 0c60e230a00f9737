//! The settings of topics and subscriptions. What has a range is a type of its own, checked where it is made.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::names::{SubscriptionName, TopicName};

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
/// The most labels on one resource.
pub const LABELS_MAX: usize = 64;
/// The longest key or value of a label, in characters.
pub const LABEL_CHARS_MAX: usize = 63;

/// A topic as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// The full name.
    pub name: TopicName,
    /// What its owner noted on it.
    pub labels: Labels,
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
