//! Orders that want to be paid, or to be paid back, arrive here.

mod parse;

use fail_points::Point;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Settings, Unavailable};
use service_kit::consumer::{CONCURRENCY_DEFAULT, ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::status::chain;
use tracing::{error, info};

use crate::app::{Acquirer, App, Error, Patience, Payments, StoreError};
use crate::domain::{Payment, PaymentStatus};
use parse::{Request, parse};

/// The subscription with what happens to orders.
pub(crate) const CONFIG: ConsumerConfig = ConsumerConfig {
    subscription: "payment-service.order-events",
    dead_letters: "dead-letters",
    concurrency: CONCURRENCY_DEFAULT,
};

/// Charges orders, and gives back what is not to stay charged.
#[derive(Debug)]
pub(crate) struct OrderEvents<S, A> {
    app: App<S, A>,
    database: Breaker,
}

/// A message waits for as long as an outage takes.
struct Queued<'a> {
    database: &'a Breaker,
    stopping: &'a CancellationToken,
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

    async fn work(&self, message_id: &str, request: Request, stopping: &CancellationToken) -> Result<(), Error> {
        let queued = Queued { database: &self.database, stopping };
        match request {
            Request::Charge(charge) => match self.app.charge(Some(message_id), charge, &queued).await {
                Ok(payment) => {
                    log(&payment);
                    Ok(())
                }
                // Cancelled is an answer: there is nothing left to charge.
                Err(Error::Closed(_)) => Ok(()),
                Err(error) => Err(error),
            },
            Request::Cancel(cancel) => {
                let order_id = cancel.order_id;
                self.app.cancel(Some(message_id), cancel, &queued).await?;
                info!(%order_id, "no money stays taken for an order that was cancelled");
                Ok(())
            }
        }
    }
}

impl<S: Payments, A: Acquirer> Handler for OrderEvents<S, A> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        let request = match parse(event) {
            Ok(Some(request)) => request,
            Ok(None) => return Outcome::Done,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        let order_id = request.order_id();
        let done = self.work(&event.id, request, stopping).await;
        fail_points::pass(Point::PaymentCommitted);
        match done {
            Ok(()) => Outcome::Done,
            Err(Error::Interrupted) => Outcome::Interrupted,
            // The same message can never be right.
            Err(error @ Error::OtherPayment(_)) => Outcome::Reject(error.to_string()),
            Err(error) => {
                let reason = chain(&error);
                error!(%order_id, reason, "an order's payment cannot go on");
                Outcome::Retry(reason)
            }
        }
    }
}

impl Patience for Queued<'_> {
    async fn store<T, R>(&self, mut call: impl FnMut() -> R + Send) -> Result<T, Error>
    where
        T: Send,
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
        let answered = self.database.until_answered(self.stopping, attempt).await;
        Ok(answered.map_err(|_| Error::Interrupted)??)
    }

    fn stopping(&self) -> Option<&CancellationToken> {
        Some(self.stopping)
    }

    fn has_time(&self) -> bool {
        true
    }
}

fn log(payment: &Payment) {
    let (order_id, attempt) = (payment.order_id, payment.attempt);
    match payment.status() {
        PaymentStatus::Captured => info!(%order_id, attempt, "an order was charged"),
        PaymentStatus::Declined => info!(%order_id, attempt, "an order's card was declined"),
        PaymentStatus::Pending | PaymentStatus::Voided | PaymentStatus::Refunded => {}
    }
}
