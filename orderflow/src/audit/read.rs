//! Reads the books through the public doors of those who keep them.

use std::collections::BTreeSet;
use std::time::Duration;

use orderflow_proto::orderflow::events::v1::CancelReason;
use orderflow_proto::orderflow::notification::v1 as notification;
use orderflow_proto::orderflow::order::v1 as order;
use orderflow_proto::orderflow::payment::v1 as payment;
use orderflow_proto::orderflow::r#type::v1::Money as WireMoney;
use tonic::transport::{Channel, Endpoint};

use super::Addresses;
use super::books::{
    Books, Charge, ChargeState, DeadLetter, Error, Invoice, Kind, Money, Notification, Order, OrderState, Outcome,
    Payment, Queue,
};
use crate::acquirer::{AcquirerClient, ChargeStatus, LedgerEntry};
use crate::{dead_letters, queues};

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Entries asked for in one page; the services give no more.
const PAGE_SIZE: i32 = 1_000;

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
        let invoices = invoices(notification_service).await?;
        let dead_letters = dead_letters(broker).await?;
        let queues = queues(broker).await?;
        Ok(Self { orders, payments, charges, notifications, invoices, dead_letters, queues })
    }
}

pub(crate) fn channel(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|source| Error::Address { url: url.to_owned(), source })?;
    Ok(endpoint.connect_timeout(CALL_WITHIN).timeout(CALL_WITHIN).connect_lazy())
}

async fn charges(url: &str) -> Result<Vec<Charge>, Error> {
    let ledger = AcquirerClient::new(url, CALL_WITHIN).ledger().await;
    let ledger = ledger.map_err(|source| Error::Acquirer { url: url.to_owned(), source })?;
    let charge = |entry: LedgerEntry| {
        let charge = entry.charge;
        let state = match charge.status {
            ChargeStatus::Authorised => ChargeState::Held,
            ChargeStatus::Captured => ChargeState::Captured,
            ChargeStatus::Declined | ChargeStatus::Voided => ChargeState::Nothing,
            ChargeStatus::Refunded => ChargeState::Refunded,
        };
        let amount = Money { currency: charge.currency, amount_minor: charge.amount_minor };
        Charge { id: charge.id, order: charge.reference, amount, refunded_minor: charge.refunded_minor, state }
    };
    Ok(ledger.into_iter().map(charge).collect())
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
                payment::PaymentStatus::Pending => Outcome::Pending,
                payment::PaymentStatus::Captured => Outcome::Captured(payment.charge_id),
                payment::PaymentStatus::Declined => Outcome::Declined(payment.decline_reason),
                payment::PaymentStatus::Voided => Outcome::Voided,
                payment::PaymentStatus::Refunded => Outcome::Refunded,
                payment::PaymentStatus::Unspecified => {
                    return Err(Error::Incomplete { service: SERVICE, field: "status" });
                }
            };
            let is_decline = |attempt: &&payment::PaymentAttempt| attempt.outcome() == payment::PaymentStatus::Declined;
            all.push(Payment {
                order: payment.order_id,
                amount: money(SERVICE, payment.amount)?,
                outcome,
                capture_told: payment.capture_time.is_some(),
                declines: payment.attempts.iter().filter(is_decline).count(),
            });
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
                order::OrderStatus::Paid if order.refund_pending => OrderState::RefundPending,
                order::OrderStatus::Paid => OrderState::Paid,
                order::OrderStatus::PaymentDeclined => OrderState::Declined(order.decline_reason),
                order::OrderStatus::Cancelled if order.cancel_reason() == CancelReason::PaymentUnavailable => {
                    OrderState::Refused
                }
                order::OrderStatus::Cancelled => OrderState::Cancelled,
                order::OrderStatus::Refunded => OrderState::Refunded,
                order::OrderStatus::Unspecified => {
                    return Err(Error::Incomplete { service: SERVICE, field: "status" });
                }
            };
            let (id, customer, invoice) = (order.order_id, order.customer_id, order.invoice_number);
            all.push(Order { id, customer, total: money(SERVICE, order.total)?, state, invoice });
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
        notification::NotificationKind::OrderCancelled => Kind::OrderCancelled,
        notification::NotificationKind::PaymentRefunded => Kind::PaymentRefunded,
        notification::NotificationKind::InvoiceReady => Kind::InvoiceReady,
        notification::NotificationKind::Unspecified => Kind::Unknown(notification.kind),
    }
}

async fn invoices(url: &str) -> Result<Vec<Invoice>, Error> {
    const SERVICE: &str = "notification-service";
    let mut client = notification::notification_service_client::NotificationServiceClient::new(channel(url)?);
    let mut all = Vec::new();
    let mut request = notification::ListInvoicesRequest { page_size: PAGE_SIZE, ..Default::default() };
    loop {
        let page = client.list_invoices(request.clone()).await.map_err(Error::grpc(SERVICE, url))?.into_inner();
        for invoice in page.invoices {
            let total = money(SERVICE, invoice.total)?;
            all.push(Invoice { number: invoice.invoice_number, order: invoice.order_id, total });
        }
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// Every dead letter, with what it tells of the order that it is about.
async fn dead_letters(url: &str) -> Result<Vec<DeadLetter>, Error> {
    let letters = dead_letters::list(url).await?;
    let letter = |letter: &dead_letters::Letter| DeadLetter { order: letter.order(), reason: letter.reason() };
    Ok(letters.iter().map(letter).collect())
}

async fn queues(url: &str) -> Result<Vec<Queue>, Error> {
    let queues = queues::waiting(url).await?;
    Ok(queues.into_iter().map(|(name, messages)| Queue { name, messages }).collect())
}

fn money(service: &'static str, money: Option<WireMoney>) -> Result<Money, Error> {
    let money = money.ok_or(Error::Incomplete { service, field: "amount" })?;
    Ok(Money { currency: money.currency_code, amount_minor: money.amount_minor })
}
