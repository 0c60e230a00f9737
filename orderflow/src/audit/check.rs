//! The sums. A pure function: books in, verdict out.

use std::collections::{BTreeMap, HashMap};

use super::books::{Books, Kind, Money, Order, OrderState, Outcome, Payment};

/// What the books add up to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The figures.
    pub sums: Sums,
    /// What does not fit, order by order. Empty when the books balance.
    pub mismatches: Vec<Mismatch>,
}

/// The figures of a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Orders that order-service has.
    pub accepted: usize,
    /// Of these, paid.
    pub paid: usize,
    /// Of these, declined.
    pub declined: usize,
    /// Of these, waiting for their payment.
    pub pending: usize,
    /// What the paid orders cost, by currency.
    pub paid_minor: BTreeMap<String, i128>,
    /// Charges at the acquirer that took money.
    pub captured: usize,
    /// What they took, by currency.
    pub captured_minor: BTreeMap<String, i128>,
    /// Charges that the acquirer refused.
    pub refused: usize,
    /// Notifications of all customers.
    pub notifications: usize,
    /// Messages that wait for an operator.
    pub dead_letters: u64,
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Mismatch {
    /// The order has not reached its end.
    #[error("order {order} still waits for its payment")]
    Pending {
        /// Which order.
        order: String,
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
    /// The acquirer took money for what is no paid order.
    #[error("charge {charge} took money for order {order}, which is not paid")]
    ChargedUnpaid {
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
}

/// Checks all books against each other. The acquirer's ledger is the truth about money.
pub fn check(books: &Books) -> Verdict {
    let mut verdict = Verdict { sums: sums(books), mismatches: Vec::new() };
    let found = &mut verdict.mismatches;
    let charges = by_order(&books.charges);
    let payments = by_order(&books.payments);
    let mut notified: HashMap<(&str, Kind), usize> = HashMap::new();
    for notification in &books.notifications {
        *notified.entry((&notification.order, notification.kind)).or_default() += 1;
    }
    for order in &books.orders {
        if order.state == OrderState::Pending {
            found.push(Mismatch::Pending { order: order.id.clone() });
            continue;
        }
        let none = Vec::new();
        let charges = charges.get(order.id.as_str()).unwrap_or(&none);
        check_charges(order, charges, found);
        check_payment(order, payments.get(order.id.as_str()).unwrap_or(&none), charges, found);
        check_notifications(order, &notified, found);
    }
    check_strays(books, found);
    check_numbers(books, found);
    found.sort();
    verdict
}

fn sums(books: &Books) -> Sums {
    let mut sums = Sums {
        accepted: books.orders.len(),
        notifications: books.notifications.len(),
        dead_letters: books.dead_letters,
        ..Sums::default()
    };
    for order in &books.orders {
        match order.state {
            OrderState::Pending => sums.pending += 1,
            OrderState::Declined(_) => sums.declined += 1,
            OrderState::Paid => {
                sums.paid += 1;
                add(&mut sums.paid_minor, &order.total);
            }
        }
    }
    for charge in &books.charges {
        match charge.outcome {
            Outcome::Declined(_) => sums.refused += 1,
            Outcome::Captured(_) => {
                sums.captured += 1;
                add(&mut sums.captured_minor, &charge.amount);
            }
        }
    }
    sums
}

fn add(sums: &mut BTreeMap<String, i128>, money: &Money) {
    *sums.entry(money.currency.clone()).or_default() += i128::from(money.amount_minor);
}

fn by_order(payments: &[Payment]) -> HashMap<&str, Vec<&Payment>> {
    let mut map: HashMap<&str, Vec<&Payment>> = HashMap::new();
    for payment in payments {
        map.entry(&payment.order).or_default().push(payment);
    }
    map
}

fn charge_id(payment: &Payment) -> Option<&str> {
    match &payment.outcome {
        Outcome::Captured(id) => Some(id),
        Outcome::Declined(_) => None,
    }
}

/// A paid order has one charge over its total; any other has none.
fn check_charges(order: &Order, charges: &[&Payment], found: &mut Vec<Mismatch>) {
    let id = || order.id.clone();
    let captured: Vec<(&Payment, &str)> =
        charges.iter().filter_map(|charge| Some((*charge, charge_id(charge)?))).collect();
    if order.state != OrderState::Paid {
        found.extend(
            captured.iter().map(|(_, charge)| Mismatch::ChargedUnpaid { order: id(), charge: (*charge).into() }),
        );
        return;
    }
    match captured[..] {
        [] => found.push(Mismatch::NotCharged { order: id() }),
        [(charge, _)] if charge.amount == order.total => {}
        [(charge, _)] => found.push(Mismatch::OtherAmount {
            order: id(),
            total: order.total.clone(),
            charged: charge.amount.clone(),
        }),
        _ => found.push(Mismatch::ChargedRepeatedly { order: id(), times: captured.len() }),
    }
}

/// payment-service has one payment for each order, and tells of it what the order and the ledger tell.
fn check_payment(order: &Order, payments: &[&Payment], charges: &[&Payment], found: &mut Vec<Mismatch>) {
    let mut disagree = |details: String| found.push(Mismatch::OtherPayment { order: order.id.clone(), details });
    let [payment] = payments else {
        return disagree(format!("it has {} payments", payments.len()));
    };
    if payment.amount != order.total {
        disagree(format!("its amount is {} {}", payment.amount.amount_minor, payment.amount.currency));
    }
    match (&payment.outcome, &order.state) {
        (Outcome::Captured(id), OrderState::Paid) => {
            if !charges.iter().any(|charge| charge_id(charge) == Some(id)) {
                disagree(format!("the acquirer does not know its charge {id}"));
            }
        }
        (Outcome::Declined(reason), OrderState::Declined(told)) if reason == told => {}
        (outcome, state) => disagree(format!("it says {outcome:?}, the order {state:?}")),
    }
}

/// Each step of an order is told once, and nothing is told that did not happen.
fn check_notifications(order: &Order, notified: &HashMap<(&str, Kind), usize>, found: &mut Vec<Mismatch>) {
    let paid = usize::from(order.state == OrderState::Paid);
    for (kind, expected) in [
        (Kind::OrderReceived, 1),
        (Kind::PaymentCaptured, paid),
        (Kind::OrderConfirmed, paid),
        (Kind::PaymentDeclined, 1 - paid),
    ] {
        let count = notified.get(&(order.id.as_str(), kind)).copied().unwrap_or_default();
        if count != expected {
            found.push(Mismatch::Notifications { order: order.id.clone(), kind, expected, found: count });
        }
    }
}

/// Money that was taken for an order that nobody accepted.
fn check_strays(books: &Books, found: &mut Vec<Mismatch>) {
    let known: HashMap<&str, &Order> = books.orders.iter().map(|order| (order.id.as_str(), order)).collect();
    for charge in &books.charges {
        if let Some(id) = charge_id(charge)
            && !known.contains_key(charge.order.as_str())
        {
            found.push(Mismatch::ChargedUnpaid { order: charge.order.clone(), charge: id.to_owned() });
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
mod tests {
    use super::*;
    use crate::audit::books::Notification;

    fn eur(amount_minor: i64) -> Money {
        Money { currency: "EUR".into(), amount_minor }
    }

    fn payment(order: &str, amount_minor: i64, outcome: Outcome) -> Payment {
        Payment { order: order.into(), amount: eur(amount_minor), outcome }
    }

    fn captured(id: &str) -> Outcome {
        Outcome::Captured(id.into())
    }

    fn told(number: i64, order: &str, kind: Kind) -> Notification {
        Notification { customer: "alice".into(), number, order: order.into(), kind }
    }

    fn order(id: &str, state: OrderState) -> Order {
        Order { id: id.into(), customer: "alice".into(), total: eur(1299), state }
    }

    /// One paid and one declined order, with everything that belongs to them.
    fn balanced() -> Books {
        let refused = || Outcome::Declined("stolen_card".into());
        Books {
            orders: vec![order("a", OrderState::Paid), order("b", OrderState::Declined("stolen_card".into()))],
            payments: vec![payment("a", 1299, captured("ch_1")), payment("b", 1299, refused())],
            charges: vec![payment("a", 1299, captured("ch_1")), payment("b", 1299, refused())],
            notifications: vec![
                told(1, "a", Kind::OrderReceived),
                told(2, "b", Kind::OrderReceived),
                told(3, "a", Kind::PaymentCaptured),
                told(4, "a", Kind::OrderConfirmed),
                told(5, "b", Kind::PaymentDeclined),
            ],
            dead_letters: 0,
        }
    }

    /// Spoils balanced books and says what is found then.
    fn found(spoil: impl FnOnce(&mut Books)) -> Vec<Mismatch> {
        let mut books = balanced();
        spoil(&mut books);
        check(&books).mismatches
    }

    #[test]
    fn balanced_books_have_no_mismatch_and_the_right_sums() {
        let verdict = check(&balanced());
        assert_eq!(verdict.mismatches, []);
        let minor = BTreeMap::from([("EUR".to_owned(), 1299)]);
        let sums = Sums {
            accepted: 2,
            paid: 1,
            declined: 1,
            paid_minor: minor.clone(),
            captured: 1,
            captured_minor: minor,
            refused: 1,
            notifications: 5,
            ..Sums::default()
        };
        assert_eq!(verdict.sums, sums);
    }

    #[test]
    fn a_waiting_order_is_named_and_nothing_else_of_it() {
        let mismatches = found(|books| books.orders[0].state = OrderState::Pending);
        assert_eq!(mismatches, [Mismatch::Pending { order: "a".into() }]);
    }

    #[test]
    fn a_paid_order_without_a_charge_is_named() {
        let mismatches = found(|books| drop(books.charges.remove(0)));
        assert!(mismatches.contains(&Mismatch::NotCharged { order: "a".into() }), "{mismatches:?}");
    }

    #[test]
    fn a_second_charge_is_named() {
        let mismatches = found(|books| books.charges.push(payment("a", 1299, captured("ch_2"))));
        assert_eq!(mismatches, [Mismatch::ChargedRepeatedly { order: "a".into(), times: 2 }]);
    }

    #[test]
    fn a_charge_over_another_amount_or_currency_is_named() {
        for charged in [eur(1298), Money { currency: "USD".into(), amount_minor: 1299 }] {
            let mismatches = found(|books| books.charges[0].amount = charged.clone());
            assert_eq!(mismatches, [Mismatch::OtherAmount { order: "a".into(), total: eur(1299), charged }]);
        }
    }

    #[test]
    fn money_taken_for_a_declined_or_unknown_order_is_named() {
        for order in ["b", "nobody's"] {
            let mismatches = found(|books| books.charges.push(payment(order, 1, captured("ch_9"))));
            assert_eq!(mismatches, [Mismatch::ChargedUnpaid { order: order.into(), charge: "ch_9".into() }]);
        }
    }

    #[test]
    fn a_payment_that_is_missing_doubled_or_different_is_named() {
        let spoils: [fn(&mut Books); 6] = [
            |books| drop(books.payments.remove(0)),
            |books| books.payments.push(books.payments[0].clone()),
            |books| books.payments[0].amount.amount_minor += 1,
            |books| books.payments[0].outcome = captured("ch_2"),
            |books| books.payments[0].outcome = Outcome::Declined("stolen_card".into()),
            |books| books.payments[1].outcome = Outcome::Declined("other".into()),
        ];
        for (case, spoil) in spoils.into_iter().enumerate() {
            let mismatches = found(spoil);
            assert!(matches!(mismatches[..], [Mismatch::OtherPayment { .. }]), "case {case}: {mismatches:?}");
        }
    }

    #[test]
    fn a_notification_that_is_missing_doubled_or_wrong_is_named() {
        let named = |mismatches: &[Mismatch], kind, expected, count| {
            mismatches.iter().any(|mismatch| {
                matches!(mismatch, Mismatch::Notifications { kind: k, expected: e, found: f, .. }
                    if (*k, *e, *f) == (kind, expected, count))
            })
        };
        for index in 0..balanced().notifications.len() {
            let kind = balanced().notifications[index].kind;
            assert!(named(&found(|books| drop(books.notifications.remove(index))), kind, 1, 0), "{kind:?} missing");
            let doubled = found(|books| books.notifications.push(books.notifications[index].clone()));
            assert!(named(&doubled, kind, 1, 2), "{kind:?} doubled");
        }
        let wrong = found(|books| books.notifications.push(told(6, "a", Kind::PaymentDeclined)));
        assert!(named(&wrong, Kind::PaymentDeclined, 0, 1), "{wrong:?}");
    }

    #[test]
    fn a_gap_in_a_customers_numbers_is_named() {
        let mismatches = found(|books| books.notifications[4].number = 6);
        assert_eq!(mismatches, [Mismatch::NumberGap { customer: "alice".into(), number: 6 }]);
    }
}
