//! The other services, as far as an order needs them: payment-service charges synchronous checkouts, and both know parts
//! of an order's life.

mod history;

use std::time::Duration;

use orderflow_proto::orderflow::notification::v1::notification_service_client::NotificationServiceClient;
use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::payment::v1::payment_service_client::PaymentServiceClient;
use orderflow_proto::orderflow::r#type::v1 as wire_type;
use service_kit::trace;
use tokio::time::{Instant, timeout_at};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::app::{Charge, Payments};
use crate::domain::{DECLINE_REASON_CHARS_MAX, Money, Order, Outcome, PaymentOutcome, ValueError};

/// Calls that one charge makes at most. The second is for a connection that had been lost unnoticed; the same charge again
/// finds the first outcome.
const CHARGE_CALLS_MAX: usize = 2;

/// A channel whose calls carry the trace of the request that they serve.
type Traced = InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>;

/// Clients of the other services. They connect when they are first used, and again after every loss. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    payment: PaymentServiceClient<Traced>,
    notification: NotificationServiceClient<Traced>,
    timeline_timeout: Duration,
}

impl Peers {
    /// Clients for services at these addresses; a timeline waits for them no longer than `timeline_timeout`.
    pub(crate) fn new(
        payment_url: &str,
        notification_url: &str,
        timeline_timeout: Duration,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = |url: &str| {
            let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect_lazy();
            Ok(InterceptedService::new(channel, trace::carry as fn(_) -> _))
        };
        Ok(Self {
            payment: PaymentServiceClient::new(channel(payment_url)?),
            notification: NotificationServiceClient::new(channel(notification_url)?),
            timeline_timeout,
        })
    }
}

impl Payments for Peers {
    async fn charge(&self, order: &Order, timeout: Duration) -> Charge {
        let deadline = Instant::now() + timeout;
        let mut status = Status::unavailable("payment-service was not asked");
        for _ in 0..CHARGE_CALLS_MAX {
            let mut request = Request::new(charge_request(order));
            // payment-service shall not go on longer than anybody waits.
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut client = self.payment.clone();
            status = match timeout_at(deadline, client.charge(request)).await {
                Ok(Ok(reply)) => return outcome(reply.into_inner().payment.unwrap_or_default(), order),
                Ok(Err(status)) => status,
                Err(_) => return Charge::NoAnswer("payment-service did not answer in time".to_owned()),
            };
            if !matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) {
                break;
            }
        }
        Charge::NoAnswer(format!("payment-service answered {:?}: {}", status.code(), status.message()))
    }
}

fn charge_request(order: &Order) -> wire::ChargeRequest {
    let total = order.total();
    wire::ChargeRequest {
        order_id: order.id.to_string(),
        customer_id: order.customer_id.as_str().to_owned(),
        amount: Some(wire_type::Money {
            currency_code: total.currency().to_string(),
            amount_minor: total.amount_minor(),
        }),
        payment_token: order.payment_token.as_str().to_owned(),
        attempt: order.attempt,
    }
}

/// What a payment tells of the order's try. Anything but an outcome is no answer: the order is cancelled then.
fn outcome(payment: wire::Payment, order: &Order) -> Charge {
    let status = payment.status();
    if payment.order_id != order.id.to_string() {
        return Charge::NoAnswer("payment-service answered with another order's payment".to_owned());
    }
    let outcome = match status {
        wire::PaymentStatus::Captured => match money(payment.amount.unwrap_or_default()) {
            Ok(amount) => Outcome::Captured(amount),
            Err(error) => return Charge::NoAnswer(format!("payment-service answered with an amount that {error}")),
        },
        wire::PaymentStatus::Declined => {
            Outcome::Declined { reason: payment.decline_reason.chars().take(DECLINE_REASON_CHARS_MAX).collect() }
        }
        wire::PaymentStatus::Unspecified
        | wire::PaymentStatus::Voided
        | wire::PaymentStatus::Refunded
        | wire::PaymentStatus::Pending => {
            return Charge::NoAnswer(format!("payment-service answered with {}", status.as_str_name()));
        }
    };
    Charge::Answered(PaymentOutcome { attempt: payment.attempt.max(1), outcome })
}

fn money(money: wire_type::Money) -> Result<Money, ValueError> {
    Money::new(money.currency_code.parse()?, money.amount_minor)
}
