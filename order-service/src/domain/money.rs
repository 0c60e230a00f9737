use std::fmt;
use std::str::FromStr;

use super::ValueError;

/// A currency as an ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CurrencyCode([u8; 3]);

impl CurrencyCode {
    /// The three letters.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for CurrencyCode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(ValueError::Currency),
        }
    }
}

impl fmt::Display for CurrencyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CurrencyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of zero or more, in the minor unit of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Money {
    currency: CurrencyCode,
    amount_minor: i64,
}

impl Money {
    /// Refuses amounts below zero.
    pub(crate) fn new(currency: CurrencyCode, amount_minor: i64) -> Result<Self, ValueError> {
        if amount_minor < 0 { Err(ValueError::Negative) } else { Ok(Self { currency, amount_minor }) }
    }

    /// The currency.
    pub(crate) fn currency(&self) -> CurrencyCode {
        self.currency
    }

    /// The amount in minor units.
    pub(crate) fn amount_minor(&self) -> i64 {
        self.amount_minor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_capital_letters_are_a_currency() {
        assert_eq!("EUR".parse::<CurrencyCode>().unwrap().as_str(), "EUR");
        for text in ["", "EU", "EURO", "eur", "E1R", "É"] {
            assert_eq!(text.parse::<CurrencyCode>(), Err(ValueError::Currency), "{text:?}");
        }
    }

    #[test]
    fn amounts_below_zero_are_refused() {
        let eur = "EUR".parse().unwrap();
        assert_eq!(Money::new(eur, 0).unwrap().amount_minor(), 0);
        assert_eq!(Money::new(eur, -1), Err(ValueError::Negative));
    }
}
