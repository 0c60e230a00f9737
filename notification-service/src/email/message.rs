use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use sha2::{Digest as _, Sha256};

use crate::domain::{Email, InvoiceNumber, body, subject};

/// Bytes of the event id's digest that make a Message-ID: enough that two never meet.
const ID_BYTES: usize = 16;

/// Why a mail cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the address is refused: {0}")]
    Address(#[from] lettre::address::AddressError),
    #[error("the mail cannot be composed: {0}")]
    Compose(#[from] lettre::error::Error),
    #[error("the type of the attachment is refused: {0}")]
    ContentType(#[from] lettre::message::header::ContentTypeErr),
}

/// Tells other machines that no person wrote this, so that they do not answer (RFC 3834).
#[derive(Clone, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The name of an e-mail, without its domain: the same for every repeat, because it comes from the event.
pub(super) fn id(event_id: &str) -> String {
    Sha256::digest(event_id.as_bytes()).iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the mail, with the invoice attached if there is one.
pub(super) fn compose(
    from: &Mailbox,
    email: &Email,
    invoice: Option<(InvoiceNumber, Vec<u8>)>,
) -> Result<Message, Error> {
    let draft = &email.notification.draft;
    let created_us = u64::try_from(email.notification.created_at.0).unwrap_or_default();
    let builder = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, email.address.parse::<Address>()?))
        .subject(subject(draft.kind, &draft.order_id))
        .date(SystemTime::UNIX_EPOCH + Duration::from_micros(created_us))
        .message_id(Some(format!("<{}@{}>", id(&draft.event_id), from.email.domain())))
        .header(AutoSubmitted);
    let text = SinglePart::plain(body(draft.kind, &draft.text));
    Ok(match invoice {
        None => builder.singlepart(text)?,
        Some((number, pdf)) => {
            let name = format!("{}.pdf", number.as_str());
            let page = Attachment::new(name).body(pdf, ContentType::parse("application/pdf")?);
            builder.multipart(MultiPart::mixed().singlepart(text).singlepart(page))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CustomerId, Draft, Kind, Notification, TimestampUs};

    fn composed(kind: Kind, order_id: &str, address: &str, invoice: Option<&[u8]>) -> Result<String, Error> {
        let draft = Draft {
            customer_id: CustomerId::parse("ada").unwrap(),
            order_id: order_id.to_owned(),
            kind,
            text: "12.99 EUR für Bestellung o-1".to_owned(),
            event_id: "e-1\r\nBcc: eve@example.org".to_owned(),
            email: None,
        };
        let created_at = TimestampUs(1_700_000_000_000_000);
        let notification = Notification { number: 1, draft, created_at, emailed_at: None };
        let email = Email { notification, address: address.to_owned(), attempts: 0 };
        let invoice = invoice.map(|pdf| (InvoiceNumber::parse("INV-000001").unwrap(), pdf.to_vec()));
        let mail = compose(&"Shop <shop@example.org>".parse().unwrap(), &email, invoice)?;
        Ok(String::from_utf8(mail.formatted()).unwrap())
    }

    /// The names of the headers in front of the first empty line.
    fn headers(mail: &str) -> Vec<&str> {
        let head = mail.split("\r\n\r\n").next().unwrap();
        let lines = head.split("\r\n").filter(|line| !line.starts_with(' ') && !line.starts_with('\t'));
        lines.map(|line| line.split(':').next().unwrap()).collect()
    }

    #[test]
    fn a_mail_has_its_headers_and_its_text() {
        let mail = composed(Kind::OrderConfirmed, "o-1", "ada@example.org", None).unwrap();
        for line in [
            "From: Shop <shop@example.org>\r\n",
            "To: ada@example.org\r\n",
            "Subject: Confirmation of your order o-1\r\n",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
        ] {
            assert!(mail.contains(line), "{line} is not in {mail}");
        }
        assert!(mail.contains("f=C3=BCr Bestellung"), "{mail}");
        assert_eq!(mail, composed(Kind::OrderConfirmed, "o-1", "ada@example.org", None).unwrap(), "repeats are equal");
    }

    #[test]
    fn nothing_that_an_event_holds_can_begin_a_header() {
        let plain = headers(&composed(Kind::OrderReceived, "o-1", "ada@example.org", None).unwrap()).join(" ");
        let evil =
            composed(Kind::OrderReceived, "o\r\nBcc: eve@example.org\r\n\r\nx", "ada@example.org", None).unwrap();
        assert_eq!(headers(&evil).join(" "), plain);
        for address in ["ada@example.org\r\nBcc: eve@example.org", "ada@example.org\nRCPT TO:<eve@example.org>"] {
            assert!(composed(Kind::OrderReceived, "o-1", address, None).is_err());
        }
    }

    #[test]
    fn an_invoice_is_attached_under_its_number() {
        let mail = composed(Kind::InvoiceReady, "o-1", "ada@example.org", Some(b"%PDF-1.7 page")).unwrap();
        for part in [
            "Content-Type: multipart/mixed;",
            "Content-Disposition: attachment; filename=\"INV-000001.pdf\"",
            "Content-Type: application/pdf\r\n",
        ] {
            assert!(mail.contains(part), "{part} is not in {mail}");
        }
    }

    #[test]
    fn the_id_of_a_mail_comes_from_its_event_alone() {
        assert_eq!(id("e-1"), id("e-1"));
        assert_ne!(id("e-1"), id("e-2"));
        assert!(id("\r\n <>@").chars().all(|c| c.is_ascii_hexdigit()));
    }
}
