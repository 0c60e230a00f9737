//! What an invoice is. Pure: no I/O, no clock, nothing of ours.

mod invoice;
mod money;
mod seller;

pub(crate) use invoice::{Date, Invoice, Line, ValueError, date, invoice_number, quantity, text};
pub(crate) use money::Currency;
pub(crate) use seller::Seller;
