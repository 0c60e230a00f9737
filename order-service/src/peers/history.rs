//! What the other services know of an order's life.

use orderflow_proto::orderflow::notification::v1 as notification;
use orderflow_proto::orderflow::payment::v1 as payment;
use prost_types::Timestamp;
use tokio::time::timeout;
use tonic::Code;

use super::Peers;
use crate::app::{Step, StepKind};
use crate::domain::{Order, TimestampUs};

/// Notifications of one order that a timeline shows at most.
const NOTIFICATIONS_MAX: i32 = 1_000;

/// What the others know of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The steps that they told.
    pub(crate) steps: Vec<Step>,
    /// Who gave no answer in time.
    pub(crate) missing: Vec<&'static str>,
}

impl Peers {
    /// Asks the others, all at the same time. Who does not answer in time is named, and is no error.
    pub(crate) async fn history(&self, order: &Order) -> History {
        let payment = timeout(self.timeline_timeout, self.payment_steps(order));
        let notification = timeout(self.timeline_timeout, self.notification_steps(order));
        let (payment, notification) = tokio::join!(payment, notification);
        let mut history = History::default();
        for (name, answer) in [("payment-service", payment), ("notification-service", notification)] {
            match answer {
                Ok(Ok(steps)) => history.steps.extend(steps),
                Ok(Err(_)) | Err(_) => history.missing.push(name),
            }
        }
        history
    }

    async fn payment_steps(&self, order: &Order) -> Result<Vec<Step>, Code> {
        let request = payment::GetPaymentRequest { order_id: order.id.to_string() };
        match self.payment.clone().get_payment(request).await {
            Ok(reply) => Ok(reply.into_inner().payment.map(payment_steps).unwrap_or_default()),
            // Nobody has tried to charge it yet.
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(status.code()),
        }
    }

    async fn notification_steps(&self, order: &Order) -> Result<Vec<Step>, Code> {
        let order_id = order.id.to_string();
        let request = notification::ListNotificationsRequest {
            customer_id: order.customer_id.as_str().to_owned(),
            order_id: order_id.clone(),
            page_size: NOTIFICATIONS_MAX,
            page_token: String::new(),
        };
        let reply = self.notification.clone().list_notifications(request).await.map_err(|status| status.code())?;
        let notifications = reply.into_inner().notifications.into_iter().filter(|told| told.order_id == order_id);
        Ok(notifications.flat_map(|told| notification_steps(&told, order)).collect())
    }
}

fn payment_steps(payment: payment::Payment) -> Vec<Step> {
    let attempted = |attempt: &payment::PaymentAttempt| {
        let step = |at| Step { at, kind: StepKind::PaymentAttempted, attempt: attempt.attempt, detail: tries(attempt) };
        time(attempt.first_time).map(step)
    };
    let charged = |at| Step { at, kind: StepKind::Charged, attempt: payment.attempt, detail: String::new() };
    payment.attempts.iter().filter_map(attempted).chain(time(payment.capture_time).map(charged)).collect()
}

/// How often the acquirer was asked in vain, and why; nothing when it answered at once.
fn tries(attempt: &payment::PaymentAttempt) -> String {
    let answered = attempt.end_time.is_some();
    match attempt.tries.saturating_sub(u32::from(answered)) {
        0 => String::new(),
        in_vain if answered || attempt.detail.is_empty() => format!("{in_vain} in vain"),
        in_vain => format!("{in_vain} in vain: {}", attempt.detail),
    }
}

fn notification_steps(told: &notification::Notification, order: &Order) -> Vec<Step> {
    let Some(at) = time(told.create_time) else { return Vec::new() };
    let step = |kind, detail| Step { at, kind, attempt: 0, detail };
    let invoiced = (told.kind() == notification::NotificationKind::InvoiceReady)
        .then(|| step(StepKind::Invoiced, order.invoice_number.map(|number| number.to_string()).unwrap_or_default()));
    let name = told.kind().as_str_name().trim_start_matches("NOTIFICATION_KIND_");
    invoiced.into_iter().chain([step(StepKind::Notified, name.to_owned())]).collect()
}

fn time(time: Option<Timestamp>) -> Option<TimestampUs> {
    time.map(|time| TimestampUs(time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos / 1_000))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_tells_how_often_it_was_in_vain_and_why() {
        let attempt = |tries, answered: bool, detail: &str| payment::PaymentAttempt {
            tries,
            end_time: answered.then(Timestamp::default),
            detail: detail.to_owned(),
            ..Default::default()
        };
        let table = [
            (attempt(1, true, ""), ""),
            (attempt(1, true, "insufficient_funds"), ""),
            (attempt(3, true, "insufficient_funds"), "2 in vain"),
            (attempt(2, false, "503"), "2 in vain: 503"),
            (attempt(2, false, ""), "2 in vain"),
            (attempt(0, false, "the breaker is open"), ""),
        ];
        for (attempt, told) in table {
            assert_eq!(tries(&attempt), told, "{attempt:?}");
        }
    }

    #[test]
    fn a_payment_tells_its_tries_and_its_charge() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 5_000 });
        let attempt = |attempt, first_time| payment::PaymentAttempt {
            attempt,
            first_time,
            end_time: at(9),
            tries: 1,
            ..Default::default()
        };
        let payment = payment::Payment {
            attempt: 2,
            capture_time: at(3),
            attempts: vec![attempt(1, at(1)), attempt(2, at(2)), attempt(3, None)],
            ..Default::default()
        };
        let told: Vec<_> =
            payment_steps(payment).into_iter().map(|step| (step.at.0, step.kind, step.attempt)).collect();
        use StepKind::{Charged, PaymentAttempted};
        assert_eq!(told, [(1_000_005, PaymentAttempted, 1), (2_000_005, PaymentAttempted, 2), (3_000_005, Charged, 2)]);
    }
}
