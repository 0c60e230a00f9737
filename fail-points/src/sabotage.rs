//! Promises that are broken on purpose, so that a checker can be seen to notice.

/// A promise that a sabotaged build breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The outbox forgets an event before the broker has it.
    OutboxMarkedFirst,
    /// Every delivery is taken for a new event.
    NoInbox,
    /// A consumer acks before it has done anything.
    AckBeforeCommit,
    /// The broker replies to a publish before it has written anything down.
    BrokerRepliesFirst,
    /// The broker takes acks to heart and does not write them down.
    BrokerForgetsAcks,
    /// The broker pays no attention to ordering keys.
    BrokerIgnoresOrder,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 6] = [
        Self::OutboxMarkedFirst,
        Self::NoInbox,
        Self::AckBeforeCommit,
        Self::BrokerRepliesFirst,
        Self::BrokerForgetsAcks,
        Self::BrokerIgnoresOrder,
    ];

    /// The name that `SABOTAGE` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutboxMarkedFirst => "outbox-marked-first",
            Self::NoInbox => "no-inbox",
            Self::AckBeforeCommit => "ack-before-commit",
            Self::BrokerRepliesFirst => "broker-replies-first",
            Self::BrokerForgetsAcks => "broker-forgets-acks",
            Self::BrokerIgnoresOrder => "broker-ignores-order",
        }
    }
}

/// Whether this promise is to be broken. Without the feature `sabotage` it never is, and the compiler knows.
#[cfg(not(feature = "sabotage"))]
pub const fn broken(_: Fault) -> bool {
    false
}

/// Whether this promise is to be broken.
#[cfg(feature = "sabotage")]
pub fn broken(fault: Fault) -> bool {
    static FAULT: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("SABOTAGE").ok());
    FAULT.as_deref() == Some(fault.name())
}
