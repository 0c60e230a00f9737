use std::fmt;

/// An amount as a customer reads it: `12.99 EUR`, `1299 JPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    /// The currency as an ISO 4217 code.
    pub(crate) currency_code: String,
    /// The amount in minor units.
    pub(crate) amount_minor: i64,
}

/// Digits after the point, by ISO 4217. Most currencies have two; these do not.
fn minor_digits(currency_code: &str) -> u32 {
    match currency_code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = minor_digits(&self.currency_code);
        let unit = 10_u64.pow(digits);
        let minor = self.amount_minor.unsigned_abs();
        let sign = if self.amount_minor < 0 { "-" } else { "" };
        let (whole, part) = (minor / unit, minor % unit);
        if digits == 0 {
            write!(f, "{sign}{whole} {}", self.currency_code)
        } else {
            write!(f, "{sign}{whole}.{part:0width$} {}", self.currency_code, width = digits as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_the_digits_of_their_currency() {
        let table = [
            ("EUR", 1_299, "12.99 EUR"),
            ("EUR", 5, "0.05 EUR"),
            ("EUR", 100, "1.00 EUR"),
            ("JPY", 1_299, "1299 JPY"),
            ("KWD", 1_299, "1.299 KWD"),
            ("KWD", 7, "0.007 KWD"),
            ("CLF", 12_345, "1.2345 CLF"),
            ("EUR", -1, "-0.01 EUR"),
            ("EUR", i64::MAX, "92233720368547758.07 EUR"),
            ("EUR", i64::MIN, "-92233720368547758.08 EUR"),
        ];
        for (currency_code, amount_minor, text) in table {
            assert_eq!(Amount { currency_code: currency_code.to_owned(), amount_minor }.to_string(), text);
        }
    }
}
