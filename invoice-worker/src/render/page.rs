//! Where things stand on the pages.

use std::ops::Range;

use super::sheet::{BLACK, LIGHT, PALE, Sheet, Style};
use super::{PAGE_HEIGHT, PAGE_WIDTH};
use crate::domain::{Invoice, Line, Seller};

/// Left, right and upper margins.
const MARGIN: f32 = 56.0;
const RIGHT: f32 = PAGE_WIDTH - MARGIN;
const TOP: f32 = PAGE_HEIGHT - MARGIN;
const WIDTH: f32 = RIGHT - MARGIN;

/// Where the table begins on the first page and on the others.
const TABLE_TOP_FIRST: f32 = PAGE_HEIGHT - 300.0;
const TABLE_TOP_NEXT: f32 = TOP - 40.0;

/// Nothing of the table stands below.
const TABLE_BOTTOM: f32 = 84.0;

const HEAD_HEIGHT: f32 = 22.0;
const ROW_HEIGHT: f32 = 19.0;

/// The total and the note on the payment stand below the last row, on the same page.
const CLOSING_HEIGHT: f32 = 96.0;

/// The right or left edges of the columns, and how wide they are.
const NUMBER_X: f32 = MARGIN + 8.0;
const ARTICLE_X: f32 = MARGIN + 40.0;
const ARTICLE_WIDTH: f32 = 196.0;
const QUANTITY_X: f32 = MARGIN + 290.0;
const QUANTITY_WIDTH: f32 = 50.0;
const PRICE_X: f32 = MARGIN + 386.0;
const PRICE_WIDTH: f32 = 88.0;
const AMOUNT_X: f32 = RIGHT - 8.0;
const AMOUNT_WIDTH: f32 = 84.0;

/// The drawn pages.
pub(super) fn contents(seller: &Seller, invoice: &Invoice) -> Vec<Vec<u8>> {
    let pages = paginate(invoice.lines().len());
    let count = pages.len();
    let draw = |(index, rows): (usize, Range<usize>)| {
        let mut sheet = Sheet::new();
        let top = if index == 0 {
            head(&mut sheet, seller, invoice);
            TABLE_TOP_FIRST
        } else {
            sheet.left(MARGIN, TOP - 8.0, WIDTH / 2.0, Style::bold(11.0), &format!("Invoice {}", invoice.number));
            sheet.right(RIGHT, TOP - 8.0, WIDTH / 2.0, Style::dim(9.0), &seller.name);
            TABLE_TOP_NEXT
        };
        let below = table(&mut sheet, invoice, rows, top);
        if index + 1 == count {
            closing(&mut sheet, invoice, below);
        } else {
            sheet.right(AMOUNT_X, below - 16.0, WIDTH, Style::dim(8.0), "continued on the next page");
        }
        foot(&mut sheet, seller, invoice, index + 1, count);
        sheet.finish()
    };
    pages.into_iter().enumerate().map(draw).collect()
}

/// Which lines stand on which page. The last page has room for the total.
fn paginate(lines: usize) -> Vec<Range<usize>> {
    let rows = |top: f32, closing: f32| {
        let room = top - HEAD_HEIGHT - TABLE_BOTTOM - closing;
        (1..=lines.max(1)).take_while(|rows| *rows as f32 * ROW_HEIGHT <= room).count().max(1)
    };
    let (mut pages, mut begin, mut top) = (Vec::new(), 0, TABLE_TOP_FIRST);
    loop {
        let left = lines - begin;
        if left <= rows(top, CLOSING_HEIGHT) {
            pages.push(begin..lines);
            return pages;
        }
        // A page that is not the last has room for more lines, but leaves one at least for the last page.
        let end = begin + rows(top, 0.0).min(left - 1);
        pages.push(begin..end);
        (begin, top) = (end, TABLE_TOP_NEXT);
    }
}

/// The seller, the buyer, and what the invoice is about.
fn head(sheet: &mut Sheet, seller: &Seller, invoice: &Invoice) {
    sheet.left(MARGIN, TOP - 12.0, WIDTH * 0.6, Style::bold(16.0), &seller.name);
    for (at, line) in seller.address.iter().enumerate() {
        sheet.left(MARGIN, TOP - 30.0 - 12.5 * at as f32, WIDTH * 0.6, Style::dim(9.0), line);
    }
    sheet.right(RIGHT, TOP - 15.0, WIDTH * 0.35, Style::bold(22.0), "INVOICE");

    let top = TOP - 128.0;
    sheet.rule(MARGIN, RIGHT, top + 18.0, 0.6, LIGHT);
    sheet.left(MARGIN, top, 200.0, Style::dim(8.0), "BILLED TO");
    sheet.left(MARGIN, top - 17.0, 215.0, Style::bold(11.0), &invoice.customer_id);
    if !invoice.customer_email.is_empty() {
        sheet.left(MARGIN, top - 32.0, 215.0, Style::regular(9.5), &invoice.customer_email);
    }
    let details = [
        ("Invoice number", invoice.number.clone()),
        ("Invoice date", invoice.paid_on.to_string()),
        ("Order", invoice.order_id.clone()),
        ("Order date", invoice.ordered_on.to_string()),
    ];
    let x = MARGIN + 232.0;
    for (at, (name, value)) in details.iter().enumerate() {
        let y = top - 17.0 * at as f32;
        sheet.left(x, y, 78.0, Style::dim(9.0), name);
        sheet.right(RIGHT, y, RIGHT - x - 82.0, if at == 0 { Style::bold(9.5) } else { Style::regular(9.5) }, value);
    }
}

/// The lines, and where the room below them begins.
fn table(sheet: &mut Sheet, invoice: &Invoice, rows: Range<usize>, top: f32) -> f32 {
    sheet.fill(MARGIN, top - HEAD_HEIGHT, WIDTH, HEAD_HEIGHT, PALE);
    let y = top - HEAD_HEIGHT + 7.5;
    let code = invoice.currency.code();
    sheet.left(NUMBER_X, y, 28.0, Style::bold(8.5), "No.");
    sheet.left(ARTICLE_X, y, ARTICLE_WIDTH, Style::bold(8.5), "Article");
    sheet.right(QUANTITY_X, y, QUANTITY_WIDTH, Style::bold(8.5), "Quantity");
    sheet.right(PRICE_X, y, PRICE_WIDTH, Style::bold(8.5), &format!("Unit price ({code})"));
    sheet.right(AMOUNT_X, y, AMOUNT_WIDTH, Style::bold(8.5), &format!("Amount ({code})"));
    let mut bottom = top - HEAD_HEIGHT;
    for (number, line) in (rows.start + 1..).zip(&invoice.lines()[rows]) {
        bottom -= ROW_HEIGHT;
        row(sheet, invoice, number, line, bottom + 6.0);
        sheet.rule(MARGIN, RIGHT, bottom, 0.4, LIGHT);
    }
    bottom
}

fn row(sheet: &mut Sheet, invoice: &Invoice, number: usize, line: &Line, y: f32) {
    let style = Style::regular(9.5);
    let price = invoice.currency.money(line.unit_price_minor);
    // The lines of an invoice have been added up before: each of them has an amount.
    let amount = invoice.currency.money(line.amount_minor().unwrap_or_default());
    sheet.left(NUMBER_X, y, 28.0, Style::dim(9.5), &number.to_string());
    sheet.left(ARTICLE_X, y, ARTICLE_WIDTH, style, &line.sku);
    sheet.right(QUANTITY_X, y, QUANTITY_WIDTH, style, &line.quantity.to_string());
    sheet.right(PRICE_X, y, PRICE_WIDTH, style, &price.to_string());
    sheet.right(AMOUNT_X, y, AMOUNT_WIDTH, style, &amount.to_string());
}

/// The total and the note on the payment.
fn closing(sheet: &mut Sheet, invoice: &Invoice, below: f32) {
    let y = below - 26.0;
    let total = invoice.currency.money(invoice.total_minor());
    sheet.rule(MARGIN + 270.0, RIGHT, y - 9.0, 1.2, BLACK);
    sheet.left(MARGIN + 270.0, y, 60.0, Style::bold(12.0), "Total");
    sheet.right(AMOUNT_X, y, 145.0, Style::bold(12.0), &format!("{total} {}", invoice.currency.code()));
    let note = format!("Paid by card on {}. Nothing is left to pay.", invoice.paid_on);
    sheet.left(MARGIN, y - 44.0, WIDTH, Style::regular(9.5), &note);
    sheet.left(MARGIN, y - 58.0, WIDTH, Style::dim(9.5), "Thank you for your order.");
}

fn foot(sheet: &mut Sheet, seller: &Seller, invoice: &Invoice, page: usize, pages: usize) {
    let y = 44.0;
    sheet.rule(MARGIN, RIGHT, y + 14.0, 0.4, LIGHT);
    sheet.left(MARGIN, y, WIDTH * 0.7, Style::dim(8.0), &format!("{} · Invoice {}", seller.name, invoice.number));
    sheet.right(RIGHT, y, WIDTH * 0.25, Style::dim(8.0), &format!("Page {page} of {pages}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_stands_on_one_page_and_the_total_has_room() {
        for lines in 1..=1_000 {
            let pages = paginate(lines);
            let mut next = 0;
            for (index, rows) in pages.iter().enumerate() {
                assert_eq!(rows.start, next, "{lines} lines");
                assert!(!rows.is_empty(), "{lines} lines");
                let top = if index == 0 { TABLE_TOP_FIRST } else { TABLE_TOP_NEXT };
                let is_last = index + 1 == pages.len();
                let bottom = top - HEAD_HEIGHT - rows.len() as f32 * ROW_HEIGHT;
                let closing = if is_last { CLOSING_HEIGHT } else { 0.0 };
                assert!(bottom - closing >= TABLE_BOTTOM, "{lines} lines: page {index} is too full");
                next = rows.end;
            }
            assert_eq!(next, lines);
        }
        assert_eq!(paginate(1).len(), 1);
        assert_eq!(paginate(100).len(), 4);
    }
}
