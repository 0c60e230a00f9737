//! How the parts of an order are written into columns. What is read back is parsed as strictly as what comes by the wire.

use serde::{Deserialize, Serialize};
use service_kit::db::Error;

use crate::app::{StatusKind, StepKind};
use crate::domain::{CancelReason, CheckoutMode, CurrencyCode, Lines, Money, OrderLine, OrderStatus, Quantity, Sku};

/// Version of the form of the `lines` column. A reader refuses versions that it does not know.
const LINES_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinesColumn {
    version: u32,
    lines: Vec<LineColumn>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineColumn {
    sku: String,
    quantity: u32,
    unit_price_minor: i64,
}

/// The lines as JSON; their currency has its own column.
pub(super) fn encode_lines(lines: &Lines) -> Result<String, Error> {
    let lines = lines.as_slice().iter().map(|line| LineColumn {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity.get(),
        unit_price_minor: line.unit_price.amount_minor(),
    });
    let column = LinesColumn { version: LINES_VERSION, lines: lines.collect() };
    serde_json::to_string(&column).map_err(|error| Error::column("lines", error))
}

pub(super) fn decode_lines(text: &str, currency: CurrencyCode) -> Result<Lines, Error> {
    let column: LinesColumn = serde_json::from_str(text).map_err(|error| Error::column("lines", error))?;
    if column.version != LINES_VERSION {
        return Err(Error::column("lines", format!("unknown version {}", column.version)));
    }
    let lines = column.lines.into_iter().map(|line| {
        Ok(OrderLine {
            sku: Sku::parse(line.sku)?,
            quantity: Quantity::new(line.quantity)?,
            unit_price: Money::new(currency, line.unit_price_minor)?,
        })
    });
    let lines =
        lines.collect::<Result<Vec<_>, crate::domain::ValueError>>().map_err(|error| Error::column("lines", error))?;
    Lines::new(lines).map_err(|error| Error::column("lines", error))
}

pub(super) fn encode_status(status: StatusKind) -> &'static str {
    match status {
        StatusKind::PendingPayment => "PENDING_PAYMENT",
        StatusKind::Paid => "PAID",
        StatusKind::PaymentDeclined => "PAYMENT_DECLINED",
        StatusKind::Cancelled => "CANCELLED",
        StatusKind::Refunded => "REFUNDED",
    }
}

/// The columns that make a status.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusColumns {
    pub(super) status: String,
    pub(super) decline_reason: String,
    pub(super) cancel_reason: String,
    pub(super) refund_pending: i64,
}

pub(super) fn decode_status(columns: StatusColumns) -> Result<OrderStatus, Error> {
    match columns.status.as_str() {
        "PENDING_PAYMENT" => Ok(OrderStatus::PendingPayment),
        "PAID" => Ok(OrderStatus::Paid { refund_pending: columns.refund_pending == 1 }),
        "PAYMENT_DECLINED" => Ok(OrderStatus::PaymentDeclined { reason: columns.decline_reason }),
        "CANCELLED" => Ok(OrderStatus::Cancelled(decode_cancel_reason(&columns.cancel_reason)?)),
        "REFUNDED" => Ok(OrderStatus::Refunded),
        other => Err(Error::column("status", format!("unknown status `{other}`"))),
    }
}

/// Empty stands for none.
pub(super) fn encode_cancel_reason(reason: Option<CancelReason>) -> &'static str {
    match reason {
        None => "",
        Some(CancelReason::Customer) => "CUSTOMER",
        Some(CancelReason::PaymentDeadline) => "PAYMENT_DEADLINE",
        Some(CancelReason::PaymentUnavailable) => "PAYMENT_UNAVAILABLE",
    }
}

fn decode_cancel_reason(text: &str) -> Result<CancelReason, Error> {
    use CancelReason::{Customer, PaymentDeadline, PaymentUnavailable};
    let known = [Customer, PaymentDeadline, PaymentUnavailable];
    let found = known.into_iter().find(|reason| encode_cancel_reason(Some(*reason)) == text);
    found.ok_or_else(|| Error::column("cancel_reason", format!("unknown reason `{text}`")))
}

pub(super) fn encode_mode(mode: CheckoutMode) -> &'static str {
    match mode {
        CheckoutMode::Asynchronous => "ASYNCHRONOUS",
        CheckoutMode::Synchronous => "SYNCHRONOUS",
    }
}

pub(super) fn decode_mode(text: &str) -> Result<CheckoutMode, Error> {
    match text {
        "ASYNCHRONOUS" => Ok(CheckoutMode::Asynchronous),
        "SYNCHRONOUS" => Ok(CheckoutMode::Synchronous),
        other => Err(Error::column("checkout_mode", format!("unknown mode `{other}`"))),
    }
}

/// What the timeline's table holds, and how it is written. The other kinds are told by others.
const STEP_KINDS: [(StepKind, &str); 8] = [
    (StepKind::Queued, "QUEUED"),
    (StepKind::Declined, "DECLINED"),
    (StepKind::Retried, "PAYMENT_RETRIED"),
    (StepKind::Paid, "PAID"),
    (StepKind::Cancelled, "CANCELLED"),
    (StepKind::RefundRequested, "REFUND_REQUESTED"),
    (StepKind::Refunded, "REFUNDED"),
    (StepKind::Voided, "VOIDED"),
];

pub(super) fn encode_step_kind(kind: StepKind) -> Result<&'static str, Error> {
    let found = STEP_KINDS.iter().find(|(known, _)| *known == kind).map(|(_, text)| *text);
    found.ok_or_else(|| Error::column("kind", format!("a step of the kind {kind:?} is not kept")))
}

pub(super) fn decode_step_kind(text: &str) -> Result<StepKind, Error> {
    let found = STEP_KINDS.iter().find(|(_, known)| *known == text).map(|(kind, _)| *kind);
    found.ok_or_else(|| Error::column("kind", format!("unknown step `{text}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur() -> CurrencyCode {
        "EUR".parse().unwrap()
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let line = |sku: &str, quantity, amount| OrderLine {
            sku: Sku::parse(sku).unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
            unit_price: Money::new(eur(), amount).unwrap(),
        };
        let lines = Lines::new(vec![line("tea \"green\"", 1, 0), line("Öl", 10_000, 1_299)]).unwrap();
        assert_eq!(decode_lines(&encode_lines(&lines).unwrap(), eur()).unwrap(), lines);
    }

    #[test]
    fn the_form_of_the_lines_column_is_kept() {
        let stored = r#"{"version":1,"lines":[{"sku":"tea","quantity":2,"unit_price_minor":500}]}"#;
        let lines = decode_lines(stored, eur()).unwrap();
        assert_eq!(lines.total().amount_minor(), 1_000);
        assert_eq!(encode_lines(&lines).unwrap(), stored);
    }

    #[test]
    fn lines_that_make_no_order_are_refused() {
        let table = [
            "",
            "[]",
            r#"{"version":1,"lines":[]}"#,
            r#"{"version":2,"lines":[{"sku":"tea","quantity":2,"unit_price_minor":500}]}"#,
            r#"{"version":1,"lines":[{"sku":"","quantity":2,"unit_price_minor":500}]}"#,
            r#"{"version":1,"lines":[{"sku":"tea","quantity":0,"unit_price_minor":500}]}"#,
            r#"{"version":1,"lines":[{"sku":"tea","quantity":2,"unit_price_minor":-500}]}"#,
            r#"{"version":1,"lines":[{"sku":"tea","quantity":2}]}"#,
            r#"{"version":1,"lines":[{"sku":"tea","quantity":2,"unit_price_minor":500,"gift":true}]}"#,
        ];
        for stored in table {
            assert!(decode_lines(stored, eur()).is_err(), "{stored}");
        }
    }

    #[test]
    fn every_status_comes_back_and_others_are_refused() {
        let columns = |status: &OrderStatus| StatusColumns {
            status: encode_status(status.into()).to_owned(),
            decline_reason: "stolen_card".to_owned(),
            cancel_reason: match status {
                OrderStatus::Cancelled(reason) => encode_cancel_reason(Some(*reason)).to_owned(),
                _ => String::new(),
            },
            refund_pending: i64::from(*status == OrderStatus::Paid { refund_pending: true }),
        };
        let all = [
            OrderStatus::PendingPayment,
            OrderStatus::Paid { refund_pending: false },
            OrderStatus::Paid { refund_pending: true },
            OrderStatus::PaymentDeclined { reason: "stolen_card".to_owned() },
            OrderStatus::Cancelled(CancelReason::Customer),
            OrderStatus::Cancelled(CancelReason::PaymentDeadline),
            OrderStatus::Cancelled(CancelReason::PaymentUnavailable),
            OrderStatus::Refunded,
        ];
        for status in all {
            assert_eq!(decode_status(columns(&status)).unwrap(), status);
        }
        for (status, cancel_reason) in [("paid", ""), ("", ""), ("CANCELLED", ""), ("CANCELLED", "BORED")] {
            let columns =
                StatusColumns { status: status.into(), cancel_reason: cancel_reason.into(), ..Default::default() };
            assert!(decode_status(columns).is_err(), "{status} {cancel_reason}");
        }
    }

    #[test]
    fn modes_and_steps_come_back_and_others_are_refused() {
        for mode in [CheckoutMode::Asynchronous, CheckoutMode::Synchronous] {
            assert_eq!(decode_mode(encode_mode(mode)).unwrap(), mode);
        }
        assert!(decode_mode("").is_err());
        for (kind, text) in STEP_KINDS {
            assert_eq!((encode_step_kind(kind).unwrap(), decode_step_kind(text).unwrap()), (text, kind));
        }
        assert!(decode_step_kind("NOTIFIED").is_err());
        assert!(encode_step_kind(StepKind::Notified).is_err());
    }
}
