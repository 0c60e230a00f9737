use std::fmt;

use super::Currency;

/// Lines of an invoice at most: more than an order has.
pub(crate) const LINES_MAX: usize = 1_000;

/// Pieces of one article at most: more than an order has.
pub(crate) const QUANTITY_MAX: u32 = 1_000_000;

/// Characters of an id, a name or an address at most.
pub(crate) const TEXT_CHARS_MAX: usize = 254;

/// Characters of an invoice number at most.
pub(crate) const INVOICE_NUMBER_CHARS_MAX: usize = 32;

/// The last second of the year 9999, since 1970.
const SECONDS_MAX: i64 = 253_402_300_799;

/// Seconds of a day.
const DAY_SECONDS: i64 = 86_400;

/// Everything that the page shows. Its lines add up to its total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invoice {
    pub(crate) number: String,
    pub(crate) order_id: String,
    pub(crate) customer_id: String,
    /// Empty when the customer gave none.
    pub(crate) customer_email: String,
    pub(crate) currency: Currency,
    lines: Vec<Line>,
    total_minor: i64,
    pub(crate) ordered_on: Date,
    pub(crate) paid_on: Date,
}

/// One article of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price_minor: i64,
}

/// A day in UTC, written `22 November 2026`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    year: i64,
    month: usize,
    day: i64,
}

/// Why a value cannot stand on an invoice. The text reads well behind the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("must have 1 to {TEXT_CHARS_MAX} characters")]
    Text,
    #[error("must have 1 to {INVOICE_NUMBER_CHARS_MAX} letters, digits and dashes")]
    Number,
    #[error("must have three capital letters")]
    Currency,
    #[error("must be 1 to {QUANTITY_MAX}")]
    Quantity,
    #[error("must lie between the years 1970 and 9999")]
    Date,
    #[error("must be 1 to {LINES_MAX} lines")]
    Lines,
    #[error("is negative or too large")]
    Amount,
    #[error("is not what the lines add up to")]
    Total,
}

impl Invoice {
    /// The lines.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What was paid, in minor units.
    pub(crate) fn total_minor(&self) -> i64 {
        self.total_minor
    }

    /// Gives an invoice its lines, which have to add up to its total.
    pub(crate) fn with_lines(self, lines: Vec<Line>, total_minor: i64) -> Result<Self, ValueError> {
        if !(1..=LINES_MAX).contains(&lines.len()) {
            return Err(ValueError::Lines);
        }
        let mut sum_minor = 0_i64;
        for line in &lines {
            sum_minor =
                sum_minor.checked_add(line.amount_minor().ok_or(ValueError::Amount)?).ok_or(ValueError::Amount)?;
        }
        if sum_minor != total_minor {
            return Err(ValueError::Total);
        }
        Ok(Self { lines, total_minor, ..self })
    }

    /// An invoice that has no lines yet.
    pub(crate) fn empty(
        number: String,
        order_id: String,
        customer_id: String,
        customer_email: String,
        currency: Currency,
        (ordered_on, paid_on): (Date, Date),
    ) -> Self {
        let (lines, total_minor) = (Vec::new(), 0);
        Self { number, order_id, customer_id, customer_email, currency, lines, total_minor, ordered_on, paid_on }
    }
}

impl Line {
    /// What the line costs, if that can be said.
    pub(crate) fn amount_minor(&self) -> Option<i64> {
        if self.unit_price_minor < 0 {
            return None;
        }
        self.unit_price_minor.checked_mul(i64::from(self.quantity))
    }
}

/// An id or a name.
pub(crate) fn text(text: String) -> Result<String, ValueError> {
    if (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) { Ok(text) } else { Err(ValueError::Text) }
}

/// `INV-000001`
pub(crate) fn invoice_number(text: String) -> Result<String, ValueError> {
    let right = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if right && (1..=INVOICE_NUMBER_CHARS_MAX).contains(&text.len()) { Ok(text) } else { Err(ValueError::Number) }
}

/// How many pieces.
pub(crate) fn quantity(pieces: u32) -> Result<u32, ValueError> {
    if (1..=QUANTITY_MAX).contains(&pieces) { Ok(pieces) } else { Err(ValueError::Quantity) }
}

/// The day of a second since 1970.
pub(crate) fn date(seconds: i64) -> Result<Date, ValueError> {
    if !(0..=SECONDS_MAX).contains(&seconds) {
        return Err(ValueError::Date);
    }
    let (mut days, mut year) = (seconds / DAY_SECONDS, 1970);
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 0;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    Ok(Date { year, month, day: days + 1 })
}

/// One more day in a leap year.
fn leap(year: i64) -> i64 {
    i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
}

fn month_days(year: i64, month: usize) -> i64 {
    match month {
        1 => 28 + leap(year),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        write!(f, "{} {} {}", self.day, MONTHS[self.month % 12], self.year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoice(lines: &[(u32, i64)], total_minor: i64) -> Result<Invoice, ValueError> {
        let day = date(0).unwrap();
        let currency = Currency::parse("EUR").unwrap();
        let line = |&(quantity, unit_price_minor)| Line { sku: "a".to_owned(), quantity, unit_price_minor };
        Invoice::empty("1".into(), "o".into(), "c".into(), String::new(), currency, (day, day))
            .with_lines(lines.iter().map(line).collect(), total_minor)
    }

    #[test]
    fn lines_have_to_add_up_to_the_total() {
        assert!(invoice(&[(2, 500), (1, 299)], 1_299).is_ok());
        assert_eq!(invoice(&[(2, 500), (1, 299)], 1_298), Err(ValueError::Total));
        assert_eq!(invoice(&[], 0), Err(ValueError::Lines));
        assert!(invoice(&[(1, 1); LINES_MAX], 1_000).is_ok());
        assert_eq!(invoice(&[(1, 1); LINES_MAX + 1], 1_001), Err(ValueError::Lines));
        assert_eq!(invoice(&[(1, i64::MAX), (1, 1)], i64::MIN), Err(ValueError::Amount));
        assert_eq!(invoice(&[(2, i64::MAX)], -2), Err(ValueError::Amount));
        assert_eq!(invoice(&[(1, -1)], -1), Err(ValueError::Amount));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let table = [
            (0, "1 January 1970"),
            (68_169_600, "29 February 1972"),
            (951_782_400, "29 February 2000"),
            (951_868_799, "29 February 2000"),
            (951_868_800, "1 March 2000"),
            (1_795_305_600, "22 November 2026"),
            (4_107_542_400, "1 March 2100"),
            (SECONDS_MAX, "31 December 9999"),
        ];
        for (seconds, text) in table {
            assert_eq!(date(seconds).unwrap().to_string(), text);
        }
        assert_eq!(date(-1), Err(ValueError::Date));
        assert_eq!(date(SECONDS_MAX + 1), Err(ValueError::Date));
    }

    #[test]
    fn values_have_limits() {
        assert!(text("ö".repeat(TEXT_CHARS_MAX)).is_ok());
        assert_eq!(text("ö".repeat(TEXT_CHARS_MAX + 1)), Err(ValueError::Text));
        assert_eq!(text(String::new()), Err(ValueError::Text));
        assert_eq!((quantity(0), quantity(QUANTITY_MAX + 1)), (Err(ValueError::Quantity), Err(ValueError::Quantity)));
        assert_eq!(quantity(QUANTITY_MAX), Ok(QUANTITY_MAX));
        assert!(invoice_number("INV-000001".to_owned()).is_ok());
        for wrong in ["", "INV 1", "../1", &"1".repeat(INVOICE_NUMBER_CHARS_MAX + 1)] {
            assert_eq!(invoice_number(wrong.to_owned()), Err(ValueError::Number), "{wrong}");
        }
    }
}
