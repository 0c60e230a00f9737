use super::{Amount, CustomerId, EmailAddress, EmailAddressError, InvoiceNumber};

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimestampUs(pub(crate) i64);

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The order was accepted.
    OrderReceived,
    /// The card was charged.
    PaymentCaptured,
    /// The card was declined.
    PaymentDeclined,
    /// The order was paid and is on its way.
    OrderConfirmed,
    /// The order was cancelled.
    OrderCancelled,
    /// The money went back.
    PaymentRefunded,
    /// The invoice is there.
    InvoiceReady,
}

impl Kind {
    /// Every kind.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] = [
        Self::OrderReceived,
        Self::PaymentCaptured,
        Self::PaymentDeclined,
        Self::OrderConfirmed,
        Self::OrderCancelled,
        Self::PaymentRefunded,
        Self::InvoiceReady,
    ];
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// Nobody said.
    Unknown,
    /// The customer asked for it.
    Customer,
    /// The payment did not come in time.
    PaymentDeadline,
    /// Nobody could say whether it was paid.
    PaymentUnavailable,
}

/// What happened to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// It was accepted.
    OrderPlaced {
        /// What it costs.
        total: Amount,
    },
    /// It was paid.
    OrderPaid {
        /// What it cost.
        total: Amount,
    },
    /// It ended without money.
    OrderDeclined,
    /// Its card was charged.
    PaymentCaptured {
        /// How much was taken.
        amount: Amount,
    },
    /// Its card was declined.
    PaymentDeclined {
        /// How much was asked for.
        amount: Amount,
        /// The acquirer's reason, for example `insufficient_funds`.
        reason: String,
    },
    /// It was cancelled.
    OrderCancelled {
        /// Why.
        reason: CancelReason,
    },
    /// Its money went back.
    PaymentRefunded {
        /// How much.
        amount: Amount,
    },
    /// Its invoice is there.
    InvoiceRendered {
        /// The invoice.
        number: InvoiceNumber,
        /// What was paid.
        total: Amount,
    },
}

/// A notification without its number: that is given when it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Who is told.
    pub(crate) customer_id: CustomerId,
    /// About which order.
    pub(crate) order_id: String,
    /// What about.
    pub(crate) kind: Kind,
    /// What the customer reads.
    pub(crate) text: String,
    /// The event that it comes from: one event, one notification.
    pub(crate) event_id: String,
    /// Where the customer of this order gets e-mail, as far as the event tells.
    pub(crate) email: Option<Result<EmailAddress, EmailAddressError>>,
}

/// A notification that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    /// Counts the customer's notifications, from 1, without gaps.
    pub(crate) number: i64,
    /// What it says.
    pub(crate) draft: Draft,
    /// When it was kept.
    pub(crate) created_at: TimestampUs,
    /// When its e-mail was handed to the mail server.
    pub(crate) emailed_at: Option<TimestampUs>,
}

/// Puts an event into words; `None` if the customer need not hear of it.
pub(crate) fn draft(
    event_id: String,
    customer_id: CustomerId,
    order_id: String,
    email: Option<Result<EmailAddress, EmailAddressError>>,
    happening: &Happening,
) -> Option<Draft> {
    let (kind, text) = match happening {
        Happening::OrderPlaced { total } => {
            (Kind::OrderReceived, format!("We have received your order {order_id} for {total}."))
        }
        Happening::PaymentCaptured { amount } => {
            (Kind::PaymentCaptured, format!("We have charged your card {amount} for order {order_id}."))
        }
        Happening::PaymentDeclined { amount, reason } => {
            let reason = in_words(reason);
            let text =
                format!("Your card was declined for {amount} ({reason}), so order {order_id} was not completed.");
            (Kind::PaymentDeclined, text)
        }
        Happening::OrderPaid { total } => {
            (Kind::OrderConfirmed, format!("Your order {order_id} for {total} is paid and confirmed."))
        }
        Happening::OrderCancelled { reason } => (Kind::OrderCancelled, cancellation(&order_id, *reason)),
        Happening::PaymentRefunded { amount } => {
            (Kind::PaymentRefunded, format!("We have given back {amount} for order {order_id}."))
        }
        Happening::InvoiceRendered { number, total } => {
            let number = number.as_str();
            (Kind::InvoiceReady, format!("The invoice {number} for your order {order_id} over {total} is ready."))
        }
        // The declined payment has told it already.
        Happening::OrderDeclined => return None,
    };
    Some(Draft { customer_id, order_id, kind, text, event_id, email })
}

fn cancellation(order_id: &str, reason: CancelReason) -> String {
    let why = match reason {
        CancelReason::Unknown => "",
        CancelReason::Customer => ", as you asked",
        CancelReason::PaymentDeadline => " because it was not paid in time",
        CancelReason::PaymentUnavailable => " because it could not be paid at the moment",
    };
    format!("Your order {order_id} was cancelled{why}. If your card was charged all the same, you get the money back.")
}

/// `insufficient_funds` as a customer would say it.
fn in_words(reason: &str) -> String {
    if reason.is_empty() { "no reason given".to_owned() } else { reason.replace('_', " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_words() {
        let amount = || Amount { currency_code: "EUR".to_owned(), amount_minor: 1_299 };
        let declined = |reason: &str| Happening::PaymentDeclined { amount: amount(), reason: reason.to_owned() };
        let table = [
            (
                Happening::OrderPlaced { total: amount() },
                Some((Kind::OrderReceived, "We have received your order o-1 for 12.99 EUR.")),
            ),
            (
                Happening::PaymentCaptured { amount: amount() },
                Some((Kind::PaymentCaptured, "We have charged your card 12.99 EUR for order o-1.")),
            ),
            (
                declined("insufficient_funds"),
                Some((
                    Kind::PaymentDeclined,
                    "Your card was declined for 12.99 EUR (insufficient funds), so order o-1 was not completed.",
                )),
            ),
            (
                declined(""),
                Some((
                    Kind::PaymentDeclined,
                    "Your card was declined for 12.99 EUR (no reason given), so order o-1 was not completed.",
                )),
            ),
            (
                Happening::OrderPaid { total: amount() },
                Some((Kind::OrderConfirmed, "Your order o-1 for 12.99 EUR is paid and confirmed.")),
            ),
            (Happening::OrderDeclined, None),
            (
                Happening::PaymentRefunded { amount: amount() },
                Some((Kind::PaymentRefunded, "We have given back 12.99 EUR for order o-1.")),
            ),
            (
                Happening::InvoiceRendered { number: InvoiceNumber::parse("INV-000001").unwrap(), total: amount() },
                Some((Kind::InvoiceReady, "The invoice INV-000001 for your order o-1 over 12.99 EUR is ready.")),
            ),
        ];
        for (happening, expected) in table {
            let customer = CustomerId::parse("ada").unwrap();
            let draft = draft("e-1".to_owned(), customer, "o-1".to_owned(), None, &happening);
            assert_eq!(
                draft.map(|draft| (draft.kind, draft.text)),
                expected.map(|(kind, text)| (kind, text.to_owned()))
            );
        }
    }

    #[test]
    fn a_cancellation_tells_why() {
        let table = [
            (CancelReason::Unknown, "Your order o-1 was cancelled."),
            (CancelReason::Customer, "Your order o-1 was cancelled, as you asked."),
            (CancelReason::PaymentDeadline, "Your order o-1 was cancelled because it was not paid in time."),
            (
                CancelReason::PaymentUnavailable,
                "Your order o-1 was cancelled because it could not be paid at the moment.",
            ),
        ];
        for (reason, expected) in table {
            let text = cancellation("o-1", reason);
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
