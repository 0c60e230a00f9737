//! What the document holds, read back from its bytes: its objects by the table at its end, its text by its operators.

use super::*;
use crate::domain::{Currency, Line, date};

fn seller() -> Seller {
    Seller::parse("Shop|1 Street|Town").unwrap()
}

fn invoice(code: &str, lines: &[(&str, u32, i64)], customer_id: &str) -> Invoice {
    let line = |&(sku, quantity, unit_price_minor): &(&str, u32, i64)| Line {
        sku: sku.to_owned(),
        quantity,
        unit_price_minor,
    };
    let lines: Vec<Line> = lines.iter().map(line).collect();
    let total_minor = lines.iter().map(|line| line.amount_minor().unwrap()).sum();
    let days = (date(1_795_305_600).unwrap(), date(1_795_392_000).unwrap());
    let (number, order_id, email) = ("INV-000001", "o-1", "ada@example.org");
    let currency = Currency::parse(code).unwrap();
    Invoice::empty(number.into(), order_id.into(), customer_id.into(), email.into(), currency, days)
        .with_lines(lines, total_minor)
        .unwrap()
}

/// The texts of each page, in the order in which they are drawn. Fails if the structure of the file is broken.
fn pages(pdf: &[u8]) -> Vec<Vec<String>> {
    let latin = latin(pdf);
    assert!(latin.starts_with("%PDF-1.7") && latin.trim_end().ends_with("%%EOF"));
    let (_, after) = latin.rsplit_once("startxref").unwrap();
    let xref: usize = after.split_whitespace().next().unwrap().parse().unwrap();
    let table = self::latin(&pdf[xref..]);
    let table = table.strip_prefix("xref\n").unwrap();
    let entries: Vec<&str> = table.lines().skip(1).take_while(|line| !line.starts_with("trailer")).collect();
    for (number, entry) in entries.iter().enumerate().skip(1) {
        let offset: usize = entry[..10].parse().unwrap();
        let object = format!("{number} 0 obj");
        assert!(pdf[offset..].starts_with(object.as_bytes()), "object {number} is elsewhere");
    }
    let streams = latin.split("stream\n").skip(1).step_by(2);
    streams.map(|stream| stream.lines().filter_map(shown).collect()).collect()
}

/// Each byte as a character.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The text that an operator shows: `(text) Tj`.
fn shown(line: &str) -> Option<String> {
    let text = line.strip_suffix(" Tj")?;
    if let Some(hex) = text.strip_prefix('<') {
        let hex = hex.trim_end_matches('>');
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        return Some((0..hex.len()).step_by(2).map(|at| char::from(byte(at))).collect());
    }
    let text = text.strip_prefix('(')?.strip_suffix(')')?;
    Some(text.replace("\\(", "(").replace("\\)", ")").replace("\\\\", "\\"))
}

#[test]
fn a_page_shows_who_sold_what_to_whom_and_for_how_much() {
    let invoice = invoice("EUR", &[("coffee", 2, 1_299), ("grinder", 1, 123_456)], "ada");
    let pages = pages(&render(&seller(), &invoice));
    assert_eq!(pages.len(), 1);
    let page = &pages[0];
    for text in [
        "Shop",
        "1 Street",
        "Town",
        "INVOICE",
        "ada",
        "ada@example.org",
        "INV-000001",
        "o-1",
        "22 November 2026",
        "23 November 2026",
        "Unit price (EUR)",
        "coffee",
        "2",
        "12.99",
        "25.98",
        "grinder",
        "1,234.56",
        "1,260.54 EUR",
        "Paid by card on 23 November 2026. Nothing is left to pay.",
        "Page 1 of 1",
    ] {
        assert!(page.iter().any(|shown| shown == text), "`{text}` is not among {page:?}");
    }
}

#[test]
fn a_yen_has_no_decimals() {
    let pages = pages(&render(&seller(), &invoice("JPY", &[("tea", 3, 1_500)], "ada")));
    assert!(pages[0].iter().any(|shown| shown == "4,500 JPY"), "{pages:?}");
}

#[test]
fn a_hundred_lines_stand_on_numbered_pages_each_once() {
    let skus: Vec<String> = (1..=100).map(|number| format!("article-{number}")).collect();
    let lines: Vec<(&str, u32, i64)> = skus.iter().map(|sku| (sku.as_str(), 1, 100)).collect();
    let pages = pages(&render(&seller(), &invoice("EUR", &lines, "ada")));
    assert_eq!(pages.len(), 4);
    let articles: Vec<&String> = pages.iter().flatten().filter(|shown| shown.starts_with("article-")).collect();
    assert_eq!(articles, skus.iter().collect::<Vec<_>>());
    for (index, page) in pages.iter().enumerate() {
        assert!(page.contains(&format!("Page {} of 4", index + 1)), "{page:?}");
        assert!(page.contains(&"Amount (EUR)".to_owned()), "each page has the head of the table");
        assert_eq!(page.contains(&"100.00 EUR".to_owned()), index == 3, "the total stands on the last page");
    }
}

#[test]
fn the_same_invoice_gives_the_same_bytes() {
    let one = || render(&seller(), &invoice("EUR", &[("coffee", 2, 1_299)], "ada"));
    assert_eq!(one(), one());
    assert_ne!(one(), render(&seller(), &invoice("EUR", &[("coffee", 2, 1_299)], "bob")));
}

#[test]
fn any_text_can_be_rendered_and_copied() {
    let strange = ["(\\", ")", "Łukasz 田中", "a\r\nb\u{0}", "🛒", "%%EOF", "endstream", &"w".repeat(254)];
    for text in strange {
        let pdf = render(&seller(), &invoice("EUR", &[(text, 1, 1)], text));
        assert_eq!(pages(&pdf).len(), 1, "{text:?}");
    }
    let pdf = render(&seller(), &invoice("EUR", &[("田", 1, 1)], "ada"));
    assert!(pages(&pdf)[0].contains(&"?".to_owned()));
    // In UTF-16: what a reader copies.
    assert!(pdf.windows(4).any(|window| window == b"7530"), "the text itself is not in the file");
}

#[test]
fn the_longest_values_stay_in_their_columns() {
    let long = "W".repeat(254);
    let pdf = render(&seller(), &invoice("EUR", &[(&long, 1, i64::MAX)], &long));
    let pages = pages(&pdf);
    assert!(pages[0].contains(&"92,233,720,368,547,758.07".to_owned()), "{pages:?}");
    assert!(pages[0].contains(&"92,233,720,368,547,758.07 EUR".to_owned()), "{pages:?}");
}
