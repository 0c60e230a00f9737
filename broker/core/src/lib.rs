//! The delivery state machine of the broker: topics, subscriptions, leases.
//!
//! It does no I/O, runs no task, reads no clock and has no randomness of its own: it is told the time, the seed and
//! what happened, and says what to write and what to do. The caller
//!
//! 1. restores: [`Recovery::restore`] with the newest snapshot, [`Recovery::apply`] for each record after it,
//!    [`Recovery::begin`];
//! 2. passes each input to a `handle_*` method of [`Broker`], which appends to an [`Output`];
//! 3. writes the output's records, and only when they are durable carries out its effects and sends the reply, in order;
//! 4. calls [`Broker::handle_timeout`] when [`Broker::poll_timeout`] is due.
//!
//! Decide, record, apply: durable state changes by [`Record`]s alone, live and in replay through the same function, so
//! what a restart restores is what stood before. Leases, consumers and timers are not durable: a restart begins without.

mod acked;
mod broker;
mod config;
mod durable;
mod error;
mod filter;
mod ids;
mod limits;
mod meter;
mod names;
mod output;
mod policy;
mod push;
mod queue;
mod record;
mod recovery;
mod snapshot;
mod timers;
mod view;

pub use acked::AckedSet;
pub use broker::Broker;
pub use config::{
    ACK_DEADLINE_MS_DEFAULT, ACK_DEADLINE_MS_MAX, ACK_DEADLINE_MS_MIN, ATTEMPTS_MAX, ATTEMPTS_MIN, AckDeadline,
    BACKOFF_MS_MAX, DeadLetterPolicy, EXPIRATION_MS_DEFAULT, EXPIRATION_MS_MIN, Expiration, LABEL_CHARS_MAX,
    LABELS_MAX, Labels, RETENTION_MS_DEFAULT, RETENTION_MS_MAX, RETENTION_MS_MIN, Retention, RetryPolicy,
    SubscriptionConfig, TopicConfig,
};
pub use error::{Error, ReplayError};
pub use filter::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, Filter, FilterError};
pub use ids::{ConsumerId, KeyHash, LeaseId, Meta, Seq, SubscriptionId, Time, TopicId};
pub use limits::*;
pub use names::{
    DELETED_TOPIC, ID_CHARS_MAX, ID_CHARS_MIN, NameError, PROJECT_CHARS_MAX, ProjectName, SnapshotName,
    SubscriptionName, TopicName,
};
pub use output::{
    AckOutcome, AckRef, Attach, CloseReason, ConsumerKind, Cut, DeadLetter, Delivery, Detach, Effect, Keeper,
    ModifyOutcome, Output, Published, RedriveOutcome,
};
pub use policy::{Policy, Resource, ResourceName};
pub use push::{PUSH_ENDPOINT_BYTES_MAX, PushBody, PushConfig, PushVersion};
pub use record::{FailReason, Filtered, Record, SeekTo, SeqRange};
pub use recovery::Recovery;
pub use snapshot::{Bookmark, Failure, Snapshot, SubscriptionSnapshot, TopicSnapshot};
pub use view::{
    MessageState, Peeked, Rates, Retained, RunTotals, SnapshotView, SubscriptionStats, SubscriptionView, TopicStats,
    TopicView, Totals,
};
