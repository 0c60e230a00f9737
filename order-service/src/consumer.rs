//! Outcomes of payments arrive here.

use fail_points::Point;
use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};
use service_kit::consumer::{CONCURRENCY_DEFAULT, ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::status::chain;
use tracing::{error, info};

use crate::app::{App, Changed, Orders, StoreError};
use crate::domain::{DECLINE_REASON_CHARS_MAX, Money, OrderId, Outcome as Ended, PaymentOutcome, ValueError};

/// The types of events that tell an outcome, without their package.
const KINDS: [&str; 4] = ["PaymentCaptured", "PaymentDeclined", "PaymentRefunded", "PaymentVoided"];

/// The subscription with the outcomes of payments.
pub(crate) const CONFIG: ConsumerConfig = ConsumerConfig {
    subscription: "order-service.payment-events",
    dead_letters: "dead-letters",
    concurrency: CONCURRENCY_DEFAULT,
};

/// Brings orders to their end.
#[derive(Debug)]
pub(crate) struct PaymentEvents<S> {
    app: App<S>,
    database: Breaker,
}

/// Why a message can never be handled.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error("the payload is no PaymentEvent: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("the event's type is `{0}`, but its payload is another event")]
    OtherPayload(String),
    #[error("`{field}` {error}")]
    Field { field: &'static str, error: ValueError },
    #[error("`amount` is missing")]
    NoAmount,
}

impl<S: Orders> PaymentEvents<S> {
    pub(crate) fn new(app: App<S>) -> Self {
        Self { app, database: Breaker::new("database", Settings::default()) }
    }

    /// What makes outcomes wait while the database is unavailable.
    #[cfg(test)]
    pub(crate) fn database(&self) -> &Breaker {
        &self.database
    }

    async fn settle(
        &self,
        event: &Event,
        id: OrderId,
        outcome: &PaymentOutcome,
        stopping: &CancellationToken,
    ) -> Result<Result<Changed, StoreError>, Interrupted> {
        // A database that is unavailable fails no message: they wait until it is back.
        let attempt = || async {
            match self.app.settle(event.id.clone(), id, outcome.clone()).await {
                Err(error @ StoreError::Unavailable(_)) => Err(Unavailable(chain(&error))),
                result => Ok(result),
            }
        };
        self.database.until_answered(stopping, attempt).await
    }
}

impl<S: Orders> Handler for PaymentEvents<S> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        let (id, outcome) = match parse(event) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Outcome::Done,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        let settled = self.settle(event, id, &outcome, stopping).await;
        fail_points::pass(Point::OrderSettled);
        match settled {
            Ok(Ok(Changed::To(order))) => {
                info!(order_id = %order.id, waits = order.status.is_waiting(), "an order took the outcome of its payment");
                Outcome::Done
            }
            Ok(Ok(Changed::Nothing(_))) => Outcome::Done,
            Ok(Ok(Changed::Unknown)) => Outcome::Reject(format!("there is no order `{id}`")),
            Ok(Ok(Changed::Refused(error))) => Outcome::Reject(format!("order `{id}`: {error}")),
            Ok(Err(error)) => {
                error!(order_id = %id, error = chain(&error), "an outcome cannot be kept");
                Outcome::Retry(chain(&error))
            }
            Err(Interrupted) => Outcome::Interrupted,
        }
    }
}

/// The outcome of a payment; `None` for an event of a type that is none of this service's business.
fn parse(event: &Event) -> Result<Option<(OrderId, PaymentOutcome)>, Poison> {
    use wire::payment_event::Event as Body;
    let message = wire::PaymentEvent::decode(event.payload.clone())?;
    let kind = event.kind.as_str();
    let Some(kind) = kind.strip_prefix("orderflow.events.v1.").filter(|kind| KINDS.contains(kind)) else {
        return Ok(None);
    };
    let outcome = match (kind, message.event) {
        ("PaymentCaptured", Some(Body::Captured(_))) => Ended::Captured(money(message.amount)?),
        ("PaymentDeclined", Some(Body::Declined(declined))) => {
            Ended::Declined { reason: declined.reason.chars().take(DECLINE_REASON_CHARS_MAX).collect() }
        }
        ("PaymentRefunded", Some(Body::Refunded(_))) => Ended::Refunded(money(message.amount)?),
        ("PaymentVoided", Some(Body::Voided(_))) => Ended::Voided,
        _ => return Err(Poison::OtherPayload(event.kind.clone())),
    };
    let id = message.order_id.parse().map_err(|error| Poison::Field { field: "order_id", error })?;
    // 0 stands for 1.
    Ok(Some((id, PaymentOutcome { attempt: message.attempt.max(1), outcome })))
}

fn money(money: Option<wire_type::Money>) -> Result<Money, Poison> {
    let money = money.ok_or(Poison::NoAmount)?;
    let currency =
        money.currency_code.parse().map_err(|error| Poison::Field { field: "amount.currency_code", error })?;
    Money::new(currency, money.amount_minor).map_err(|error| Poison::Field { field: "amount.amount_minor", error })
}
