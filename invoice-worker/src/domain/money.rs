use std::fmt;

use super::ValueError;

/// A currency as an ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Currency(String);

impl Currency {
    /// Takes three capital letters.
    pub(crate) fn parse(code: &str) -> Result<Self, ValueError> {
        let right = code.len() == 3 && code.chars().all(|c| c.is_ascii_uppercase());
        if right { Ok(Self(code.to_owned())) } else { Err(ValueError::Currency) }
    }

    /// The code itself.
    pub(crate) fn code(&self) -> &str {
        &self.0
    }

    /// An amount in minor units of this currency.
    pub(crate) fn money(&self, amount_minor: i64) -> Money {
        Money { minor_digits: minor_digits(&self.0), amount_minor }
    }
}

/// An amount as people read it, without its currency: `1,234.56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Money {
    minor_digits: usize,
    amount_minor: i64,
}

/// Digits after the point, by ISO 4217. Most currencies have two; these do not.
fn minor_digits(currency_code: &str) -> usize {
    match currency_code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minor_digits, amount_minor } = *self;
        // At least one digit stands in front of the point.
        let digits = format!("{:0>width$}", amount_minor.unsigned_abs(), width = minor_digits + 1);
        let (whole, part) = digits.split_at(digits.len() - minor_digits);
        if amount_minor < 0 {
            f.write_str("-")?;
        }
        for (at, digit) in whole.chars().enumerate() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        if minor_digits > 0 { write!(f, ".{part}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_the_digits_of_their_currency() {
        let table = [
            ("EUR", 0, "0.00"),
            ("EUR", 5, "0.05"),
            ("EUR", 1_299, "12.99"),
            ("EUR", 99_999, "999.99"),
            ("EUR", 100_000, "1,000.00"),
            ("EUR", 123_456_789, "1,234,567.89"),
            ("EUR", i64::MAX, "92,233,720,368,547,758.07"),
            ("EUR", -1_299, "-12.99"),
            ("JPY", 1_299, "1,299"),
            ("JPY", 0, "0"),
            ("KWD", 7, "0.007"),
            ("CLF", 12_345, "1.2345"),
        ];
        for (code, amount_minor, text) in table {
            assert_eq!(Currency::parse(code).unwrap().money(amount_minor).to_string(), text);
        }
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        for wrong in ["", "EU", "EURO", "eur", "E1R", "€€€"] {
            assert_eq!(Currency::parse(wrong), Err(ValueError::Currency), "{wrong}");
        }
    }
}
