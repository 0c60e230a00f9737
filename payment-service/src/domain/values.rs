use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Characters that a customer id has at most.
pub(crate) const CUSTOMER_ID_CHARS_MAX: usize = 64;
/// Characters that a card token has at most.
pub(crate) const PAYMENT_TOKEN_CHARS_MAX: usize = 64;
/// Letters of a currency code.
pub(crate) const CURRENCY_CODE_CHARS: usize = 3;

/// Why a value was refused. The text reads well behind the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// A text is empty or too long.
    #[error("must have 1 to {max} characters")]
    Length {
        /// The greatest number of characters allowed.
        max: usize,
    },
    /// An order id is not a UUID.
    #[error("must be a UUID")]
    Uuid,
    /// A currency is not three capital letters.
    #[error("must be an ISO 4217 code of three capital letters")]
    Currency,
    /// There is nothing to charge.
    #[error("must be more than zero")]
    NotPositive,
}

/// The order that is paid: a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OrderId(Uuid);

impl FromStr for OrderId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ValueError::Uuid)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CustomerId(String);

impl CustomerId {
    /// Checks the length.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, ValueError> {
        checked(text.into(), CUSTOMER_ID_CHARS_MAX).map(Self)
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is charged: a token that the acquirer knows. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CardToken(String);

impl CardToken {
    /// Checks the length.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, ValueError> {
        checked(text.into(), PAYMENT_TOKEN_CHARS_MAX).map(Self)
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CardToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardToken(..)")
    }
}

/// A currency as an ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CurrencyCode(String);

impl CurrencyCode {
    /// The three letters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CurrencyCode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.len() == CURRENCY_CODE_CHARS && text.bytes().all(|letter| letter.is_ascii_uppercase()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::Currency)
        }
    }
}

/// An amount of more than zero, in the minor unit of its currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Money {
    currency: CurrencyCode,
    amount_minor: i64,
}

impl Money {
    /// Refuses zero and less.
    pub(crate) fn new(currency: CurrencyCode, amount_minor: i64) -> Result<Self, ValueError> {
        if amount_minor > 0 { Ok(Self { currency, amount_minor }) } else { Err(ValueError::NotPositive) }
    }

    /// The currency.
    pub(crate) fn currency(&self) -> &CurrencyCode {
        &self.currency
    }

    /// The amount in minor units.
    pub(crate) fn amount_minor(&self) -> i64 {
        self.amount_minor
    }
}

fn checked(text: String, chars_max: usize) -> Result<String, ValueError> {
    if (1..=chars_max).contains(&text.chars().count()) { Ok(text) } else { Err(ValueError::Length { max: chars_max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused() {
        let eur: CurrencyCode = "EUR".parse().unwrap();
        assert_eq!(Money::new(eur.clone(), 1).unwrap().amount_minor(), 1);
        assert_eq!(Money::new(eur.clone(), 0), Err(ValueError::NotPositive));
        assert_eq!(Money::new(eur, -1), Err(ValueError::NotPositive));
        assert_eq!("eur".parse::<CurrencyCode>(), Err(ValueError::Currency));
        assert_eq!("EURO".parse::<CurrencyCode>(), Err(ValueError::Currency));
        assert_eq!("42".parse::<OrderId>(), Err(ValueError::Uuid));
        assert!(CustomerId::parse("x".repeat(CUSTOMER_ID_CHARS_MAX)).is_ok());
        let too_long = Err(ValueError::Length { max: CUSTOMER_ID_CHARS_MAX });
        assert_eq!(CustomerId::parse("x".repeat(CUSTOMER_ID_CHARS_MAX + 1)), too_long);
        assert_eq!(CustomerId::parse(""), too_long);
    }

    #[test]
    fn a_card_token_does_not_show_in_logs() {
        let token = CardToken::parse("tok_visa").unwrap();
        assert!(!format!("{token:?}").contains("visa"));
    }
}
