//! How the parts of an order are written into columns. What is read back is parsed as strictly as what comes by the wire.

use serde::{Deserialize, Serialize};
use service_kit::db::Error;

use crate::app::StatusKind;
use crate::domain::{CurrencyCode, Lines, Money, OrderLine, OrderStatus, Quantity, Sku};

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
    }
}

pub(super) fn decode_status(status: &str, reason: String) -> Result<OrderStatus, Error> {
    match status {
        "PENDING_PAYMENT" => Ok(OrderStatus::PendingPayment),
        "PAID" => Ok(OrderStatus::Paid),
        "PAYMENT_DECLINED" => Ok(OrderStatus::PaymentDeclined { reason }),
        other => Err(Error::column("status", format!("unknown status `{other}`"))),
    }
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
        let declined = OrderStatus::PaymentDeclined { reason: "stolen_card".to_owned() };
        for status in [OrderStatus::PendingPayment, OrderStatus::Paid, declined] {
            let reason =
                if let OrderStatus::PaymentDeclined { reason } = &status { reason.clone() } else { String::new() };
            assert_eq!(decode_status(encode_status((&status).into()), reason).unwrap(), status);
        }
        assert!(decode_status("paid", String::new()).is_err());
    }
}
