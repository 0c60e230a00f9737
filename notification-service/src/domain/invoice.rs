use super::{Amount, CustomerId, TimestampUs};

/// Characters that an invoice number has at most.
pub(crate) const INVOICE_NUMBER_CHARS_MAX: usize = 32;

/// Size of an invoice's PDF at most, in bytes. It has to fit into a reply and an e-mail.
pub(crate) const PDF_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The number of an invoice, such as `INV-000001`. It is a file name, too, so its characters are few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvoiceNumber(String);

/// Why an invoice number was refused. The text reads well behind the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {INVOICE_NUMBER_CHARS_MAX} letters, digits and dashes")]
pub(crate) struct InvoiceNumberError;

impl InvoiceNumber {
    /// Checks length and characters.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, InvoiceNumberError> {
        let text = text.into();
        let right = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if right && (1..=INVOICE_NUMBER_CHARS_MAX).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(InvoiceNumberError)
        }
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An invoice without its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invoice {
    /// Its number.
    pub(crate) number: InvoiceNumber,
    /// Of which order.
    pub(crate) order_id: String,
    /// Whose order.
    pub(crate) customer_id: CustomerId,
    /// What was paid.
    pub(crate) total: Amount,
}

/// An invoice that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptInvoice {
    /// What it says.
    pub(crate) invoice: Invoice,
    /// Counts invoices in the order of their arrival, from 1.
    pub(crate) position: i64,
    /// The size of the page.
    pub(crate) pdf_bytes: i64,
    /// When it was kept.
    pub(crate) created_at: TimestampUs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_number_can_be_a_file_name() {
        for right in ["INV-000001", "1", &"A".repeat(INVOICE_NUMBER_CHARS_MAX)] {
            assert!(InvoiceNumber::parse(right).is_ok(), "{right}");
        }
        for wrong in ["", "INV 1", "../x", "a\r\nb", "INV-ö", &"A".repeat(INVOICE_NUMBER_CHARS_MAX + 1)] {
            assert_eq!(InvoiceNumber::parse(wrong), Err(InvoiceNumberError), "{wrong}");
        }
    }
}
