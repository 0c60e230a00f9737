//! The books of all who keep some, read through their public doors.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use orderflow_proto::orderflow::broker::v1::GetStatsRequest;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use orderflow_proto::orderflow::notification::v1 as notification;
use orderflow_proto::orderflow::order::v1 as order;
use orderflow_proto::orderflow::payment::v1 as payment;
use orderflow_proto::orderflow::r#type::v1::Money as WireMoney;
use tonic::transport::{Channel, Endpoint};

use super::Addresses;
use crate::acquirer::{AcquirerClient, ChargeStatus, ClientError, LedgerEntry};

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Entries asked for in one page; the services give no more.
const PAGE_SIZE: i32 = 1_000;
/// The subscription that keeps what nobody could handle.
const DEAD_LETTERS: &str = "/subscriptions/operator.dead-letters";

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
    /// Was declined, for this reason.
    Declined(String),
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
}

/// How a payment or a charge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Money was taken, under this id of the acquirer.
    Captured(String),
    /// The card was refused, for this reason.
    Declined(String),
}

/// A payment as payment-service tells it, or a charge as the acquirer does.
#[derive(Clone, Debug)]
pub struct Payment {
    /// What it is for.
    pub order: String,
    /// How much.
    pub amount: Money,
    /// How it ended.
    pub outcome: Outcome,
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

/// All books at one time, as far as that exists while orders flow.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// From order-service.
    pub orders: Vec<Order>,
    /// From payment-service.
    pub payments: Vec<Payment>,
    /// From the acquirer's ledger, refusals included.
    pub charges: Vec<Payment>,
    /// From notification-service: of every customer who has an order.
    pub notifications: Vec<Notification>,
    /// Messages that wait for an operator.
    pub dead_letters: u64,
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

impl Books {
    /// Asks everybody.
    pub async fn read(addresses: &Addresses) -> Result<Self, Error> {
        let Addresses { broker, acquirer, order_service, payment_service, notification_service } = addresses;
        // Before anybody is asked, every address must be one.
        for url in [broker, order_service, payment_service, notification_service] {
            channel(url)?;
        }
        // Orders first: a charge comes before the order counts as paid, so whatever is paid here has its charge there.
        // Orders that are accepted while the rest is read look like charges without an order until the next reading.
        let orders = orders(order_service).await?;
        let payments = payments(payment_service).await?;
        let charges = charges(acquirer).await?;
        let customers: BTreeSet<&str> = orders.iter().map(|order| order.customer.as_str()).collect();
        let notifications = notifications(notification_service, customers).await?;
        let dead_letters = dead_letters(broker).await?;
        Ok(Self { orders, payments, charges, notifications, dead_letters })
    }
}

pub(crate) fn channel(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|source| Error::Address { url: url.to_owned(), source })?;
    Ok(endpoint.connect_timeout(CALL_WITHIN).timeout(CALL_WITHIN).connect_lazy())
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

async fn charges(url: &str) -> Result<Vec<Payment>, Error> {
    let ledger = AcquirerClient::new(url, CALL_WITHIN).ledger().await;
    let ledger = ledger.map_err(|source| Error::Acquirer { url: url.to_owned(), source })?;
    let payment = |entry: LedgerEntry| {
        let charge = entry.charge;
        let outcome = match charge.status {
            ChargeStatus::Captured => Outcome::Captured(charge.id),
            ChargeStatus::Declined => Outcome::Declined(charge.reason.unwrap_or_default()),
            ChargeStatus::Authorised | ChargeStatus::Voided | ChargeStatus::Refunded => {
                return Err(Error::Incomplete { service: "the acquirer", field: "status" });
            }
        };
        let amount = Money { currency: charge.currency, amount_minor: charge.amount_minor };
        Ok(Payment { order: charge.reference, amount, outcome })
    };
    ledger.into_iter().map(payment).collect()
}

async fn payments(url: &str) -> Result<Vec<Payment>, Error> {
    const SERVICE: &str = "payment-service";
    let mut client = payment::payment_service_client::PaymentServiceClient::new(channel(url)?);
    let mut all = Vec::new();
    let mut request = payment::ListPaymentsRequest { page_size: PAGE_SIZE, ..Default::default() };
    loop {
        let page = client.list_payments(request.clone()).await.map_err(Error::grpc(SERVICE, url))?.into_inner();
        for payment in page.payments {
            let outcome = match payment.status() {
                payment::PaymentStatus::Captured => Outcome::Captured(payment.charge_id),
                payment::PaymentStatus::Declined => Outcome::Declined(payment.decline_reason),
                // It has no outcome yet, as its order.
                payment::PaymentStatus::Pending => continue,
                payment::PaymentStatus::Unspecified
                | payment::PaymentStatus::Voided
                | payment::PaymentStatus::Refunded => {
                    return Err(Error::Incomplete { service: SERVICE, field: "status" });
                }
            };
            all.push(Payment { order: payment.order_id, amount: money(SERVICE, payment.amount)?, outcome });
        }
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn orders(url: &str) -> Result<Vec<Order>, Error> {
    const SERVICE: &str = "order-service";
    let mut client = order::order_service_client::OrderServiceClient::new(channel(url)?);
    let mut all = Vec::new();
    let mut request = order::ListOrdersRequest { page_size: PAGE_SIZE, ..Default::default() };
    loop {
        let page = client.list_orders(request.clone()).await.map_err(Error::grpc(SERVICE, url))?.into_inner();
        for order in page.orders {
            let state = match order.status() {
                order::OrderStatus::PendingPayment => OrderState::Pending,
                order::OrderStatus::Paid => OrderState::Paid,
                order::OrderStatus::PaymentDeclined => OrderState::Declined(order.decline_reason),
                order::OrderStatus::Unspecified | order::OrderStatus::Cancelled | order::OrderStatus::Refunded => {
                    return Err(Error::Incomplete { service: SERVICE, field: "status" });
                }
            };
            let total = money(SERVICE, order.total)?;
            all.push(Order { id: order.order_id, customer: order.customer_id, total, state });
        }
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn notifications(url: &str, customers: BTreeSet<&str>) -> Result<Vec<Notification>, Error> {
    let mut client = notification::notification_service_client::NotificationServiceClient::new(channel(url)?);
    let mut all = Vec::new();
    for customer in customers {
        let customer_id = customer.to_owned();
        let mut request =
            notification::ListNotificationsRequest { customer_id, page_size: PAGE_SIZE, ..Default::default() };
        loop {
            let reply = client.list_notifications(request.clone()).await;
            let page = reply.map_err(Error::grpc("notification-service", url))?.into_inner();
            all.extend(page.notifications.into_iter().map(|found| Notification {
                kind: kind(&found),
                customer: found.customer_id,
                number: found.number,
                order: found.order_id,
            }));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    Ok(all)
}

fn kind(notification: &notification::Notification) -> Kind {
    match notification.kind() {
        notification::NotificationKind::OrderReceived => Kind::OrderReceived,
        notification::NotificationKind::PaymentCaptured => Kind::PaymentCaptured,
        notification::NotificationKind::PaymentDeclined => Kind::PaymentDeclined,
        notification::NotificationKind::OrderConfirmed => Kind::OrderConfirmed,
        notification::NotificationKind::Unspecified
        | notification::NotificationKind::OrderCancelled
        | notification::NotificationKind::PaymentRefunded
        | notification::NotificationKind::InvoiceReady => Kind::Unknown(notification.kind),
    }
}

async fn dead_letters(url: &str) -> Result<u64, Error> {
    let stats = BrokerServiceClient::new(channel(url)?)
        .get_stats(GetStatsRequest::default())
        .await
        .map_err(Error::grpc("broker", url))?;
    let waiting =
        stats.into_inner().subscriptions.into_iter().filter(|queue| queue.subscription.ends_with(DEAD_LETTERS));
    Ok(waiting.map(|queue| queue.backlog_messages).sum())
}

fn money(service: &'static str, money: Option<WireMoney>) -> Result<Money, Error> {
    let money = money.ok_or(Error::Incomplete { service, field: "amount" })?;
    Ok(Money { currency: money.currency_code, amount_minor: money.amount_minor })
}
