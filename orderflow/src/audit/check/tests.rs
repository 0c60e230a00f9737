use super::*;
use crate::audit::books::{DeadLetter, Invoice, Notification, Queue};

fn eur(amount_minor: i64) -> Money {
    Money { currency: "EUR".into(), amount_minor }
}

fn payment(order: &str, outcome: Outcome) -> Payment {
    let capture_told = matches!(outcome, Outcome::Captured(_) | Outcome::Refunded);
    let declines = usize::from(matches!(outcome, Outcome::Declined(_)));
    Payment { order: order.into(), amount: eur(1299), outcome, capture_told, declines }
}

fn charge(order: &str, id: &str, state: ChargeState) -> Charge {
    let refunded_minor = if state == ChargeState::Refunded { 1299 } else { 0 };
    Charge { id: id.into(), order: order.into(), amount: eur(1299), refunded_minor, state }
}

fn order(id: &str, state: OrderState, invoice: &str) -> Order {
    Order { id: id.into(), customer: "alice".into(), total: eur(1299), state, invoice: invoice.into() }
}

fn invoice(order: &str, number: &str) -> Invoice {
    Invoice { number: number.into(), order: order.into(), total: eur(1299) }
}

/// A paid, a declined, a cancelled and a refunded order, with everything that belongs to them.
fn balanced() -> Books {
    let refused = || "stolen_card".to_owned();
    let told = [
        ("a", Kind::OrderReceived),
        ("a", Kind::PaymentCaptured),
        ("a", Kind::OrderConfirmed),
        ("a", Kind::InvoiceReady),
        ("b", Kind::OrderReceived),
        ("b", Kind::PaymentDeclined),
        ("c", Kind::OrderReceived),
        ("c", Kind::OrderCancelled),
        ("d", Kind::OrderReceived),
        ("d", Kind::PaymentCaptured),
        ("d", Kind::OrderConfirmed),
        ("d", Kind::InvoiceReady),
        ("d", Kind::PaymentRefunded),
    ];
    let notification = |(number, (order, kind)): (i64, (&str, Kind))| Notification {
        customer: "alice".into(),
        number,
        order: order.into(),
        kind,
    };
    Books {
        orders: vec![
            order("a", OrderState::Paid, "INV-000001"),
            order("b", OrderState::Declined(refused()), ""),
            order("c", OrderState::Cancelled, ""),
            order("d", OrderState::Refunded, "INV-000002"),
        ],
        payments: vec![
            payment("a", Outcome::Captured("ch_1".into())),
            payment("b", Outcome::Declined(refused())),
            payment("c", Outcome::Voided),
            payment("d", Outcome::Refunded),
        ],
        charges: vec![
            charge("a", "ch_1", ChargeState::Captured),
            charge("b", "ch_2", ChargeState::Nothing),
            charge("d", "ch_3", ChargeState::Refunded),
        ],
        notifications: (1..).zip(told).map(notification).collect(),
        invoices: vec![invoice("a", "INV-000001"), invoice("d", "INV-000002")],
        dead_letters: Vec::new(),
        queues: vec![Queue { name: "payment-service.order-events".into(), messages: 0 }],
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
    let minor = |amount| BTreeMap::from([("EUR".to_owned(), amount)]);
    let sums = Sums {
        accepted: 4,
        paid: 1,
        declined: 1,
        cancelled: 1,
        refunded: 1,
        paid_minor: minor(1299),
        captured: 2,
        captured_minor: minor(2 * 1299),
        refunds: 1,
        refunded_minor: minor(1299),
        refused: 1,
        notifications: 13,
        invoices: 2,
        ..Sums::default()
    };
    assert_eq!(verdict.sums, sums);
}

#[test]
fn a_synchronous_try_that_was_refused_is_neither_accepted_nor_cancelled() {
    let mut books = balanced();
    books.orders[2].state = OrderState::Refused;
    let verdict = check(&books);
    assert_eq!(verdict.mismatches, [], "its customer is told as of any cancelled order");
    let sums = verdict.sums;
    assert_eq!((sums.accepted, sums.cancelled, sums.refused_tries), (3, 0, 1));
    assert_eq!(sums.accepted, sums.paid + sums.declined + sums.cancelled + sums.refunded);
    books.charges.push(charge("c", "ch_4", ChargeState::Captured));
    let kept = Mismatch::ChargedUnpaid { order: "c".into(), charge: "ch_4".into(), kept_minor: 1299 };
    assert!(check(&books).mismatches.contains(&kept), "no money may be kept for it");
}

#[test]
fn a_cancelled_order_whose_charge_was_overtaken_balances_once_the_money_is_back() {
    let overtaken = |books: &mut Books| {
        books.charges.push(charge("c", "ch_4", ChargeState::Refunded));
        books.payments[2] = Payment { capture_told: false, ..payment("c", Outcome::Refunded) };
        let (customer, order) = ("alice".into(), "c".into());
        books.notifications.push(Notification { customer, number: 14, order, kind: Kind::PaymentRefunded });
    };
    assert_eq!(found(overtaken), []);
    let kept = found(|books| {
        overtaken(books);
        books.charges[3] = charge("c", "ch_4", ChargeState::Captured);
    });
    let expected = Mismatch::ChargedUnpaid { order: "c".into(), charge: "ch_4".into(), kept_minor: 1299 };
    assert!(kept.contains(&expected), "{kept:?}");
}

#[test]
fn an_order_on_its_way_is_named_and_nothing_else_of_it() {
    let mismatches = found(|books| {
        books.orders[1].state = OrderState::Pending;
        books.orders[3].state = OrderState::RefundPending;
    });
    let pending = |order: &str, what| Mismatch::Pending { order: order.into(), what };
    assert_eq!(mismatches, [pending("b", "payment"), pending("d", "refund")]);
}

#[test]
fn a_dead_letter_is_named_and_its_order_counts_as_stopped() {
    let mut books = balanced();
    books.orders[1].state = OrderState::Pending;
    books.dead_letters.push(DeadLetter { order: "b".into(), reason: "no total".into() });
    let Verdict { sums, mismatches } = check(&books);
    assert_eq!((sums.pending, sums.dead_lettered, sums.dead_letters), (0, 1, 1));
    assert!(mismatches.contains(&Mismatch::DeadLetter { order: "b".into(), reason: "no total".into() }));
}

#[test]
fn work_that_waits_in_a_queue_is_named() {
    let mismatches = found(|books| books.queues[0].messages = 3);
    assert_eq!(mismatches, [Mismatch::Queued { queue: "payment-service.order-events".into(), messages: 3 }]);
}

#[test]
fn a_paid_order_without_a_charge_is_named() {
    let mismatches = found(|books| drop(books.charges.remove(0)));
    assert!(mismatches.contains(&Mismatch::NotCharged { order: "a".into() }), "{mismatches:?}");
}

#[test]
fn a_second_charge_is_named() {
    let mismatches = found(|books| books.charges.push(charge("a", "ch_9", ChargeState::Captured)));
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
fn money_that_is_kept_for_an_order_that_is_not_paid_or_not_known_is_named() {
    for order in ["b", "nobody's"] {
        let mismatches = found(|books| books.charges.push(charge(order, "ch_9", ChargeState::Captured)));
        let expected = Mismatch::ChargedUnpaid { order: order.into(), charge: "ch_9".into(), kept_minor: 1299 };
        assert_eq!(mismatches, [expected]);
    }
    let partly = found(|books| books.charges[2].refunded_minor = 1000);
    assert_eq!(partly, [Mismatch::ChargedUnpaid { order: "d".into(), charge: "ch_3".into(), kept_minor: 299 }]);
}

#[test]
fn money_of_a_paid_order_that_went_back_is_named() {
    let mismatches = found(|books| books.charges[0].refunded_minor = 1);
    assert_eq!(mismatches, [Mismatch::RefundedPaid { order: "a".into(), refunded_minor: 1 }]);
}

#[test]
fn money_that_is_held_is_named() {
    for order in ["c", "nobody's"] {
        let mismatches = found(|books| books.charges.push(charge(order, "ch_9", ChargeState::Held)));
        assert_eq!(mismatches, [Mismatch::Held { order: order.into(), charge: "ch_9".into() }]);
    }
}

#[test]
fn a_payment_that_is_missing_doubled_or_different_is_named() {
    let spoils: [fn(&mut Books); 9] = [
        |books| drop(books.payments.remove(0)),
        |books| books.payments.push(books.payments[0].clone()),
        |books| books.payments[0].amount.amount_minor += 1,
        |books| books.payments[0].outcome = Outcome::Captured("ch_2".into()),
        |books| books.payments[0].outcome = Outcome::Declined("stolen_card".into()),
        |books| books.payments[1].outcome = Outcome::Declined("other".into()),
        |books| books.payments[1].outcome = Outcome::Pending,
        |books| books.payments[2].outcome = Outcome::Captured("ch_1".into()),
        |books| books.payments[3].outcome = Outcome::Captured("ch_3".into()),
    ];
    for (case, spoil) in spoils.into_iter().enumerate() {
        let mismatches = found(spoil);
        let named = mismatches.iter().any(|mismatch| matches!(mismatch, Mismatch::OtherPayment { .. }));
        assert!(named, "case {case}: {mismatches:?}");
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
    let wrong = found(|books| books.notifications[5].kind = Kind::PaymentCaptured);
    assert!(named(&wrong, Kind::PaymentCaptured, 0, 1), "{wrong:?}");
}

#[test]
fn a_gap_in_a_customers_numbers_is_named() {
    let mismatches = found(|books| books.notifications[12].number = 14);
    assert_eq!(mismatches, [Mismatch::NumberGap { customer: "alice".into(), number: 14 }]);
}

#[test]
fn an_invoice_that_is_missing_doubled_or_wrong_is_named() {
    let spoils: [fn(&mut Books); 6] = [
        |books| drop(books.invoices.remove(0)),
        |books| books.invoices.push(invoice("a", "INV-000001")),
        |books| books.invoices.push(invoice("c", "INV-000003")),
        |books| books.invoices.push(invoice("nobody's", "INV-000003")),
        |books| books.invoices[0].total = eur(1),
        |books| books.invoices[0].number = "INV-000009".into(),
    ];
    for (case, spoil) in spoils.into_iter().enumerate() {
        let mismatches = found(spoil);
        assert!(matches!(mismatches[..], [Mismatch::Invoice { .. }]), "case {case}: {mismatches:?}");
    }
}

#[test]
fn invoice_numbers_that_repeat_or_jump_are_named() {
    for number in ["INV-000001", "INV-000003"] {
        let mismatches = found(|books| {
            books.orders[3].invoice = number.into();
            books.invoices[1].number = number.into();
        });
        assert_eq!(mismatches, [Mismatch::InvoiceNumbers { number: "INV-000002".into() }]);
    }
}
