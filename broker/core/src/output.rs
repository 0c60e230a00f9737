//! What a call gives back: records for the journal, effects for after they are durable, outcomes for the caller.

use crate::config::AckDeadline;
use crate::ids::{ConsumerId, LeaseId, Meta, Seq, SubscriptionId, TopicId};
use crate::names::SubscriptionName;
use crate::record::{FailReason, Record};

/// Filled by every `handle_*` call, which only appends. The caller drains and reuses it.
///
/// **Invariant:** no effect is released, and no reply is sent, before every record that stands in front of it is
/// durable; both are released in order.
#[derive(Debug, Default)]
pub struct Output {
    /// To be written, in order.
    pub records: Vec<Record>,
    /// To be carried out once the records are durable, in order.
    pub effects: Vec<Effect>,
}

impl Output {
    /// An empty output.
    pub fn new() -> Self {
        Output::default()
    }

    /// Empties both lists and keeps their memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.effects.clear();
    }
}

/// Something that the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand messages to a consumer. A consumer of [`ConsumerKind::Pull`] is detached by its first delivery.
    Deliver {
        /// To whom.
        consumer: ConsumerId,
        /// Of which subscription.
        subscription: SubscriptionId,
        /// The topic that the messages are stored under, which may be deleted by name.
        topic: TopicId,
        /// What, at least one.
        messages: Vec<Delivery>,
    },
    /// Read what is known of the next messages and call `handle_loaded`. A subscription has one load under way.
    Load {
        /// For whom.
        subscription: SubscriptionId,
        /// From which topic.
        topic: TopicId,
        /// The first message that is wanted.
        from: Seq,
        /// How many at most.
        messages_max: usize,
    },
    /// Read the body of a message that failed too often and call `handle_forwarded`.
    Forward {
        /// The subscription that gives it up.
        subscription: SubscriptionId,
        /// The topic that the message is stored under.
        topic: TopicId,
        /// Which message.
        seq: Seq,
        /// The dead-letter topic.
        to: TopicId,
        /// How many attempts have failed.
        attempts: u32,
        /// Why the last one failed.
        reason: FailReason,
    },
    /// End a consumer's stream or pull; the core has forgotten it.
    ConsumerClosed {
        /// Whose.
        consumer: ConsumerId,
        /// Why.
        reason: CloseReason,
    },
}

/// One message on one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which message.
    pub seq: Seq,
    /// The lease that acks it.
    pub lease: LeaseId,
    /// The failed attempts so far plus one.
    pub attempt: u32,
    /// Its size, as it counts against the credit.
    pub bytes: u32,
}

/// Why a consumer was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Its subscription was deleted, or has expired.
    SubscriptionDeleted,
    /// Its subscription was cut off its topic.
    SubscriptionDetached,
    /// Its subscription went from pull to push, back, or to another endpoint.
    Switched,
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The most messages that it holds at a time; 0 stands for the most that is possible.
    pub messages_max: u32,
    /// The most bytes that it holds at a time; 0 stands for the most that is possible. One message that is larger is
    /// delivered when the consumer holds nothing else.
    pub bytes_max: u64,
    /// How long its leases last.
    pub ack_deadline: AckDeadline,
    /// How often it is delivered to.
    pub kind: ConsumerKind,
}

/// How often a consumer is delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerKind {
    /// Until it is detached.
    Stream,
    /// Once: its first delivery detaches it gracefully.
    Pull,
}

/// How a consumer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// It said goodbye: its leases run on to their deadlines.
    Graceful,
    /// Its process is gone: its leases are returned at once, and no attempt is counted, unless it had nothing but one
    /// message that connections were lost with again and again (see [`crate::LOSSES_MAX`]).
    ConnectionLost,
}

/// The messages of a publish call got the numbers `first..first + count` in `topic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The topic.
    pub topic: TopicId,
    /// The number of the first message.
    pub first: Seq,
    /// How many.
    pub count: u32,
}

/// A dead letter that is to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The subscription that has it.
    pub subscription: SubscriptionName,
    /// Its number in the topic of that subscription.
    pub seq: Seq,
    /// Its size there.
    pub bytes: u32,
    /// The subscription that it came from.
    pub target: SubscriptionName,
    /// As it will be there.
    pub meta: Meta,
}

/// What became of a dead letter that was to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveOutcome {
    /// It got this number in the topic that its subscription reads.
    Redriven(TopicId, Seq),
    /// A consumer holds it, or it is on its way to the next dead-letter topic; it stays.
    Outstanding,
    /// It is not in the backlog.
    NotUnacked,
    /// There is no subscription of the name that it came from; it stays.
    TargetNotFound,
    /// That subscription is detached; it stays.
    TargetDetached,
}

/// One delivery, as an ack id names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRef {
    /// The subscription that delivered. One that does not stand behind the given name acks nothing.
    pub subscription: SubscriptionId,
    /// The message.
    pub seq: Seq,
    /// The lease.
    pub lease: LeaseId,
}

/// All messages of a subscription or topic before `before` are older than it keeps them. The caller knows the times of
/// publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Who keeps them no longer.
    pub keeper: Keeper,
    /// The first message that is not too old.
    pub before: Seq,
}

/// Who keeps messages for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeper {
    /// A topic, by its own retention.
    Topic(TopicId),
    /// A subscription.
    Subscription(SubscriptionId),
}

/// What became of one ack.
///
/// Each outcome is final: asking again gives no better one. What the core cannot answer yet is for the caller to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// The message is acked now.
    Acked,
    /// It was acked or dead-lettered before.
    AlreadyAcked,
    /// The lease has ended, and the subscription takes no ack from such a lease. The message will come again.
    Stale,
    /// No such lease was ever given.
    Unknown,
}

/// What became of one change of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModifyOutcome {
    /// The lease ends at the new deadline.
    Extended,
    /// The message was given back: a failed attempt.
    Nacked,
    /// The lease has ended before, or never was; nothing has changed.
    Stale,
}
