use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::ValueError;

/// Characters that a customer id has at most.
pub(crate) const CUSTOMER_ID_CHARS_MAX: usize = 64;
/// Characters that an idempotency key has at most.
pub(crate) const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;
/// Characters that a payment token has at most.
pub(crate) const PAYMENT_TOKEN_CHARS_MAX: usize = 64;
/// Characters that a SKU has at most.
pub(crate) const SKU_CHARS_MAX: usize = 64;

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $max:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $name(String);

        impl $name {
            /// Checks the length and that no control character is in it.
            pub(crate) fn parse(text: impl Into<String>) -> Result<Self, ValueError> {
                checked(text.into(), $max).map(Self)
            }

            /// The text itself.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_newtype!(
    /// Who ordered: a name that the caller chooses.
    CustomerId,
    CUSTOMER_ID_CHARS_MAX
);
text_newtype!(
    /// What makes a repeated request recognisable.
    IdempotencyKey,
    IDEMPOTENCY_KEY_CHARS_MAX
);
text_newtype!(
    /// A card token that the acquirer knows.
    PaymentToken,
    PAYMENT_TOKEN_CHARS_MAX
);
text_newtype!(
    /// An article.
    Sku,
    SKU_CHARS_MAX
);

impl Default for PaymentToken {
    /// The card that is charged when the caller names none.
    fn default() -> Self {
        Self("tok_visa".to_owned())
    }
}

/// The id of an order: a UUID of version 7, so that ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OrderId(Uuid);

impl OrderId {
    /// An order id from a UUID that the caller made.
    pub(crate) fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for OrderId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ValueError::Uuid)
    }
}

impl fmt::Display for OrderId {
    /// Lower case with hyphens. Texts of this form sort as the ids do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

fn checked(text: String, chars_max: usize) -> Result<String, ValueError> {
    // Bytes bound characters from above, so a giant text is not counted through.
    if text.is_empty() || text.len() > 4 * chars_max || text.chars().count() > chars_max {
        return Err(ValueError::Length { max: chars_max });
    }
    if text.chars().any(char::is_control) {
        return Err(ValueError::ControlCharacter);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_in_characters_and_both_ends_are_allowed() {
        let longest = "ü".repeat(SKU_CHARS_MAX);
        assert_eq!(Sku::parse(longest.clone()).unwrap().as_str(), longest);
        assert!(Sku::parse("x").is_ok());
        let too_long = Err(ValueError::Length { max: SKU_CHARS_MAX });
        assert_eq!(Sku::parse(longest + "x"), too_long);
        assert_eq!(Sku::parse(""), too_long);
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\0b", "\n", "a\u{7f}"] {
            assert_eq!(CustomerId::parse(text), Err(ValueError::ControlCharacter), "{text:?}");
        }
    }

    #[test]
    fn order_ids_round_trip_and_other_texts_are_refused() {
        let id = OrderId::from_uuid(Uuid::now_v7());
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "42", "0190163d-8694-739b-aea5-966c26f8ad9", "zzzzzzzz-8694-739b-aea5-966c26f8ad91"] {
            assert_eq!(text.parse::<OrderId>(), Err(ValueError::Uuid), "{text:?}");
        }
    }
}
