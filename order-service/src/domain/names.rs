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
/// Characters that an e-mail address has at most.
pub(crate) const EMAIL_CHARS_MAX: usize = 254;
/// Characters that the part of an e-mail address before the `@` has at most.
pub(crate) const EMAIL_LOCAL_CHARS_MAX: usize = 64;

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

/// Where a customer gets e-mail. Personal data: its debug form does not show it, so that no log can.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Email(String);

impl Email {
    /// Checks the form: one `@` between two parts, of printable ASCII without what could end a header or a list.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = checked(text.into(), EMAIL_CHARS_MAX)?;
        let allowed = |c: char| c.is_ascii_graphic() && !"<>()[]\\,;:\"@".contains(c);
        let dots_inside = |part: &str| !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
        match text.split_once('@') {
            Some((local, domain))
                if (1..=EMAIL_LOCAL_CHARS_MAX).contains(&local.len())
                    && !domain.is_empty()
                    && [local, domain].iter().all(|part| part.chars().all(allowed) && dots_inside(part)) =>
            {
                Ok(Self(text))
            }
            _ => Err(ValueError::Email),
        }
    }

    /// The address itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// The number of an invoice: counts paid orders, from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvoiceNumber(pub(crate) i64);

impl fmt::Display for InvoiceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INV-{:06}", self.0)
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

    #[test]
    fn addresses_have_one_at_and_nothing_that_ends_a_header() {
        let longest_local = format!("{}@example.org", "l".repeat(EMAIL_LOCAL_CHARS_MAX));
        let longest = format!("a@{}", "d".repeat(EMAIL_CHARS_MAX - 2));
        for text in ["ada@example.org", "ada.l+tea@example", &longest_local, &longest] {
            assert_eq!(Email::parse(text).unwrap().as_str(), text);
        }
        let long_local = format!("{}@example.org", "l".repeat(EMAIL_LOCAL_CHARS_MAX + 1));
        let bad = [
            "ada",
            "@",
            "ada@",
            "@example.org",
            "a@b@c",
            "a b@c",
            "a@b c",
            "<a@b>",
            "a,b@c",
            "a;b@c",
            "ä@c",
            ".a@c",
            "a@c.",
            "a..b@c",
            "\"a\"@c",
            &long_local,
        ];
        for text in bad {
            assert_eq!(Email::parse(text), Err(ValueError::Email), "{text:?}");
        }
        assert_eq!(Email::parse("a@b\r\nBcc: c@d"), Err(ValueError::ControlCharacter));
        assert_eq!(Email::parse(longest + "d"), Err(ValueError::Length { max: EMAIL_CHARS_MAX }));
        assert!(!format!("{:?}", Email::parse("ada@example.org")).contains("ada"));
    }

    #[test]
    fn invoice_numbers_have_six_digits_or_more() {
        assert_eq!(InvoiceNumber(1).to_string(), "INV-000001");
        assert_eq!(InvoiceNumber(1_234_567).to_string(), "INV-1234567");
    }
}
