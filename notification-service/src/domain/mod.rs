//! What a notification is and how events are told to customers. Pure: no I/O, no clock, nothing of ours.

mod amount;
mod email;
mod invoice;
mod notification;

pub(crate) use amount::Amount;
pub(crate) use email::{Email, EmailAddress, EmailAddressError, body, subject};
pub(crate) use invoice::{Invoice, InvoiceNumber, InvoiceNumberError, KeptInvoice, PDF_BYTES_MAX};
pub(crate) use notification::{CancelReason, Draft, Happening, Kind, Notification, TimestampUs, draft};

/// Characters that a customer id has at most.
pub(crate) const CUSTOMER_ID_CHARS_MAX: usize = 64;

/// Characters that an order id has at most.
pub(crate) const ORDER_ID_CHARS_MAX: usize = 64;

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CustomerId(String);

/// Why a customer id was refused. The text reads well behind the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {CUSTOMER_ID_CHARS_MAX} characters")]
pub(crate) struct CustomerIdError;

impl CustomerId {
    /// Checks the length.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, CustomerIdError> {
        let text = text.into();
        if (1..=CUSTOMER_ID_CHARS_MAX).contains(&text.chars().count()) { Ok(Self(text)) } else { Err(CustomerIdError) }
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_id_has_one_to_64_characters() {
        assert!(CustomerId::parse("ö".repeat(CUSTOMER_ID_CHARS_MAX)).is_ok());
        assert_eq!(CustomerId::parse("ö".repeat(CUSTOMER_ID_CHARS_MAX + 1)), Err(CustomerIdError));
        assert_eq!(CustomerId::parse(""), Err(CustomerIdError));
    }
}
