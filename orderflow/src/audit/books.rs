//! The books of all who keep some.

use std::error::Error as _;

use crate::acquirer::ClientError;

/// An amount in minor units of its currency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    /// ISO 4217.
    pub currency: String,
    /// In minor units.
    pub amount_minor: i64,
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// Waits for its payment.
    Pending,
    /// Was paid.
    Paid,
    /// Was paid, and waits for its money to go back.
    RefundPending,
    /// Was declined, for this reason.
    Declined(String),
    /// Was accepted, and ended without money.
    Cancelled,
    /// A synchronous try that got no answer about its payment: the customer was told no, and may try again under the
    /// same key. order-service keeps it as cancelled.
    Refused,
    /// Was paid, and the money went back.
    Refunded,
}

impl OrderState {
    /// Whether it ended without money, whatever the customer was told.
    pub(crate) fn was_given_up(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Refused)
    }

    /// Whether the order was paid, whatever came later.
    pub(crate) fn was_paid(&self) -> bool {
        matches!(self, Self::Paid | Self::RefundPending | Self::Refunded)
    }
}

/// An order, as order-service tells it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// Who placed it.
    pub customer: String,
    /// What it costs.
    pub total: Money,
    /// Where it stands.
    pub state: OrderState,
    /// The number of its invoice; empty until it is paid.
    pub invoice: String,
}

/// How a payment stands, as payment-service tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The acquirer has not answered yet.
    Pending,
    /// Money was taken, under this id of the acquirer.
    Captured(String),
    /// The card was refused, for this reason.
    Declined(String),
    /// No money was taken, and none can be any more.
    Voided,
    /// The money went back.
    Refunded,
}

/// A payment, as payment-service tells it.
#[derive(Clone, Debug)]
pub struct Payment {
    /// What it is for.
    pub order: String,
    /// How much.
    pub amount: Money,
    /// How it stands.
    pub outcome: Outcome,
    /// Whether the capture was told; a charge that a cancellation overtook is not.
    pub capture_told: bool,
    /// How many of its tries were declined.
    pub declines: usize,
}

/// How a charge stands, as the acquirer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeState {
    /// Money is held, neither taken nor let go.
    Held,
    /// Money was taken.
    Captured,
    /// No money was taken, or what was held was let go.
    Nothing,
    /// All of the money that was taken went back.
    Refunded,
}

/// A charge, as the acquirer's ledger tells it.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The acquirer's id.
    pub id: String,
    /// What it is for.
    pub order: String,
    /// How much.
    pub amount: Money,
    /// How much of it went back, in minor units.
    pub refunded_minor: i64,
    /// How it stands.
    pub state: ChargeState,
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The order has arrived.
    OrderReceived,
    /// The card was charged.
    PaymentCaptured,
    /// The card was refused.
    PaymentDeclined,
    /// The order is complete.
    OrderConfirmed,
    /// The order was cancelled.
    OrderCancelled,
    /// The money went back.
    PaymentRefunded,
    /// The invoice is there.
    InvoiceReady,
    /// A kind that this version doesn't know.
    Unknown(i32),
}

/// A notification, as notification-service tells it.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Who is told.
    pub customer: String,
    /// The customer's count.
    pub number: i64,
    /// About which order.
    pub order: String,
    /// About what.
    pub kind: Kind,
}

/// An invoice, as notification-service keeps it.
#[derive(Clone, Debug)]
pub struct Invoice {
    /// Its number.
    pub number: String,
    /// What it is for.
    pub order: String,
    /// About how much.
    pub total: Money,
}

/// A message that nobody could handle.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Which order it is about; empty if that can't be told.
    pub order: String,
    /// Why it lies there.
    pub reason: String,
}

/// A queue between two parts of the suite.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its subscription: `payment-service.order-events`.
    pub name: String,
    /// How much waits in it.
    pub messages: u64,
}

/// All books at one time, as far as that exists while orders flow.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// From order-service.
    pub orders: Vec<Order>,
    /// From payment-service.
    pub payments: Vec<Payment>,
    /// From the acquirer's ledger, refusals included.
    pub charges: Vec<Charge>,
    /// From notification-service: of every customer who has an order.
    pub notifications: Vec<Notification>,
    /// From notification-service.
    pub invoices: Vec<Invoice>,
    /// Messages that wait for an operator.
    pub dead_letters: Vec<DeadLetter>,
    /// From the broker: every queue in which work of the suite may wait.
    pub queues: Vec<Queue>,
}

/// Why the books could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is none.
    #[error("`{url}` is no address: {source}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// A service did not tell.
    #[error("{service} at {url} {}", told(status))]
    Grpc {
        /// Which one.
        service: &'static str,
        /// Where it was asked.
        url: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// The acquirer did not tell.
    #[error("the ledger at {url} can't be read: {source}")]
    Acquirer {
        /// Where it was asked for.
        url: String,
        /// Why not.
        source: ClientError,
    },
    /// A reply lacks what it must have.
    #[error("{service} sent an entry without `{field}`")]
    Incomplete {
        /// Which one.
        service: &'static str,
        /// What is missing.
        field: &'static str,
    },
}

/// A refusal carries words of the service; a missing answer has a cause worth more than the transport's words.
fn told(status: &tonic::Status) -> String {
    match status.source() {
        Some(cause) => format!("does not answer: {}", service_kit::status::root(cause)),
        None => format!("refuses: {}", status.message()),
    }
}

impl Error {
    /// What to make of a status of that service.
    pub(crate) fn grpc(service: &'static str, url: &str) -> impl Fn(tonic::Status) -> Self {
        let url = url.to_owned();
        move |status| Self::Grpc { service, url: url.clone(), status: Box::new(status) }
    }
}
