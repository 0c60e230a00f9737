use super::{CustomerId, Email, InvoiceNumber, Lines, Money, OrderId, PaymentToken};

/// The shortest time that an order may wait for its payment, in microseconds: 1 s.
pub(crate) const PAYMENT_DEADLINE_US_MIN: i64 = 1_000_000;
/// The longest time that an order may wait for its payment, in microseconds: 30 days.
pub(crate) const PAYMENT_DEADLINE_US_MAX: i64 = 30 * 24 * 60 * 60 * 1_000_000;

/// Characters of a decline's reason that are kept at most.
pub(crate) const DECLINE_REASON_CHARS_MAX: usize = 256;

/// Microseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimestampUs(pub(crate) i64);

impl TimestampUs {
    /// So many microseconds later.
    pub(crate) fn after_us(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

/// How an order is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CheckoutMode {
    /// Its payment goes through a queue.
    #[default]
    Asynchronous,
    /// It is charged within the request that places it.
    Synchronous,
}

/// What a customer wants, checked, before it is an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewOrder {
    /// Who orders.
    pub(crate) customer_id: CustomerId,
    /// Where the customer gets e-mail.
    pub(crate) customer_email: Option<Email>,
    /// What is ordered.
    pub(crate) lines: Lines,
    /// What to charge.
    pub(crate) payment_token: PaymentToken,
    /// How it is paid for.
    pub(crate) checkout_mode: CheckoutMode,
    /// How long it may wait for its payment, in microseconds.
    pub(crate) payment_deadline_us: Option<i64>,
}

/// An accepted order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Its id.
    pub(crate) id: OrderId,
    /// Who ordered.
    pub(crate) customer_id: CustomerId,
    /// Where the customer gets e-mail.
    pub(crate) customer_email: Option<Email>,
    /// What was ordered.
    pub(crate) lines: Lines,
    /// What to charge.
    pub(crate) payment_token: PaymentToken,
    /// How it is paid for.
    pub(crate) checkout_mode: CheckoutMode,
    /// How far it has come.
    pub(crate) status: OrderStatus,
    /// Which try of the payment stands, from 1.
    pub(crate) attempt: u32,
    /// When it is cancelled by itself if it is still unpaid.
    pub(crate) payment_deadline: Option<TimestampUs>,
    /// When the call that charges it is over for certain; only while a synchronous checkout is under way.
    pub(crate) call_deadline: Option<TimestampUs>,
    /// The number of its invoice, once it was paid.
    pub(crate) invoice_number: Option<InvoiceNumber>,
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
    /// The card was charged.
    Paid {
        /// The money is to go back and has not yet.
        refund_pending: bool,
    },
    /// The card was declined. Another can be tried.
    PaymentDeclined {
        /// The acquirer's reason.
        reason: String,
    },
    /// Ended without money. Final.
    Cancelled(CancelReason),
    /// Paid once, and the money went back. Final.
    Refunded,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// The customer asked for it.
    Customer,
    /// The payment did not come in time.
    PaymentDeadline,
    /// A synchronous checkout got no answer about its payment.
    PaymentUnavailable,
}

impl OrderStatus {
    /// Whether the order waits for something that others do.
    pub(crate) fn is_waiting(&self) -> bool {
        match self {
            Self::PendingPayment | Self::Paid { refund_pending: true } => true,
            Self::Paid { refund_pending: false }
            | Self::PaymentDeclined { .. }
            | Self::Cancelled(_)
            | Self::Refunded => false,
        }
    }
}

impl Order {
    /// A new order that waits for its payment. One that is charged within its request gets the time at which that call is
    /// over for certain.
    pub(crate) fn place(new: NewOrder, id: OrderId, now: TimestampUs, call_us: i64) -> Self {
        let NewOrder { customer_id, customer_email, lines, payment_token, checkout_mode, payment_deadline_us } = new;
        Self {
            id,
            customer_id,
            customer_email,
            lines,
            payment_token,
            checkout_mode,
            status: OrderStatus::PendingPayment,
            attempt: 1,
            payment_deadline: payment_deadline_us.map(|us| now.after_us(us)),
            call_deadline: (checkout_mode == CheckoutMode::Synchronous).then(|| now.after_us(call_us)),
            invoice_number: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// Why the card was declined, if it was.
    pub(crate) fn decline_reason(&self) -> Option<&str> {
        match &self.status {
            OrderStatus::PaymentDeclined { reason } => Some(reason),
            _ => None,
        }
    }

    /// Why the order was cancelled, if it was.
    pub(crate) fn cancel_reason(&self) -> Option<CancelReason> {
        match self.status {
            OrderStatus::Cancelled(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether a refund was asked for and has not come yet.
    pub(crate) fn refund_pending(&self) -> bool {
        self.status == OrderStatus::Paid { refund_pending: true }
    }

    /// The amount to charge.
    pub(crate) fn total(&self) -> Money {
        self.lines.total()
    }

    /// When the order is cancelled by itself if nothing happens before, and for which reason.
    pub(crate) fn due(&self) -> Option<(TimestampUs, CancelReason)> {
        let deadline = self.payment_deadline.map(|at| (at, CancelReason::PaymentDeadline));
        let call = self.call_deadline.map(|at| (at, CancelReason::PaymentUnavailable));
        match self.status {
            OrderStatus::PendingPayment => [call, deadline].into_iter().flatten().min_by_key(|(at, _)| *at),
            OrderStatus::PaymentDeclined { .. } => deadline,
            OrderStatus::Paid { .. } | OrderStatus::Cancelled(_) | OrderStatus::Refunded => None,
        }
    }
}
