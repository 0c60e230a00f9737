//! From an invoice to the bytes of a PDF: the same bytes for the same invoice.

mod font;
mod page;
mod sheet;

use pdf_writer::{Finish as _, Name, Pdf, Rect, Ref, TextStr};

use crate::domain::{Invoice, Seller};
use font::Font;

/// A4, in points.
const PAGE_WIDTH: f32 = 595.28;
const PAGE_HEIGHT: f32 = 841.89;

/// The document of an invoice.
pub(crate) fn render(seller: &Seller, invoice: &Invoice) -> Vec<u8> {
    let mut ids = (1..).map(Ref::new);
    let mut next = || ids.next().unwrap_or(Ref::new(i32::MAX));
    let mut pdf = Pdf::new();
    let (catalog, tree, info) = (next(), next(), next());
    let fonts = Font::ALL.map(|font| (font, next()));
    pdf.catalog(catalog).pages(tree).lang(TextStr("en")).viewer_preferences().display_doc_title(true);
    pdf.document_info(info)
        .title(TextStr(&format!("Invoice {}", invoice.number)))
        .author(TextStr(&seller.name))
        .subject(TextStr(&format!("Order {}", invoice.order_id)));
    for (font, id) in fonts {
        pdf.type1_font(id).base_font(Name(font.base())).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    let contents = page::contents(seller, invoice);
    let pages: Vec<(Ref, Ref)> = contents.iter().map(|_| (next(), next())).collect();
    pdf.pages(tree).kids(pages.iter().map(|(page, _)| *page)).count(i32::try_from(pages.len()).unwrap_or(i32::MAX));
    for ((page_id, content_id), content) in pages.iter().zip(&contents) {
        let mut page = pdf.page(*page_id);
        page.media_box(Rect::new(0.0, 0.0, PAGE_WIDTH, PAGE_HEIGHT)).parent(tree).contents(*content_id);
        let mut resources = page.resources();
        let mut named = resources.fonts();
        for (font, id) in fonts {
            named.pair(Name(font.resource()), id);
        }
        named.finish();
        resources.finish();
        page.finish();
        pdf.stream(*content_id, content);
    }
    pdf.finish()
}

#[cfg(test)]
mod tests;
