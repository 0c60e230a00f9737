//! What happens to orders and payments arrives here.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};
use service_kit::consumer::{CONCURRENCY_DEFAULT, ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::status::chain;
use tracing::error;

use crate::app::{App, Notifications, StoreError};
use crate::domain::{Amount, CustomerId, CustomerIdError, Draft, Happening, draft};

/// Characters that an order id and a currency code have at most; longer ones are poison.
const NAME_CHARS_MAX: usize = 64;

/// Characters of a decline's reason that a customer is shown at most.
const REASON_CHARS_MAX: usize = 256;

/// The subscription with what happens to orders.
pub(crate) const ORDER_EVENTS: ConsumerConfig = config("notification-service.order-events");

/// The subscription with what becomes of payments.
pub(crate) const PAYMENT_EVENTS: ConsumerConfig = config("notification-service.payment-events");

/// Tells customers what happened to their orders.
#[derive(Debug)]
pub(crate) struct OrderEvents<S>(Notifier<S>);

/// Tells customers what became of their payments.
#[derive(Debug)]
pub(crate) struct PaymentEvents<S>(Notifier<S>);

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
}

/// The two consumers of the service.
pub(crate) fn handlers<S: Notifications>(app: &App<S>) -> (OrderEvents<S>, PaymentEvents<S>) {
    let database = Breaker::new("database", Settings::default());
    let notifier = || Notifier { app: app.clone(), database: database.clone() };
    (OrderEvents(notifier()), PaymentEvents(notifier()))
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

impl<S: Notifications> Notifier<S> {
    async fn tell(&self, parsed: Result<Option<Draft>, Poison>, stopping: &CancellationToken) -> Outcome {
        let draft = match parsed {
            Ok(Some(draft)) => draft,
            Ok(None) => return Outcome::Done,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        // A database that is unavailable fails no message: they wait until it is back.
        let attempt = || async {
            match self.app.notify(draft.clone()).await {
                Err(error @ StoreError::Unavailable(_)) => Err(Unavailable(chain(&error))),
                result => Ok(result),
            }
        };
        match self.database.until_answered(stopping, attempt).await {
            Ok(Ok(_)) => Outcome::Done,
            Ok(Err(error)) => {
                error!(event_id = draft.event_id, error = chain(&error), "a notification cannot be kept");
                Outcome::Retry(chain(&error))
            }
            Err(Interrupted) => Outcome::Interrupted,
        }
    }
}

const fn config(subscription: &'static str) -> ConsumerConfig {
    ConsumerConfig { subscription, dead_letters: "dead-letters", concurrency: CONCURRENCY_DEFAULT }
}

/// What a customer is told of an event on `order-events`; `None` for an event that no customer need hear of.
fn parse_order_event(event: &Event) -> Result<Option<Draft>, Poison> {
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
        (
            kind @ ("orderflow.events.v1.OrderPlaced"
            | "orderflow.events.v1.OrderPaid"
            | "orderflow.events.v1.OrderDeclined"),
            _,
        ) => return Err(Poison::OtherPayload(kind.to_owned())),
        _ => return Ok(None),
    };
    words(event, message.customer_id, message.order_id, &happening)
}

/// What a customer is told of an event on `payment-events`; `None` for an event that no customer need hear of.
fn parse_payment_event(event: &Event) -> Result<Option<Draft>, Poison> {
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
        (kind @ ("orderflow.events.v1.PaymentCaptured" | "orderflow.events.v1.PaymentDeclined"), _) => {
            return Err(Poison::OtherPayload(kind.to_owned()));
        }
        _ => return Ok(None),
    };
    words(event, message.customer_id, message.order_id, &happening)
}

fn words(event: &Event, customer_id: String, order_id: String, happening: &Happening) -> Result<Option<Draft>, Poison> {
    let customer_id = CustomerId::parse(customer_id)?;
    let order_id = name("order_id", order_id)?;
    Ok(draft(event.id.clone(), customer_id, order_id, happening))
}

fn amount(field: &'static str, money: Option<wire_type::Money>) -> Result<Amount, Poison> {
    let money = money.ok_or(Poison::Field(field))?;
    Ok(Amount { currency_code: name("currency_code", money.currency_code)?, amount_minor: money.amount_minor })
}

fn name(field: &'static str, text: String) -> Result<String, Poison> {
    if (1..=NAME_CHARS_MAX).contains(&text.chars().count()) { Ok(text) } else { Err(Poison::Field(field)) }
}
