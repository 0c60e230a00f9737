//! Invoices against orders.

use std::collections::HashMap;

use super::books::{Books, Invoice, Order, OrderState};
use super::check::Mismatch;

/// An order that was paid has one invoice, over its total and with its number; no other order has one. The numbers of
/// all invoices have no gap.
pub(super) fn check(books: &Books, found: &mut Vec<Mismatch>) {
    let mut invoices: HashMap<&str, Vec<&Invoice>> = HashMap::new();
    for invoice in &books.invoices {
        invoices.entry(&invoice.order).or_default().push(invoice);
    }
    for order in &books.orders {
        let invoices = invoices.remove(order.id.as_str()).unwrap_or_default();
        if let Some(details) = problem(order, &invoices) {
            found.push(Mismatch::Invoice { order: order.id.clone(), details });
        }
    }
    for order in invoices.into_keys() {
        let details = "nobody accepted the order".to_owned();
        found.push(Mismatch::Invoice { order: order.to_owned(), details });
    }
    check_numbers(books, found);
}

fn problem(order: &Order, invoices: &[&Invoice]) -> Option<String> {
    // An order whose payment is not known here yet may have its invoice already.
    if order.state == OrderState::Pending {
        return None;
    }
    match invoices {
        [] if !order.state.was_paid() => None,
        [] => Some("it has none".to_owned()),
        [_] if !order.state.was_paid() => Some("it was never paid, but has one".to_owned()),
        [invoice] if invoice.total != order.total => {
            Some(format!("the invoice is over {} {}", invoice.total.amount_minor, invoice.total.currency))
        }
        [invoice] if invoice.number != order.invoice => {
            Some(format!("the order says {}, the invoice {}", order.invoice, invoice.number))
        }
        [_] => None,
        _ => Some(format!("it has {}", invoices.len())),
    }
}

/// order-service gives the numbers, so they are looked at there.
fn check_numbers(books: &Books, found: &mut Vec<Mismatch>) {
    let paid = books.orders.iter().filter(|order| order.state.was_paid());
    let mut numbers: Vec<u64> = paid.filter_map(|order| number(&order.invoice)).collect();
    numbers.sort_unstable();
    if let Some((expected, _)) = (1..).zip(&numbers).find(|(expected, number)| expected != *number) {
        found.push(Mismatch::InvoiceNumbers { number: format!("INV-{expected:06}") });
    }
}

/// `INV-000042` as 42.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("INV-")?.parse().ok()
}
