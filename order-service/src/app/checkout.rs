//! The synchronous checkout: charged within the request that places the order.

use std::time::Duration;

use tracing::{Instrument as _, error, info, warn};

use super::{App, Error, Orders, Payments};
use crate::domain::{CancelReason, Order, PaymentOutcome};

/// How much longer than its call to payment-service an order may wait until it is cancelled, in milliseconds: so that only
/// a call whose process has died is overtaken by the sweeper.
pub(crate) const CALL_GRACE_MS: u64 = 2_000;

/// What came of charging an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// The acquirer has answered.
    Answered(PaymentOutcome),
    /// Nobody knows whether money was taken.
    NoAnswer(String),
}

/// Charges an order and settles it, or gives it up. A caller that goes away does not stop that.
pub(super) async fn charge<S: Orders, P: Payments>(app: &App<S>, order: Order, payments: &P) -> Result<Order, Error> {
    let id = order.id;
    let (task_app, payments) = (app.clone(), payments.clone());
    let concluding = async move { conclude(&task_app, order, &payments).await };
    let order = match tokio::spawn(concluding.in_current_span()).await {
        Ok(order) => order?,
        // It was shut down: the sweeper of the next start cancels the order.
        Err(error) if error.is_cancelled() => return Err(Error::PaymentUnavailable(id)),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    match order.cancel_reason() {
        Some(CancelReason::PaymentUnavailable) => Err(Error::PaymentUnavailable(id)),
        _ => Ok(order),
    }
}

async fn conclude<S: Orders, P: Payments>(app: &App<S>, order: Order, payments: &P) -> Result<Order, Error> {
    let id = order.id;
    let charge = match time_left(app, &order) {
        Some(timeout) => payments.charge(&order, timeout).await,
        None => Charge::NoAnswer("the time for its payment is over".to_owned()),
    };
    match charge {
        Charge::Answered(outcome) => {
            let settled = app.ask(id, move |order, now| order.settle(outcome.clone(), now)).await;
            match settled {
                Err(Error::Refused(refusal)) => {
                    error!(order_id = %id, reason = %refusal, "the reply about a payment does not fit its order");
                }
                Ok(order) if order.call_deadline.is_none() => return Ok(order),
                Ok(_) => warn!(order_id = %id, "the reply about a payment is of another try"),
                Err(error) => return Err(error),
            }
        }
        Charge::NoAnswer(reason) => info!(order_id = %id, reason, "a synchronous checkout got no answer"),
    }
    app.ask(id, |order, now| Ok(order.give_up(now))).await
}

/// How long the call may take: as configured, and within the order's own deadline. `None` when that is over.
fn time_left<S: Orders>(app: &App<S>, order: &Order) -> Option<Duration> {
    let (due, _) = order.due()?;
    let left_us = u64::try_from(due.0.saturating_sub(app.now().0)).ok().filter(|us| *us > 0)?;
    Some(app.terms.payment_timeout.min(Duration::from_micros(left_us)))
}
