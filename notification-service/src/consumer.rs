//! What happens to orders and payments arrives here.

use bytes::Bytes;
use fail_points::Point;
use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};
use service_kit::consumer::{CONCURRENCY_DEFAULT, ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::status::chain;
use tracing::error;

use crate::app::{App, InvoiceFate, Notifications, StoreError};
use crate::domain::{
    Amount, CancelReason, CustomerId, CustomerIdError, Draft, EmailAddress, EmailAddressError, Happening, Invoice,
    InvoiceNumber, InvoiceNumberError, PDF_BYTES_MAX, draft,
};

/// Characters that an order id and a currency code have at most; longer ones are poison.
const NAME_CHARS_MAX: usize = 64;

/// Characters of a decline's reason that a customer is shown at most.
const REASON_CHARS_MAX: usize = 256;

/// The subscription with what happens to orders.
pub(crate) const ORDER_EVENTS: ConsumerConfig = config("notification-service.order-events");

/// The subscription with what becomes of payments.
pub(crate) const PAYMENT_EVENTS: ConsumerConfig = config("notification-service.payment-events");

/// The subscription with rendered invoices.
pub(crate) const INVOICES: ConsumerConfig = config("notification-service.invoices");

/// Tells customers what happened to their orders.
#[derive(Debug)]
pub(crate) struct OrderEvents<S>(Notifier<S>);

/// Tells customers what became of their payments.
#[derive(Debug)]
pub(crate) struct PaymentEvents<S>(Notifier<S>);

/// Keeps invoices, and tells customers that they are there.
#[derive(Debug)]
pub(crate) struct Invoices<S>(Notifier<S>);

/// Keeps notifications. Clones share the breaker.
#[derive(Debug)]
struct Notifier<S> {
    app: App<S>,
    database: Breaker,
}

/// Why a message can never be handled.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error("the payload does not decode: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("the event's type is `{0}`, but its payload is another event")]
    OtherPayload(String),
    #[error("`customer_id` {0}")]
    CustomerId(#[from] CustomerIdError),
    #[error("`{0}` is missing or too long")]
    Field(&'static str),
    #[error("`invoice_number` {0}")]
    InvoiceNumber(#[from] InvoiceNumberError),
    #[error("`pdf` is no PDF of at most {PDF_BYTES_MAX} bytes")]
    Pdf,
}

/// What is kept of an event.
#[derive(Clone, Debug)]
enum Told {
    Notification(Draft),
    Invoice(Box<Invoice>, Bytes, Draft),
}

/// The three consumers of the service.
pub(crate) fn handlers<S: Notifications>(app: &App<S>) -> (OrderEvents<S>, PaymentEvents<S>, Invoices<S>) {
    let database = Breaker::new("database", Settings::default());
    let notifier = || Notifier { app: app.clone(), database: database.clone() };
    (OrderEvents(notifier()), PaymentEvents(notifier()), Invoices(notifier()))
}

impl<S> OrderEvents<S> {
    /// What makes events wait while the database is unavailable.
    #[cfg(test)]
    pub(crate) fn database(&self) -> &Breaker {
        &self.0.database
    }
}

impl<S: Notifications> Handler for OrderEvents<S> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        self.0.tell(parse_order_event(event), stopping).await
    }
}

impl<S: Notifications> Handler for PaymentEvents<S> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        self.0.tell(parse_payment_event(event), stopping).await
    }
}

impl<S: Notifications> Handler for Invoices<S> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        self.0.tell(parse_invoice(event), stopping).await
    }
}

impl<S: Notifications> Notifier<S> {
    async fn tell(&self, parsed: Result<Option<Told>, Poison>, stopping: &CancellationToken) -> Outcome {
        let told = match parsed {
            Ok(Some(told)) => told,
            Ok(None) => return Outcome::Done,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        // A database that is unavailable fails no message: they wait until it is back.
        let attempt = || async {
            match self.keep(told.clone()).await {
                Err(error @ StoreError::Unavailable(_)) => Err(Unavailable(chain(&error))),
                result => Ok(result),
            }
        };
        let kept = self.database.until_answered(stopping, attempt).await;
        fail_points::pass(Point::NotificationCommitted);
        match kept {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                let (Told::Notification(draft) | Told::Invoice(_, _, draft)) = &told;
                error!(event_id = draft.event_id, error = chain(&error), "a notification cannot be kept");
                Outcome::Retry(chain(&error))
            }
            Err(Interrupted) => Outcome::Interrupted,
        }
    }

    async fn keep(&self, told: Told) -> Result<Outcome, StoreError> {
        match told {
            Told::Notification(draft) => self.app.notify(draft).await.map(|_| Outcome::Done),
            Told::Invoice(invoice, pdf, draft) => {
                let number = invoice.number.clone();
                Ok(match self.app.keep_invoice(*invoice, pdf, draft).await? {
                    InvoiceFate::Kept(_) | InvoiceFate::KnownAlready => Outcome::Done,
                    InvoiceFate::NumberTaken { order_id } => {
                        Outcome::Reject(format!("invoice {} is that of order {order_id}", number.as_str()))
                    }
                })
            }
        }
    }
}

const fn config(subscription: &'static str) -> ConsumerConfig {
    ConsumerConfig { subscription, dead_letters: "dead-letters", concurrency: CONCURRENCY_DEFAULT }
}

/// What a customer is told of an event on `order-events`; `None` for an event that no customer need hear of.
fn parse_order_event(event: &Event) -> Result<Option<Told>, Poison> {
    use wire::order_event::Event as Body;
    let message = wire::OrderEvent::decode(event.payload.clone())?;
    let happening = match (event.kind.as_str(), message.event) {
        ("orderflow.events.v1.OrderPlaced", Some(Body::Placed(placed))) => {
            Happening::OrderPlaced { total: amount("total", placed.total)? }
        }
        ("orderflow.events.v1.OrderPaid", Some(Body::Paid(paid))) => {
            Happening::OrderPaid { total: amount("total", paid.total)? }
        }
        ("orderflow.events.v1.OrderDeclined", Some(Body::Declined(_))) => Happening::OrderDeclined,
        ("orderflow.events.v1.OrderCancelled", Some(Body::Cancelled(cancelled))) => {
            Happening::OrderCancelled { reason: cancel_reason(cancelled.reason()) }
        }
        (
            kind @ ("orderflow.events.v1.OrderPlaced"
            | "orderflow.events.v1.OrderPaid"
            | "orderflow.events.v1.OrderDeclined"
            | "orderflow.events.v1.OrderCancelled"),
            _,
        ) => return Err(Poison::OtherPayload(kind.to_owned())),
        _ => return Ok(None),
    };
    let draft = words(event, message.customer_id, message.order_id, &message.customer_email, &happening)?;
    Ok(draft.map(Told::Notification))
}

/// What a customer is told of an event on `payment-events`; `None` for an event that no customer need hear of.
fn parse_payment_event(event: &Event) -> Result<Option<Told>, Poison> {
    use wire::payment_event::Event as Body;
    let message = wire::PaymentEvent::decode(event.payload.clone())?;
    let happening = match (event.kind.as_str(), message.event) {
        ("orderflow.events.v1.PaymentCaptured", Some(Body::Captured(_))) => {
            Happening::PaymentCaptured { amount: amount("amount", message.amount)? }
        }
        ("orderflow.events.v1.PaymentDeclined", Some(Body::Declined(declined))) => Happening::PaymentDeclined {
            amount: amount("amount", message.amount)?,
            reason: declined.reason.chars().take(REASON_CHARS_MAX).collect(),
        },
        ("orderflow.events.v1.PaymentRefunded", Some(Body::Refunded(_))) => {
            Happening::PaymentRefunded { amount: amount("amount", message.amount)? }
        }
        (
            kind @ ("orderflow.events.v1.PaymentCaptured"
            | "orderflow.events.v1.PaymentDeclined"
            | "orderflow.events.v1.PaymentRefunded"),
            _,
        ) => return Err(Poison::OtherPayload(kind.to_owned())),
        _ => return Ok(None),
    };
    // The address is told by the order's own events.
    Ok(words(event, message.customer_id, message.order_id, "", &happening)?.map(Told::Notification))
}

/// The invoice in an event on `invoices`; `None` for an event of another type.
fn parse_invoice(event: &Event) -> Result<Option<Told>, Poison> {
    if event.kind != "orderflow.events.v1.InvoiceRendered" {
        return Ok(None);
    }
    let message = wire::InvoiceRendered::decode(event.payload.clone())?;
    let number = InvoiceNumber::parse(message.invoice_number)?;
    let total = amount("total", message.total)?;
    let pdf = Bytes::from(message.pdf);
    if pdf.len() > PDF_BYTES_MAX || !pdf.starts_with(b"%PDF-") {
        return Err(Poison::Pdf);
    }
    let happening = Happening::InvoiceRendered { number: number.clone(), total: total.clone() };
    let draft = words(event, message.customer_id, message.order_id, &message.customer_email, &happening)?;
    Ok(draft.map(|draft| {
        let (order_id, customer_id) = (draft.order_id.clone(), draft.customer_id.clone());
        Told::Invoice(Invoice { number, order_id, customer_id, total }.into(), pdf, draft)
    }))
}

fn words(
    event: &Event,
    customer_id: String,
    order_id: String,
    email: &str,
    happening: &Happening,
) -> Result<Option<Draft>, Poison> {
    let customer_id = CustomerId::parse(customer_id)?;
    let order_id = name("order_id", order_id)?;
    Ok(draft(event.id.clone(), customer_id, order_id, address(email), happening))
}

/// The address that an event tells, if any. A wrong one is noted and poisons nothing: the customer can still read the
/// notification.
fn address(text: &str) -> Option<Result<EmailAddress, EmailAddressError>> {
    (!text.is_empty()).then(|| EmailAddress::parse(text))
}

fn cancel_reason(reason: wire::CancelReason) -> CancelReason {
    match reason {
        wire::CancelReason::Unspecified => CancelReason::Unknown,
        wire::CancelReason::Customer => CancelReason::Customer,
        wire::CancelReason::PaymentDeadline => CancelReason::PaymentDeadline,
        wire::CancelReason::PaymentUnavailable => CancelReason::PaymentUnavailable,
    }
}

fn amount(field: &'static str, money: Option<wire_type::Money>) -> Result<Amount, Poison> {
    let money = money.ok_or(Poison::Field(field))?;
    Ok(Amount { currency_code: name("currency_code", money.currency_code)?, amount_minor: money.amount_minor })
}

fn name(field: &'static str, text: String) -> Result<String, Poison> {
    if (1..=NAME_CHARS_MAX).contains(&text.chars().count()) { Ok(text) } else { Err(Poison::Field(field)) }
}
