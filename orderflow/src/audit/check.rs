//! The sums. A pure function: books in, verdict out.
//!
//! Whether an outbox holds something back is seen by what is missing elsewhere: an event that waits is a payment, a
//! notification, an invoice or a change of an order that is not there. Three events have no such effect, so that one of
//! them may wait unseen: `OrderDeclined`, `OrderRefunded` and `PaymentVoided`. The witness of `orderflow chaos` listens to
//! every event and misses these, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::books::{Books, Charge, ChargeState, Kind, Money, Order, OrderState, Outcome, Payment};

/// What the books add up to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The figures.
    pub sums: Sums,
    /// What does not fit, order by order. Empty when the books balance.
    pub mismatches: Vec<Mismatch>,
}

/// The figures of a verdict. The first is the sum of those up to `dead_lettered`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Orders that order-service has, but for refused tries.
    pub accepted: usize,
    /// Of these, paid.
    pub paid: usize,
    /// Of these, declined.
    pub declined: usize,
    /// Of these, cancelled before they were paid, by the customer or because the payment did not come in time.
    pub cancelled: usize,
    /// Of these, paid and given back.
    pub refunded: usize,
    /// Of these, on their way: waiting for their payment or for their refund.
    pub pending: usize,
    /// Of these, on their way, but stopped: a message about them is a dead letter.
    pub dead_lettered: usize,
    /// Synchronous tries that were refused because there was no answer about their payment. They are no accepted orders:
    /// the customer was told no, and the next try under the same key is another one.
    pub refused_tries: usize,
    /// What the paid orders cost, by currency.
    pub paid_minor: BTreeMap<String, i128>,
    /// Charges at the acquirer that took money, whether it went back or not.
    pub captured: usize,
    /// What they took, by currency.
    pub captured_minor: BTreeMap<String, i128>,
    /// Charges whose money went back.
    pub refunds: usize,
    /// What went back, by currency.
    pub refunded_minor: BTreeMap<String, i128>,
    /// Charges that took nothing.
    pub refused: usize,
    /// Notifications of all customers.
    pub notifications: usize,
    /// Invoices.
    pub invoices: usize,
    /// Messages that wait for an operator.
    pub dead_letters: usize,
    /// Messages that wait in the queues of the suite.
    pub queued: u64,
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Mismatch {
    /// The order has not reached its end.
    #[error("order {order} still waits for its {what}")]
    Pending {
        /// Which order.
        order: String,
        /// What it waits for.
        what: &'static str,
    },
    /// A message about an order could not be handled.
    #[error("{} has a dead letter: {reason}", if order.is_empty() { "an unknown order".to_owned() } else { format!("order {order}") })]
    DeadLetter {
        /// Which order; empty if that can't be told.
        order: String,
        /// Why it could not be handled.
        reason: String,
    },
    /// The order counts as paid, yet the acquirer took no money for it.
    #[error("order {order} is paid, but the acquirer has no charge for it")]
    NotCharged {
        /// Which order.
        order: String,
    },
    /// The acquirer took money more than once.
    #[error("order {order} was charged {times} times")]
    ChargedRepeatedly {
        /// Which order.
        order: String,
        /// How often.
        times: usize,
    },
    /// The acquirer took another amount.
    #[error("order {order} costs {} {}, but {} {} was charged", total.amount_minor, total.currency, charged.amount_minor, charged.currency)]
    OtherAmount {
        /// Which order.
        order: String,
        /// What it costs.
        total: Money,
        /// What was taken.
        charged: Money,
    },
    /// The acquirer keeps money for what is no paid order.
    #[error(
        "charge {charge} took money for order {order}, which is not paid, and {kept_minor} of it was not given back"
    )]
    ChargedUnpaid {
        /// Which order.
        order: String,
        /// Which charge.
        charge: String,
        /// What is still taken, in minor units.
        kept_minor: i64,
    },
    /// Money of a paid order went back.
    #[error("order {order} is paid, but {refunded_minor} of its money went back")]
    RefundedPaid {
        /// Which order.
        order: String,
        /// How much, in minor units.
        refunded_minor: i64,
    },
    /// The acquirer holds money that was neither taken nor let go.
    #[error("charge {charge} holds money for order {order}, neither taken nor let go")]
    Held {
        /// Which order.
        order: String,
        /// Which charge.
        charge: String,
    },
    /// payment-service has no payment, more than one, or another one than the order and the charge tell.
    #[error("order {order} and the books of payment-service disagree: {details}")]
    OtherPayment {
        /// Which order.
        order: String,
        /// In which way.
        details: String,
    },
    /// A notification is missing, doubled, or about something that did not happen.
    #[error("order {order} should have {expected} notification(s) of {kind:?}, but has {found}")]
    Notifications {
        /// Which order.
        order: String,
        /// Of which kind.
        kind: Kind,
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A customer's notifications are not numbered 1, 2, 3 and so on.
    #[error("the notifications of customer {customer} jump at number {number}")]
    NumberGap {
        /// Which customer.
        customer: String,
        /// The first number that does not follow.
        number: i64,
    },
    /// A paid order has no invoice, more than one, or another one; or an order that was never paid has one.
    #[error("order {order} and its invoice disagree: {details}")]
    Invoice {
        /// Which order.
        order: String,
        /// In which way.
        details: String,
    },
    /// Two orders have one invoice number, or a number is left out.
    #[error("the invoices are not numbered without gaps: {number} is missing or doubled")]
    InvoiceNumbers {
        /// The first number that does not follow.
        number: String,
    },
    /// Work waits in a queue.
    #[error("{messages} message(s) wait in {queue}")]
    Queued {
        /// Which queue.
        queue: String,
        /// How many.
        messages: u64,
    },
}

/// Checks all books against each other. The acquirer's ledger is the truth about money.
pub fn check(books: &Books) -> Verdict {
    let mut verdict = Verdict { sums: sums(books), mismatches: Vec::new() };
    let found = &mut verdict.mismatches;
    let charges = by_order(&books.charges, |charge| &charge.order);
    let payments = by_order(&books.payments, |payment| &payment.order);
    let mut notified: HashMap<(&str, Kind), usize> = HashMap::new();
    for notification in &books.notifications {
        *notified.entry((&notification.order, notification.kind)).or_default() += 1;
    }
    for order in &books.orders {
        let charges = charges.get(order.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let payments = payments.get(order.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        match order.state {
            OrderState::Pending => found.push(Mismatch::Pending { order: order.id.clone(), what: "payment" }),
            OrderState::RefundPending => found.push(Mismatch::Pending { order: order.id.clone(), what: "refund" }),
            _ => {
                check_charges(order, charges, found);
                check_payment(order, payments, charges, found);
                check_notifications(order, payments, &notified, found);
            }
        }
    }
    check_strays(books, found);
    check_numbers(books, found);
    super::invoices::check(books, found);
    for letter in &books.dead_letters {
        found.push(Mismatch::DeadLetter { order: letter.order.clone(), reason: letter.reason.clone() });
    }
    for queue in books.queues.iter().filter(|queue| queue.messages > 0) {
        found.push(Mismatch::Queued { queue: queue.name.clone(), messages: queue.messages });
    }
    found.sort();
    verdict
}

fn sums(books: &Books) -> Sums {
    let mut sums = Sums {
        notifications: books.notifications.len(),
        invoices: books.invoices.len(),
        dead_letters: books.dead_letters.len(),
        queued: books.queues.iter().map(|queue| queue.messages).sum(),
        ..Sums::default()
    };
    let stopped: BTreeSet<&str> = books.dead_letters.iter().map(|letter| letter.order.as_str()).collect();
    for order in &books.orders {
        let count = match order.state {
            OrderState::Pending | OrderState::RefundPending if stopped.contains(order.id.as_str()) => {
                &mut sums.dead_lettered
            }
            OrderState::Pending | OrderState::RefundPending => &mut sums.pending,
            OrderState::Declined(_) => &mut sums.declined,
            OrderState::Cancelled => &mut sums.cancelled,
            OrderState::Refused => &mut sums.refused_tries,
            OrderState::Refunded => &mut sums.refunded,
            OrderState::Paid => &mut sums.paid,
        };
        *count += 1;
        sums.accepted += usize::from(order.state != OrderState::Refused);
        if order.state == OrderState::Paid {
            add(&mut sums.paid_minor, &order.total);
        }
    }
    for charge in &books.charges {
        if !took_money(charge) {
            sums.refused += usize::from(charge.state == ChargeState::Nothing);
            continue;
        }
        sums.captured += 1;
        add(&mut sums.captured_minor, &charge.amount);
        if charge.refunded_minor > 0 {
            sums.refunds += 1;
            let refunded = Money { amount_minor: charge.refunded_minor, ..charge.amount.clone() };
            add(&mut sums.refunded_minor, &refunded);
        }
    }
    sums
}

fn add(sums: &mut BTreeMap<String, i128>, money: &Money) {
    *sums.entry(money.currency.clone()).or_default() += i128::from(money.amount_minor);
}

fn by_order<T>(entries: &[T], order: impl Fn(&T) -> &String) -> HashMap<&str, Vec<&T>> {
    let mut map: HashMap<&str, Vec<&T>> = HashMap::new();
    for entry in entries {
        map.entry(order(entry)).or_default().push(entry);
    }
    map
}

fn took_money(charge: &Charge) -> bool {
    matches!(charge.state, ChargeState::Captured | ChargeState::Refunded)
}

/// What of a charge's money is still taken, in minor units.
fn kept_minor(charge: &Charge) -> i64 {
    if took_money(charge) { charge.amount.amount_minor - charge.refunded_minor } else { 0 }
}

/// A paid order has one charge over its total, of which nothing went back; of any other all that was taken went back.
fn check_charges(order: &Order, charges: &[&Charge], found: &mut Vec<Mismatch>) {
    let id = || order.id.clone();
    for charge in charges.iter().filter(|charge| charge.state == ChargeState::Held) {
        found.push(Mismatch::Held { order: id(), charge: charge.id.clone() });
    }
    let captured: Vec<&Charge> = charges.iter().copied().filter(|charge| took_money(charge)).collect();
    if order.state != OrderState::Paid {
        for charge in captured.iter().filter(|charge| kept_minor(charge) != 0) {
            let kept_minor = kept_minor(charge);
            found.push(Mismatch::ChargedUnpaid { order: id(), charge: charge.id.clone(), kept_minor });
        }
    }
    match captured[..] {
        [] if order.state.was_paid() => found.push(Mismatch::NotCharged { order: id() }),
        [] => {}
        [charge] if charge.amount != order.total => found.push(Mismatch::OtherAmount {
            order: id(),
            total: order.total.clone(),
            charged: charge.amount.clone(),
        }),
        [charge] if order.state == OrderState::Paid && charge.refunded_minor != 0 => {
            found.push(Mismatch::RefundedPaid { order: id(), refunded_minor: charge.refunded_minor });
        }
        [_] => {}
        _ => found.push(Mismatch::ChargedRepeatedly { order: id(), times: captured.len() }),
    }
}

/// payment-service has one payment for each order, and tells of it what the order and the ledger tell.
fn check_payment(order: &Order, payments: &[&Payment], charges: &[&Charge], found: &mut Vec<Mismatch>) {
    let mut disagree = |details: String| found.push(Mismatch::OtherPayment { order: order.id.clone(), details });
    let [payment] = payments else {
        return disagree(format!("it has {} payments", payments.len()));
    };
    if payment.amount != order.total {
        disagree(format!("its amount is {} {}", payment.amount.amount_minor, payment.amount.currency));
    }
    match (&payment.outcome, &order.state) {
        (Outcome::Captured(id), OrderState::Paid) => {
            if !charges.iter().any(|charge| took_money(charge) && charge.id == *id) {
                disagree(format!("the acquirer does not know its charge {id}"));
            }
        }
        (Outcome::Declined(reason), OrderState::Declined(told)) if reason == told => {}
        (Outcome::Refunded, OrderState::Refunded) => {}
        (Outcome::Refunded | Outcome::Voided | Outcome::Declined(_), state) if state.was_given_up() => {}
        (outcome, state) => disagree(format!("it says {outcome:?}, the order {state:?}")),
    }
}

/// Each step of an order is told once, and nothing is told that did not happen.
fn check_notifications(
    order: &Order,
    payments: &[&Payment],
    notified: &HashMap<(&str, Kind), usize>,
    found: &mut Vec<Mismatch>,
) {
    let [payment] = payments else { return };
    let was_paid = usize::from(order.state.was_paid());
    for (kind, expected) in [
        (Kind::OrderReceived, 1),
        (Kind::PaymentCaptured, usize::from(payment.capture_told)),
        (Kind::PaymentDeclined, payment.declines),
        (Kind::OrderConfirmed, was_paid),
        (Kind::OrderCancelled, usize::from(order.state.was_given_up())),
        (Kind::PaymentRefunded, usize::from(payment.outcome == Outcome::Refunded)),
        (Kind::InvoiceReady, was_paid),
    ] {
        let count = notified.get(&(order.id.as_str(), kind)).copied().unwrap_or_default();
        if count != expected {
            found.push(Mismatch::Notifications { order: order.id.clone(), kind, expected, found: count });
        }
    }
}

/// Money that is kept for an order that nobody accepted.
fn check_strays(books: &Books, found: &mut Vec<Mismatch>) {
    let known: BTreeSet<&str> = books.orders.iter().map(|order| order.id.as_str()).collect();
    for charge in books.charges.iter().filter(|charge| !known.contains(charge.order.as_str())) {
        let (order, id, kept_minor) = (charge.order.clone(), charge.id.clone(), kept_minor(charge));
        if kept_minor != 0 {
            found.push(Mismatch::ChargedUnpaid { order, charge: id, kept_minor });
        } else if charge.state == ChargeState::Held {
            found.push(Mismatch::Held { order, charge: id });
        }
    }
}

fn check_numbers(books: &Books, found: &mut Vec<Mismatch>) {
    let mut numbers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for notification in &books.notifications {
        numbers.entry(&notification.customer).or_default().push(notification.number);
    }
    for (customer, mut numbers) in numbers {
        numbers.sort_unstable();
        if let Some((_, &number)) = (1..).zip(&numbers).find(|(expected, number)| expected != *number) {
            found.push(Mismatch::NumberGap { customer: customer.to_owned(), number });
        }
    }
}

#[cfg(test)]
mod tests;
