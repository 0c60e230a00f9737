use super::{Kind, Notification};

/// Characters that an e-mail address has at most, by RFC 5321.
pub(crate) const ADDRESS_CHARS_MAX: usize = 254;

/// An address that mail can be sent to: it has no character that could begin another header or command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EmailAddress(String);

/// Why an address was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmailAddressError {
    /// Longer than mail allows.
    #[error("the address has more than {ADDRESS_CHARS_MAX} characters")]
    TooLong,
    /// Not of the form that mail servers take everywhere.
    #[error("the address is not of the form name@domain")]
    Form,
}

impl EmailAddress {
    /// Takes the plain form that every mail server takes: a dotted ASCII name without quotes, and a domain.
    pub(crate) fn parse(text: &str) -> Result<Self, EmailAddressError> {
        if text.len() > ADDRESS_CHARS_MAX {
            return Err(EmailAddressError::TooLong);
        }
        let (name, domain) = text.rsplit_once('@').ok_or(EmailAddressError::Form)?;
        // By RFC 5321: the local part has up to 64 characters, a label of a domain up to 63.
        let is_name = name.len() <= 64
            && name.split('.').all(|word| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
            });
        let is_domain = domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        if is_name && is_domain { Ok(Self(text.to_owned())) } else { Err(EmailAddressError::Form) }
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An e-mail that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Email {
    /// What it tells.
    pub(crate) notification: Notification,
    /// To whom.
    pub(crate) address: String,
    /// How often the mail server has put it off.
    pub(crate) attempts: u32,
}

/// What a customer reads in the list of mails.
pub(crate) fn subject(kind: Kind, order_id: &str) -> String {
    let what = match kind {
        Kind::OrderReceived => "We have received your order",
        Kind::PaymentCaptured => "We have charged your card for order",
        Kind::PaymentDeclined => "Your card was declined for order",
        Kind::OrderConfirmed => "Confirmation of your order",
        Kind::OrderCancelled => "Cancellation of your order",
        Kind::PaymentRefunded => "Refund for your order",
        Kind::InvoiceReady => "Invoice for your order",
    };
    // An order id comes from an event: nothing in it may end the line.
    let order_id: String = order_id.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{what} {order_id}")
}

/// What a customer reads in the mail.
pub(crate) fn body(kind: Kind, text: &str) -> String {
    let more = match kind {
        Kind::InvoiceReady => "\n\nYou find it attached to this e-mail.",
        Kind::PaymentDeclined => "\n\nNothing was charged. You can try again with another card.",
        Kind::PaymentRefunded => "\n\nDepending on your bank, it may take some days until you see it.",
        Kind::OrderReceived | Kind::PaymentCaptured | Kind::OrderConfirmed | Kind::OrderCancelled => "",
    };
    format!("Hello,\n\n{text}{more}\n\nKind regards\nYour shop\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_or_refused() {
        let long_name = format!("{}@example.org", "a".repeat(64));
        for right in ["ada@example.org", "a.b+c@mail.example", "x@localhost", &long_name] {
            assert_eq!(EmailAddress::parse(right).map(|address| address.0), Ok(right.to_owned()));
        }
        let too_long_name = format!("{}@example.org", "a".repeat(65));
        let too_long_label = format!("a@{}.org", "a".repeat(64));
        let wrong = [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@@example.org",
            "a..b@example.org",
            ".a@example.org",
            "ada@example..org",
            "ada@-example.org",
            "Ada <ada@example.org>",
            "ada@example.org, eve@example.org",
            "ada@example.org\r\nBcc: eve@example.org",
            "ada\n@example.org",
            "\"a b\"@example.org",
            "ada@[127.0.0.1]",
            "ädä@example.org",
            "ada@exämple.org",
            &too_long_name,
            &too_long_label,
        ];
        for wrong in wrong {
            assert_eq!(EmailAddress::parse(wrong), Err(EmailAddressError::Form), "{wrong:?}");
        }
        let labels = "a.".repeat(ADDRESS_CHARS_MAX / 2);
        assert_eq!(EmailAddress::parse(&format!("x@{labels}a")), Err(EmailAddressError::TooLong));
        assert!(EmailAddress::parse(&format!("x@{}", &labels[..ADDRESS_CHARS_MAX - 3])).is_ok());
    }

    #[test]
    fn a_subject_is_one_line_whatever_the_order_is_called() {
        assert_eq!(subject(Kind::OrderConfirmed, "o-1"), "Confirmation of your order o-1");
        let evil = subject(Kind::InvoiceReady, "o\r\nBcc: eve@example.org");
        assert_eq!(evil, "Invoice for your order o??Bcc: eve@example.org");
    }

    #[test]
    fn every_kind_has_a_subject_of_its_own() {
        let subjects: std::collections::HashSet<_> = Kind::ALL.map(|kind| subject(kind, "o-1")).into();
        assert_eq!(subjects.len(), Kind::ALL.len());
    }
}
