//! Orders that want to be paid arrive here.

use orderflow_proto::orderflow::events::v1 as wire;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};
use service_kit::consumer::{CONCURRENCY_DEFAULT, ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::status::chain;
use tracing::{error, info};

use crate::app::{Acquirer, App, NoAnswer, Payments, Recorded, StoreError};
use crate::domain::{CardToken, Charge, CustomerId, Money, Payment, ValueError};

/// The type of the events that ask for a charge.
const ORDER_PLACED: &str = "orderflow.events.v1.OrderPlaced";

/// The subscription with what happens to orders.
pub(crate) const CONFIG: ConsumerConfig = ConsumerConfig {
    subscription: "payment-service.order-events",
    dead_letters: "dead-letters",
    concurrency: CONCURRENCY_DEFAULT,
};

/// Charges orders.
#[derive(Debug)]
pub(crate) struct OrderEvents<S, A> {
    app: App<S, A>,
    database: Breaker,
}

/// Why a message can never be handled.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error("the payload is no OrderEvent: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("the event's type is `{ORDER_PLACED}`, but its payload is another event")]
    OtherPayload,
    #[error("`{field}` {error}")]
    Field { field: &'static str, error: ValueError },
    #[error("`total` is missing")]
    NoTotal,
}

/// Why a message is not handled, though it could be.
enum Unhandled {
    Interrupted,
    Failed(String),
}

impl<S: Payments, A: Acquirer> OrderEvents<S, A> {
    pub(crate) fn new(app: App<S, A>) -> Self {
        Self { app, database: Breaker::new("database", Settings::default()) }
    }

    /// What makes orders wait while the database is unavailable.
    #[cfg(test)]
    pub(crate) fn database(&self) -> &Breaker {
        &self.database
    }

    async fn pay(&self, message_id: &str, charge: Charge, stopping: &CancellationToken) -> Result<(), Unhandled> {
        let order_id = charge.order_id;
        let payment = match self.patiently(stopping, || self.app.known(order_id)).await? {
            Some(payment) => payment,
            None => self.app.charge(charge, stopping).await?,
        };
        let record = || self.app.record(message_id.to_owned(), payment.clone());
        if self.patiently(stopping, record).await? == Recorded::Kept {
            log(&payment);
        }
        Ok(())
    }

    /// A database that is unavailable fails no message: they wait until it is back.
    async fn patiently<T, R>(
        &self,
        stopping: &CancellationToken,
        mut call: impl FnMut() -> R + Send,
    ) -> Result<T, Unhandled>
    where
        R: Future<Output = Result<T, StoreError>> + Send,
    {
        let attempt = || {
            let call = call();
            async {
                match call.await {
                    Err(error @ StoreError::Unavailable(_)) => Err(Unavailable(chain(&error))),
                    result => Ok(result),
                }
            }
        };
        Ok(self.database.until_answered(stopping, attempt).await??)
    }
}

impl<S: Payments, A: Acquirer> Handler for OrderEvents<S, A> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        let charge = match parse(event) {
            Ok(Some(charge)) => charge,
            Ok(None) => return Outcome::Done,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        let order_id = charge.order_id;
        match self.pay(&event.id, charge, stopping).await {
            Ok(()) => Outcome::Done,
            Err(Unhandled::Interrupted) => Outcome::Interrupted,
            Err(Unhandled::Failed(reason)) => {
                error!(%order_id, reason, "an order cannot be charged");
                Outcome::Retry(reason)
            }
        }
    }
}

impl From<Interrupted> for Unhandled {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl From<StoreError> for Unhandled {
    fn from(error: StoreError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<NoAnswer> for Unhandled {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Interrupted => Self::Interrupted,
            NoAnswer::Refused(_) => Self::Failed(error.to_string()),
        }
    }
}

fn log(payment: &Payment) {
    use crate::domain::PaymentStatus;
    let order_id = payment.order_id;
    match payment.status() {
        PaymentStatus::Captured => info!(%order_id, "an order was charged"),
        PaymentStatus::Declined => info!(%order_id, "an order's card was declined"),
    }
}

/// The charge that an event asks for; `None` for an event that asks for none.
fn parse(event: &Event) -> Result<Option<Charge>, Poison> {
    let message = wire::OrderEvent::decode(event.payload.clone())?;
    if event.kind != ORDER_PLACED {
        return Ok(None);
    }
    let Some(wire::order_event::Event::Placed(placed)) = message.event else { return Err(Poison::OtherPayload) };
    let field = |field| move |error| Poison::Field { field, error };
    let total = placed.total.ok_or(Poison::NoTotal)?;
    let currency = total.currency_code.parse().map_err(field("total.currency_code"))?;
    Ok(Some(Charge {
        order_id: message.order_id.parse().map_err(field("order_id"))?,
        customer_id: CustomerId::parse(message.customer_id).map_err(field("customer_id"))?,
        amount: Money::new(currency, total.amount_minor).map_err(field("total.amount_minor"))?,
        card: CardToken::parse(placed.payment_token).map_err(field("payment_token"))?,
    }))
}
