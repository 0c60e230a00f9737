use super::{CustomerId, Lines, Money, OrderId, PaymentToken};

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimestampUs(pub(crate) i64);

/// What a customer wants, checked, before it is an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewOrder {
    /// Who orders.
    pub(crate) customer_id: CustomerId,
    /// What is ordered.
    pub(crate) lines: Lines,
    /// What to charge.
    pub(crate) payment_token: PaymentToken,
}

/// An accepted order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Its id.
    pub(crate) id: OrderId,
    /// Who ordered.
    pub(crate) customer_id: CustomerId,
    /// What was ordered.
    pub(crate) lines: Lines,
    /// What to charge.
    pub(crate) payment_token: PaymentToken,
    /// How far it has come.
    pub(crate) status: OrderStatus,
    /// Counts the changes of the status, from 1: of two states of an order the greater one is the later one.
    pub(crate) revision: i64,
    /// When it was accepted.
    pub(crate) created_at: TimestampUs,
    /// When its status changed last.
    pub(crate) updated_at: TimestampUs,
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OrderStatus {
    /// Accepted; the payment is on its way or waits in the queue.
    PendingPayment,
    /// The card was charged. Final.
    Paid,
    /// The card was declined. Final.
    PaymentDeclined {
        /// The acquirer's reason.
        reason: String,
    },
}

/// How the payment of an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PaymentOutcome {
    /// The acquirer took this amount.
    Captured(Money),
    /// The acquirer said no.
    Declined {
        /// Its reason.
        reason: String,
    },
}

/// What the world is told about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderEvent {
    /// It was accepted.
    Placed,
    /// It was paid.
    Paid,
    /// Its card was declined.
    Declined,
}

/// Why an outcome cannot belong to the order. Somebody has to look at it: money may be in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutcomeError {
    /// The amount that was captured is not the order's total.
    #[error("the captured amount is not the total of the order")]
    WrongAmount,
    /// The order has already ended the other way.
    #[error("the outcome contradicts the end that the order has already reached")]
    Contradiction,
}

impl OrderStatus {
    /// Whether the order has reached its end.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::PendingPayment => false,
            Self::Paid | Self::PaymentDeclined { .. } => true,
        }
    }
}

impl Order {
    /// A new order that waits for its payment.
    pub(crate) fn place(new: NewOrder, id: OrderId, now: TimestampUs) -> Self {
        let NewOrder { customer_id, lines, payment_token } = new;
        Self {
            id,
            customer_id,
            lines,
            payment_token,
            status: OrderStatus::PendingPayment,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// Why the card was declined, if it was.
    pub(crate) fn decline_reason(&self) -> Option<&str> {
        match &self.status {
            OrderStatus::PaymentDeclined { reason } => Some(reason),
            OrderStatus::PendingPayment | OrderStatus::Paid => None,
        }
    }

    /// The amount to charge.
    pub(crate) fn total(&self) -> Money {
        self.lines.total()
    }

    /// Brings the order to its end and tells which event that causes: none if the outcome was known already.
    ///
    /// A final status never changes, whatever comes late or twice.
    pub(crate) fn apply(
        &mut self,
        outcome: PaymentOutcome,
        now: TimestampUs,
    ) -> Result<Option<OrderEvent>, OutcomeError> {
        if matches!(outcome, PaymentOutcome::Captured(amount) if amount != self.total()) {
            return Err(OutcomeError::WrongAmount);
        }
        let (status, event) = match (&self.status, outcome) {
            (OrderStatus::PendingPayment, PaymentOutcome::Captured(_)) => (OrderStatus::Paid, OrderEvent::Paid),
            (OrderStatus::PendingPayment, PaymentOutcome::Declined { reason }) => {
                (OrderStatus::PaymentDeclined { reason }, OrderEvent::Declined)
            }
            (OrderStatus::Paid, PaymentOutcome::Captured(_))
            | (OrderStatus::PaymentDeclined { .. }, PaymentOutcome::Declined { .. }) => return Ok(None),
            (OrderStatus::Paid, PaymentOutcome::Declined { .. })
            | (OrderStatus::PaymentDeclined { .. }, PaymentOutcome::Captured(_)) => {
                return Err(OutcomeError::Contradiction);
            }
        };
        self.status = status;
        self.revision += 1;
        self.updated_at = now;
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OrderLine, Quantity, Sku};

    const ACCEPTED: TimestampUs = TimestampUs(1);
    const LATER: TimestampUs = TimestampUs(2);

    fn eur(amount_minor: i64) -> Money {
        Money::new("EUR".parse().unwrap(), amount_minor).unwrap()
    }

    fn order(status: OrderStatus) -> Order {
        let line =
            OrderLine { sku: Sku::parse("tea").unwrap(), quantity: Quantity::new(2).unwrap(), unit_price: eur(500) };
        let new = NewOrder {
            customer_id: CustomerId::parse("ada").unwrap(),
            lines: Lines::new(vec![line]).unwrap(),
            payment_token: PaymentToken::default(),
        };
        let mut order = Order::place(new, OrderId::from_uuid(uuid::Uuid::now_v7()), ACCEPTED);
        order.status = status;
        order
    }

    fn declined(reason: &str) -> OrderStatus {
        OrderStatus::PaymentDeclined { reason: reason.to_owned() }
    }

    fn decline(reason: &str) -> PaymentOutcome {
        PaymentOutcome::Declined { reason: reason.to_owned() }
    }

    #[test]
    fn every_status_meets_every_outcome() {
        use OrderStatus::{Paid, PendingPayment};
        use OutcomeError::{Contradiction, WrongAmount};
        let captured = || PaymentOutcome::Captured(eur(1_000));
        let wrong_amount = || PaymentOutcome::Captured(eur(999));
        let wrong_currency = || PaymentOutcome::Captured(Money::new("USD".parse().unwrap(), 1_000).unwrap());
        let table = [
            (PendingPayment, captured(), Ok(Some(OrderEvent::Paid)), Paid),
            (PendingPayment, decline("a"), Ok(Some(OrderEvent::Declined)), declined("a")),
            (PendingPayment, wrong_amount(), Err(WrongAmount), PendingPayment),
            (PendingPayment, wrong_currency(), Err(WrongAmount), PendingPayment),
            (Paid, captured(), Ok(None), Paid),
            (Paid, decline("a"), Err(Contradiction), Paid),
            (Paid, wrong_amount(), Err(WrongAmount), Paid),
            (declined("a"), captured(), Err(Contradiction), declined("a")),
            (declined("a"), decline("a"), Ok(None), declined("a")),
            (declined("a"), decline("b"), Ok(None), declined("a")),
            (declined("a"), wrong_amount(), Err(WrongAmount), declined("a")),
        ];
        for (status, outcome, result, end) in table {
            let case = format!("{status:?} meets {outcome:?}");
            let before = order(status);
            let mut after = before.clone();
            assert_eq!(after.apply(outcome, LATER), result, "{case}");
            assert_eq!(after.status, end, "{case}");
            if matches!(result, Ok(Some(_))) {
                assert_eq!((after.revision, after.updated_at), (before.revision + 1, LATER), "{case}");
                assert!(after.status.is_final(), "{case}");
            } else {
                assert_eq!(after, before, "{case}: nothing may change");
            }
        }
    }

    #[test]
    fn a_new_order_waits_for_its_payment() {
        let order = order(OrderStatus::PendingPayment);
        assert!(!order.status.is_final());
        assert_eq!((order.total(), order.revision, order.created_at), (eur(1_000), 1, ACCEPTED));
    }
}
