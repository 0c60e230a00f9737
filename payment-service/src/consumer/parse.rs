//! From events to what they ask for.

use orderflow_proto::orderflow::events::v1 as wire;
use orderflow_proto::orderflow::events::v1::order_event::Event as Body;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use prost::Message as _;
use service_kit::event::Event;

use crate::domain::{Cancel, CardToken, Charge, CustomerId, Money, OrderId, ValueError};

const ORDER_PLACED: &str = "orderflow.events.v1.OrderPlaced";
const PAYMENT_RETRIED: &str = "orderflow.events.v1.PaymentRetried";
const ORDER_CANCELLED: &str = "orderflow.events.v1.OrderCancelled";
const ORDER_REFUND_REQUESTED: &str = "orderflow.events.v1.OrderRefundRequested";

/// The first try to pay an order.
const ATTEMPT_FIRST: u32 = 1;

/// What an event asks for.
#[derive(Debug)]
pub(super) enum Request {
    Charge(Charge),
    Cancel(Cancel),
}

impl Request {
    pub(super) fn order_id(&self) -> OrderId {
        match self {
            Self::Charge(charge) => charge.order_id,
            Self::Cancel(cancel) => cancel.order_id,
        }
    }
}

/// Why a message can never be handled.
#[derive(Debug, thiserror::Error)]
pub(super) enum Poison {
    #[error("the payload is no OrderEvent: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("the event's type is `{0}`, but its payload is another event")]
    OtherPayload(String),
    #[error("`{field}` {error}")]
    Field { field: &'static str, error: ValueError },
    #[error("`total` is missing")]
    NoTotal,
    #[error("`attempt` must be 2 or more")]
    NoRetry,
}

/// What an event asks for; `None` for an event that asks for nothing here.
pub(super) fn parse(event: &Event) -> Result<Option<Request>, Poison> {
    let message = wire::OrderEvent::decode(event.payload.clone())?;
    let expected = [ORDER_PLACED, PAYMENT_RETRIED, ORDER_CANCELLED, ORDER_REFUND_REQUESTED];
    if !expected.contains(&event.kind.as_str()) {
        return Ok(None);
    }
    let order = Order {
        order_id: message.order_id.parse().map_err(field("order_id"))?,
        customer_id: CustomerId::parse(message.customer_id).map_err(field("customer_id"))?,
    };
    match (event.kind.as_str(), message.event) {
        (ORDER_PLACED, Some(Body::Placed(placed))) => {
            // A synchronous checkout charges within its own request. A mode that we do not know is charged here: an
            // order that nobody charges would wait for ever.
            if placed.checkout_mode() == wire_type::CheckoutMode::Synchronous {
                return Ok(None);
            }
            order.charge(placed.total, placed.payment_token, ATTEMPT_FIRST).map(Some)
        }
        (PAYMENT_RETRIED, Some(Body::PaymentRetried(retried))) => {
            // Another card is charged through the queue in both modes of checkout.
            if retried.attempt <= ATTEMPT_FIRST {
                return Err(Poison::NoRetry);
            }
            order.charge(retried.total, retried.payment_token, retried.attempt).map(Some)
        }
        (ORDER_CANCELLED, Some(Body::Cancelled(cancelled))) => {
            order.cancel(cancelled.total, cancelled.attempt).map(Some)
        }
        (ORDER_REFUND_REQUESTED, Some(Body::RefundRequested(requested))) => {
            order.cancel(requested.total, requested.attempt).map(Some)
        }
        _ => Err(Poison::OtherPayload(event.kind.clone())),
    }
}

struct Order {
    order_id: OrderId,
    customer_id: CustomerId,
}

impl Order {
    fn charge(self, total: Option<wire_type::Money>, token: String, attempt: u32) -> Result<Request, Poison> {
        let Self { order_id, customer_id } = self;
        let amount = money(total)?.ok_or(Poison::NoTotal)?;
        let card = CardToken::parse(token).map_err(field("payment_token"))?;
        Ok(Request::Charge(Charge { order_id, customer_id, amount, card, attempt }))
    }

    fn cancel(self, total: Option<wire_type::Money>, attempt: u32) -> Result<Request, Poison> {
        let Self { order_id, customer_id } = self;
        let attempt = attempt.max(ATTEMPT_FIRST);
        Ok(Request::Cancel(Cancel { order_id, customer_id, amount: money(total)?, attempt }))
    }
}

fn money(total: Option<wire_type::Money>) -> Result<Option<Money>, Poison> {
    let Some(total) = total else { return Ok(None) };
    let currency = total.currency_code.parse().map_err(field("total.currency_code"))?;
    Money::new(currency, total.amount_minor).map(Some).map_err(field("total.amount_minor"))
}

fn field(field: &'static str) -> impl Fn(ValueError) -> Poison {
    move |error| Poison::Field { field, error }
}
