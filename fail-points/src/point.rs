//! The places.

/// A place between two steps, where a death is most likely to tear something apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// order-service has committed an order and has not answered.
    OrderCommitted,
    /// order-service has committed the outcome of a payment and has not acked its event.
    OrderSettled,
    /// The relay's events are at the broker and still in the outbox.
    RelayPublished,
    /// The acquirer has answered a charge that payment-service has not written down.
    PaymentCharged,
    /// payment-service has committed and has not acked.
    PaymentCommitted,
    /// notification-service has committed and has not acked.
    NotificationCommitted,
    /// invoice-worker's invoice is at the broker and its job is not acked.
    InvoicePublished,
    /// The acquirer's ledger has a charge of which nobody has heard.
    AcquirerCommitted,
    /// The broker has appended to its journal and not synced.
    BrokerAppended,
    /// The broker has synced its journal and not replied.
    BrokerSynced,
    /// The broker has got an ack and not recorded it.
    BrokerAcked,
}

impl Point {
    /// Every place.
    pub const ALL: [Self; 11] = [
        Self::OrderCommitted,
        Self::OrderSettled,
        Self::RelayPublished,
        Self::PaymentCharged,
        Self::PaymentCommitted,
        Self::NotificationCommitted,
        Self::InvoicePublished,
        Self::AcquirerCommitted,
        Self::BrokerAppended,
        Self::BrokerSynced,
        Self::BrokerAcked,
    ];

    /// The name that `FAIL_POINTS` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderCommitted => "order.committed",
            Self::OrderSettled => "order.settled",
            Self::RelayPublished => "relay.published",
            Self::PaymentCharged => "payment.charged",
            Self::PaymentCommitted => "payment.committed",
            Self::NotificationCommitted => "notification.committed",
            Self::InvoicePublished => "invoice.published",
            Self::AcquirerCommitted => "acquirer.committed",
            Self::BrokerAppended => "broker.appended",
            Self::BrokerSynced => "broker.synced",
            Self::BrokerAcked => "broker.acked",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }
}
