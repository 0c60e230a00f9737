use proptest::prelude::*;

use super::*;
use crate::domain::{CheckoutMode, CustomerId, Lines, NewOrder, OrderId, OrderLine, Quantity, Sku};

const ACCEPTED: TimestampUs = TimestampUs(1_000);
const LATER: TimestampUs = TimestampUs(2_000);
/// How long a synchronous call may take here.
const CALL_US: i64 = 50;

fn eur(amount_minor: i64) -> Money {
    Money::new("EUR".parse().unwrap(), amount_minor).unwrap()
}

fn placed(checkout_mode: CheckoutMode, payment_deadline_us: Option<i64>) -> Order {
    let line = OrderLine { sku: Sku::parse("tea").unwrap(), quantity: Quantity::new(2).unwrap(), unit_price: eur(500) };
    let new = NewOrder {
        customer_id: CustomerId::parse("ada").unwrap(),
        customer_email: None,
        lines: Lines::new(vec![line]).unwrap(),
        payment_token: PaymentToken::default(),
        checkout_mode,
        payment_deadline_us,
    };
    Order::place(new, OrderId::from_uuid(uuid::Uuid::now_v7()), ACCEPTED, CALL_US)
}

fn order(status: OrderStatus) -> Order {
    Order { status, ..placed(CheckoutMode::Asynchronous, None) }
}

fn declined(reason: &str) -> OrderStatus {
    OrderStatus::PaymentDeclined { reason: reason.to_owned() }
}

fn decline(reason: &str) -> Outcome {
    Outcome::Declined { reason: reason.to_owned() }
}

fn captured() -> Outcome {
    Outcome::Captured(eur(1_000))
}

fn refunded() -> Outcome {
    Outcome::Refunded(eur(1_000))
}

fn first(outcome: Outcome) -> PaymentOutcome {
    PaymentOutcome { attempt: 1, outcome }
}

const PENDING: OrderStatus = OrderStatus::PendingPayment;
const PAID: OrderStatus = OrderStatus::Paid { refund_pending: false };
const REFUND_PENDING: OrderStatus = OrderStatus::Paid { refund_pending: true };
const CANCELLED: OrderStatus = OrderStatus::Cancelled(CancelReason::Customer);
const REFUNDED: OrderStatus = OrderStatus::Refunded;

#[test]
fn every_status_meets_every_outcome() {
    use Effect::{Noted, Nothing, Told};
    use Refusal::{Contradiction, WrongAmount};
    let table = [
        (PENDING, captured(), Ok(Told(OrderEvent::Paid)), PAID),
        (PENDING, decline("a"), Ok(Told(OrderEvent::Declined)), declined("a")),
        (PENDING, refunded(), Err(Contradiction), PENDING),
        (PENDING, Outcome::Voided, Err(Contradiction), PENDING),
        (PAID, captured(), Ok(Nothing), PAID),
        (PAID, decline("a"), Err(Contradiction), PAID),
        (PAID, refunded(), Err(Contradiction), PAID),
        (PAID, Outcome::Voided, Err(Contradiction), PAID),
        (REFUND_PENDING, captured(), Ok(Nothing), REFUND_PENDING),
        (REFUND_PENDING, decline("a"), Err(Contradiction), REFUND_PENDING),
        (REFUND_PENDING, refunded(), Ok(Told(OrderEvent::Refunded)), REFUNDED),
        (REFUND_PENDING, Outcome::Voided, Err(Contradiction), REFUND_PENDING),
        (declined("a"), captured(), Err(Contradiction), declined("a")),
        (declined("a"), decline("b"), Ok(Nothing), declined("a")),
        (declined("a"), refunded(), Err(Contradiction), declined("a")),
        (declined("a"), Outcome::Voided, Err(Contradiction), declined("a")),
        (CANCELLED, captured(), Ok(Nothing), CANCELLED),
        (CANCELLED, decline("a"), Ok(Nothing), CANCELLED),
        (CANCELLED, refunded(), Ok(Noted(Note::Refunded)), CANCELLED),
        (CANCELLED, Outcome::Voided, Ok(Noted(Note::Voided)), CANCELLED),
        (REFUNDED, captured(), Ok(Nothing), REFUNDED),
        (REFUNDED, decline("a"), Ok(Nothing), REFUNDED),
        (REFUNDED, refunded(), Ok(Nothing), REFUNDED),
        (REFUNDED, Outcome::Voided, Ok(Nothing), REFUNDED),
    ];
    for (status, outcome, result, end) in table {
        let case = format!("{status:?} meets {outcome:?}");
        let before = order(status.clone());
        let mut after = before.clone();
        assert_eq!(after.settle(first(outcome), LATER), result, "{case}");
        assert_eq!(after.status, end, "{case}");
        if matches!(result, Ok(Told(_))) {
            assert_eq!((after.revision, after.updated_at), (before.revision + 1, LATER), "{case}");
        } else {
            assert_eq!(after, before, "{case}: nothing may change");
        }
        let usd = Money::new("USD".parse().unwrap(), 1_000).unwrap();
        let wrong =
            [eur(999), usd].into_iter().flat_map(|amount| [Outcome::Captured(amount), Outcome::Refunded(amount)]);
        for wrong in wrong {
            let mut after = before.clone();
            assert_eq!(after.settle(first(wrong), LATER), Err(WrongAmount), "{status:?}");
            assert_eq!(after, before, "{status:?}");
        }
    }
}

#[test]
fn every_status_meets_a_cancellation_and_a_retry() {
    use Effect::{Nothing, Told};
    let (told_cancelled, told_refund) = (Told(OrderEvent::Cancelled), Told(OrderEvent::RefundRequested));
    let retried = Ok(Told(OrderEvent::PaymentRetried));
    let not_declined = Err(Refusal::NotDeclined);
    let table = [
        (PENDING, told_cancelled, CANCELLED, not_declined),
        (PAID, told_refund, REFUND_PENDING, not_declined),
        (REFUND_PENDING, Nothing, REFUND_PENDING, not_declined),
        (declined("a"), told_cancelled, CANCELLED, retried),
        (CANCELLED, Nothing, CANCELLED, not_declined),
        (REFUNDED, Nothing, REFUNDED, not_declined),
    ];
    for (status, effect, end, retry) in table {
        let mut cancelled = order(status.clone());
        assert_eq!((cancelled.cancel(CancelReason::Customer, LATER), &cancelled.status), (effect, &end), "{status:?}");
        let before = order(status.clone());
        let mut after = before.clone();
        assert_eq!(after.retry(PaymentToken::parse("tok_other").unwrap(), LATER), retry, "{status:?}");
        if retry.is_ok() {
            assert_eq!((&after.status, after.attempt, after.payment_token.as_str()), (&PENDING, 2, "tok_other"));
        } else {
            assert_eq!(after, before, "{status:?}");
        }
    }
}

#[test]
fn the_same_retry_again_is_no_error_and_another_one_is() {
    let mut order = order(declined("a"));
    let token = PaymentToken::parse("tok_other").unwrap();
    order.retry(token.clone(), LATER).unwrap();
    let once = order.clone();
    assert_eq!(order.retry(token, LATER), Ok(Effect::Nothing));
    assert_eq!(order.retry(PaymentToken::default(), LATER), Err(Refusal::NotDeclined));
    assert_eq!(order, once);
}

#[test]
fn tries_are_limited() {
    let mut order = order(declined("a"));
    order.attempt = PAYMENT_ATTEMPTS_MAX - 1;
    assert!(order.retry(PaymentToken::default(), LATER).is_ok());
    order.settle(PaymentOutcome { attempt: PAYMENT_ATTEMPTS_MAX, outcome: decline("b") }, LATER).unwrap();
    assert_eq!(order.retry(PaymentToken::default(), LATER), Err(Refusal::AttemptsExhausted));
}

#[test]
fn an_order_falls_due_by_the_earlier_of_its_deadlines() {
    let due = |mode, deadline_us| placed(mode, deadline_us).due().map(|(at, reason)| (at.0 - ACCEPTED.0, reason));
    use CancelReason::{PaymentDeadline, PaymentUnavailable};
    use CheckoutMode::{Asynchronous, Synchronous};
    assert_eq!(due(Asynchronous, None), None);
    assert_eq!(due(Asynchronous, Some(7)), Some((7, PaymentDeadline)));
    assert_eq!(due(Synchronous, None), Some((CALL_US, PaymentUnavailable)));
    assert_eq!(due(Synchronous, Some(7)), Some((7, PaymentDeadline)));
    assert_eq!(due(Synchronous, Some(CALL_US + 1)), Some((CALL_US, PaymentUnavailable)));
    // After a decline only the customer's deadline is left, and after a payment none.
    let mut order = placed(Synchronous, Some(70));
    order.settle(first(decline("a")), ACCEPTED).unwrap();
    assert_eq!(order.due(), Some((ACCEPTED.after_us(70), PaymentDeadline)));
    order.retry(PaymentToken::default(), ACCEPTED).unwrap();
    assert_eq!(order.due(), Some((ACCEPTED.after_us(70), PaymentDeadline)));
    assert_eq!(order.clone().give_up(LATER), Effect::Nothing, "the call that is given up was about the first try");
    assert_eq!(order.expire(ACCEPTED.after_us(69)), Effect::Nothing);
    assert_eq!(order.clone().expire(ACCEPTED.after_us(70)), Effect::Told(OrderEvent::Cancelled));
    order.settle(PaymentOutcome { attempt: 2, outcome: captured() }, ACCEPTED).unwrap();
    assert_eq!(order.due(), None);
}

/// Something that happens to an order.
#[derive(Clone, Debug)]
enum Happening {
    Outcome(PaymentOutcome),
    Cancel,
    GiveUp,
    Expire,
    Retry(u8),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let outcome = prop_oneof![
        4 => Just(captured()),
        3 => Just(decline("a")),
        2 => Just(refunded()),
        1 => Just(Outcome::Voided),
        1 => Just(Outcome::Captured(eur(1))),
    ];
    let outcome = (1..5_u32, outcome).prop_map(|(attempt, outcome)| PaymentOutcome { attempt, outcome });
    let happening = prop_oneof![
        6 => outcome.prop_map(Happening::Outcome),
        1 => Just(Happening::Cancel),
        1 => Just(Happening::GiveUp),
        1 => Just(Happening::Expire),
        3 => (0..3_u8).prop_map(Happening::Retry),
    ];
    prop::collection::vec(happening, 0..40)
}

fn happen(order: &mut Order, happening: Happening, now: TimestampUs) -> Result<Effect, Refusal> {
    match happening {
        Happening::Outcome(outcome) => order.settle(outcome, now),
        Happening::Cancel => Ok(order.cancel(CancelReason::Customer, now)),
        Happening::GiveUp => Ok(order.give_up(now)),
        Happening::Expire => Ok(order.expire(now)),
        Happening::Retry(card) => order.retry(PaymentToken::parse(format!("tok_{card}")).unwrap(), now),
    }
}

/// The status that an event leads to, as far as the world can tell.
fn told(event: OrderEvent) -> fn(&OrderStatus) -> bool {
    match event {
        OrderEvent::Placed => |_| false,
        OrderEvent::PaymentRetried => |status| *status == PENDING,
        OrderEvent::Paid => |status| *status == PAID,
        OrderEvent::Declined => |status| matches!(status, OrderStatus::PaymentDeclined { .. }),
        OrderEvent::Cancelled => |status| matches!(status, OrderStatus::Cancelled(_)),
        OrderEvent::RefundRequested => |status| *status == REFUND_PENDING,
        OrderEvent::Refunded => |status| *status == REFUNDED,
    }
}

/// The transitions of the diagram.
fn allowed(before: &OrderStatus, event: OrderEvent) -> bool {
    match event {
        OrderEvent::Placed => false,
        OrderEvent::Paid | OrderEvent::Declined => *before == PENDING,
        OrderEvent::PaymentRetried => matches!(before, OrderStatus::PaymentDeclined { .. }),
        OrderEvent::Cancelled => matches!(before, OrderStatus::PendingPayment | OrderStatus::PaymentDeclined { .. }),
        OrderEvent::RefundRequested => *before == PAID,
        OrderEvent::Refunded => *before == REFUND_PENDING,
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_order_follows_its_diagram(
        synchronous in any::<bool>(),
        deadline_us in prop::option::of(1..60_i64),
        happenings in happenings(),
    ) {
        let mode = if synchronous { CheckoutMode::Synchronous } else { CheckoutMode::Asynchronous };
        let mut order = placed(mode, deadline_us);
        let (mut paid, mut refund_requests, mut refunds, mut cancelled) = (0, 0, 0, 0);
        for (number, happening) in (1..).zip(happenings) {
            let now = ACCEPTED.after_us(2 * number);
            let before = order.clone();
            let effect = happen(&mut order, happening.clone(), now);
            let Ok(Effect::Told(event)) = effect else {
                prop_assert_eq!(&order, &before, "{:?} is not told, and changes nothing", happening);
                continue;
            };
            prop_assert!(allowed(&before.status, event), "{:?}: {:?} -> {:?}", happening, before.status, order.status);
            prop_assert!(told(event)(&order.status), "{:?} told of {:?}", event, order.status);
            prop_assert_eq!(order.revision, before.revision + 1);
            prop_assert_eq!(order.attempt, before.attempt + u32::from(event == OrderEvent::PaymentRetried));
            if let Happening::Outcome(outcome) = &happening {
                prop_assert_eq!(outcome.attempt, before.attempt, "only the current try counts");
            }
            paid += u32::from(event == OrderEvent::Paid);
            refund_requests += u32::from(event == OrderEvent::RefundRequested);
            refunds += u32::from(event == OrderEvent::Refunded);
            cancelled += u32::from(event == OrderEvent::Cancelled);
        }
        prop_assert!(paid + cancelled <= 1, "an order is paid or cancelled, and either once");
        prop_assert!(refund_requests <= paid && refunds <= refund_requests);
        prop_assert_eq!(matches!(order.status, OrderStatus::Cancelled(_)), cancelled == 1);
        prop_assert_eq!(matches!(order.status, OrderStatus::Paid { .. } | OrderStatus::Refunded), paid == 1);
        prop_assert_eq!(order.status == REFUNDED, refunds == 1);
    }
}
