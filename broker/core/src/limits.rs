//! Every limit of the state machine, by name.

/// The most messages in one publish call.
pub const PUBLISH_MESSAGES_MAX: usize = 1_000;
/// The most topics, deleted ones that still have subscriptions included.
pub const TOPICS_MAX: usize = 10_000;
/// The most subscriptions.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// The most snapshots.
pub const SNAPSHOTS_MAX: usize = 5_000;
/// The largest access policy, in encoded bytes.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// The most bytes of all access policies together.
pub const POLICIES_BYTES_MAX: usize = 64 << 20;
/// The most consumers of one subscription at a time.
pub const CONSUMERS_MAX: usize = 10_000;
/// The most messages of one subscription that may be out on a lease at a time.
pub const OUTSTANDING_MESSAGES_MAX: usize = 100_000;
/// First deliveries of a subscription stall while this many of its messages wait for a backoff or a dead-letter topic.
pub const DELAYED_MESSAGES_MAX: usize = 100_000;
/// First deliveries of a subscription stall while this many of its messages wait for their turn: behind an earlier
/// message of their ordering key, or for a consumer that can take a redelivery.
pub const PARKED_MESSAGES_MAX: usize = 10_000;
/// The most messages that a subscription knows ahead of their first delivery. A load takes a sync of the journal, so that
/// fast consumers get no more than half of it from one sync to the next.
pub const WINDOW_MESSAGES_MAX: usize = 4_096;
/// The most messages that a subscription without a consumer keeps at hand, so that a pull is answered without a load.
pub const WINDOW_IDLE_MESSAGES_MAX: usize = 64;
/// The message credit of a consumer that asks for none or for more.
pub const CONSUMER_MESSAGES_MAX: u32 = 10_000;
/// The byte credit of a consumer that asks for none or for more.
pub const CONSUMER_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// The most leases and delays that one call of `handle_timeout` ends; the rest is due at once.
pub const TIMEOUTS_MAX: usize = 4_096;
/// How long a message waits at least, in milliseconds, when its dead-letter topic is gone, before that is tried again.
pub const FORWARD_RETRY_MS: u32 = 10_000;
/// A message that connections were lost with this many times in a row is a suspect: it may be what kills its consumers.
pub const LOSSES_MAX: u32 = 3;
/// How long a message waits, in milliseconds, when it becomes a suspect. Doubles with each further loss.
pub const SUSPECT_BACKOFF_MS_MIN: u64 = 1_000;
/// The longest that a suspect waits, in milliseconds, unless the retry policy says longer.
pub const SUSPECT_BACKOFF_MS_MAX: u64 = 60_000;
/// A stream gets suspects once it has acked something, or has lived for this many milliseconds, so that one that dies
/// anyway is not held against them.
pub const TRIAL_AFTER_MS: u64 = 5_000;
/// How long a stream gets nothing new, in milliseconds, so that it runs empty for the trial of a suspect; and how long
/// it goes on as ever, if it did not run empty, before that is tried again.
pub const TRIAL_DRAIN_MS: u64 = 10_000;
/// The activity of a subscription is written down when this many milliseconds have passed since the last time. It is
/// also how long each subscription lives at least after a restart, so that its clients can come back.
pub const ACTIVE_RECORD_MS: u64 = 60 * 60 * 1_000;
/// Of the messages that an exactly-once subscription acked last, this many are remembered with the leases that acked
/// them, so that an ack which is sent twice is told from one of an older lease.
pub const ACKS_REMEMBERED_MAX: usize = 10_000;

/// What a rate is the average over, in milliseconds.
pub const RATE_WINDOW_MS: u64 = 10_000;

/// The limits that a broker runs with; the default is the constants of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`PUBLISH_MESSAGES_MAX`].
    pub publish_messages_max: usize,
    /// See [`TOPICS_MAX`].
    pub topics_max: usize,
    /// See [`SUBSCRIPTIONS_MAX`].
    pub subscriptions_max: usize,
    /// See [`SNAPSHOTS_MAX`].
    pub snapshots_max: usize,
    /// See [`POLICIES_BYTES_MAX`].
    pub policies_bytes_max: usize,
    /// See [`CONSUMERS_MAX`].
    pub consumers_max: usize,
    /// See [`OUTSTANDING_MESSAGES_MAX`].
    pub outstanding_messages_max: usize,
    /// See [`DELAYED_MESSAGES_MAX`].
    pub delayed_messages_max: usize,
    /// See [`PARKED_MESSAGES_MAX`].
    pub parked_messages_max: usize,
    /// See [`WINDOW_MESSAGES_MAX`].
    pub window_messages_max: usize,
    /// See [`WINDOW_IDLE_MESSAGES_MAX`].
    pub window_idle_messages_max: usize,
    /// See [`CONSUMER_MESSAGES_MAX`].
    pub consumer_messages_max: u32,
    /// See [`CONSUMER_BYTES_MAX`].
    pub consumer_bytes_max: u64,
    /// See [`TIMEOUTS_MAX`].
    pub timeouts_max: usize,
    /// See [`FORWARD_RETRY_MS`].
    pub forward_retry_ms: u32,
    /// See [`ACKS_REMEMBERED_MAX`].
    pub acks_remembered_max: usize,
}

impl Limits {
    /// The most messages of one subscription that are held in memory at a time, whatever happens.
    pub fn held_messages_max(&self) -> usize {
        self.outstanding_messages_max + self.delayed_messages_max + self.parked_messages_max + self.window_messages_max
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            publish_messages_max: PUBLISH_MESSAGES_MAX,
            topics_max: TOPICS_MAX,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            snapshots_max: SNAPSHOTS_MAX,
            policies_bytes_max: POLICIES_BYTES_MAX,
            consumers_max: CONSUMERS_MAX,
            outstanding_messages_max: OUTSTANDING_MESSAGES_MAX,
            delayed_messages_max: DELAYED_MESSAGES_MAX,
            parked_messages_max: PARKED_MESSAGES_MAX,
            window_messages_max: WINDOW_MESSAGES_MAX,
            window_idle_messages_max: WINDOW_IDLE_MESSAGES_MAX,
            consumer_messages_max: CONSUMER_MESSAGES_MAX,
            consumer_bytes_max: CONSUMER_BYTES_MAX,
            timeouts_max: TIMEOUTS_MAX,
            forward_retry_ms: FORWARD_RETRY_MS,
            acks_remembered_max: ACKS_REMEMBERED_MAX,
        }
    }
}
