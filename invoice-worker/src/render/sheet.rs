use pdf_writer::{Content, Finish as _, Name, Str, TextStr};

use super::font::{Font, encode, is_shown_whole};

/// The smallest size to which text is shrunk to fit, in points.
const SIZE_MIN: f32 = 4.0;

/// How dark something is: 0 is black, 1 is white.
pub(super) type Grey = f32;

pub(super) const BLACK: Grey = 0.0;
pub(super) const DARK: Grey = 0.35;
pub(super) const LIGHT: Grey = 0.75;
pub(super) const PALE: Grey = 0.94;

/// How text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) font: Font,
    pub(super) size: f32,
    pub(super) grey: Grey,
}

impl Style {
    pub(super) const fn regular(size: f32) -> Self {
        Self { font: Font::Regular, size, grey: BLACK }
    }

    pub(super) const fn bold(size: f32) -> Self {
        Self { font: Font::Bold, size, grey: BLACK }
    }

    pub(super) const fn dim(size: f32) -> Self {
        Self { font: Font::Regular, size, grey: DARK }
    }
}

/// One page that is being drawn. Distances are in points, from the left and from the bottom.
pub(super) struct Sheet {
    content: Content,
}

impl Sheet {
    pub(super) fn new() -> Self {
        Self { content: Content::new() }
    }

    /// Text that begins at `x`, made smaller if it does not fit into the width.
    pub(super) fn left(&mut self, x: f32, y: f32, width_max: f32, style: Style, text: &str) {
        let (encoded, style, _) = fitted(text, width_max, style);
        self.show(x, y, style, &encoded, text);
    }

    /// Text that ends at `x`, made smaller if it does not fit into the width.
    pub(super) fn right(&mut self, x: f32, y: f32, width_max: f32, style: Style, text: &str) {
        let (encoded, style, width) = fitted(text, width_max, style);
        self.show(x - width, y, style, &encoded, text);
    }

    /// A line across.
    pub(super) fn rule(&mut self, from_x: f32, to_x: f32, y: f32, thickness: f32, grey: Grey) {
        self.content.set_stroke_gray(grey).set_line_width(thickness).move_to(from_x, y).line_to(to_x, y).stroke();
    }

    /// A filled area.
    pub(super) fn fill(&mut self, x: f32, y: f32, width: f32, height: f32, grey: Grey) {
        self.content.set_fill_gray(grey).rect(x, y, width, height).fill_nonzero();
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.content.finish().into_vec()
    }

    fn show(&mut self, x: f32, y: f32, style: Style, encoded: &[u8], text: &str) {
        // Whoever copies or searches text gets it as it is, also where the page can only show question marks.
        let is_replaced = !is_shown_whole(text);
        if is_replaced {
            let mut span = self.content.begin_marked_content_with_properties(Name(b"Span"));
            span.properties().actual_text(TextStr(text));
            span.finish();
        }
        self.content
            .begin_text()
            .set_fill_gray(style.grey)
            .set_font(Name(style.font.resource()), style.size)
            .next_line(x, y)
            .show(Str(encoded))
            .end_text();
        if is_replaced {
            self.content.end_marked_content();
        }
    }
}

/// Encoded text with the style in which it fits, and its width. What does not fit at the smallest size is cut.
fn fitted(text: &str, width_max: f32, style: Style) -> (Vec<u8>, Style, f32) {
    let mut encoded = encode(text);
    let wanted = style.font.width(&encoded, style.size);
    if wanted <= width_max {
        return (encoded, style, wanted);
    }
    let style = Style { size: (style.size * width_max / wanted).max(SIZE_MIN), ..style };
    let ellipsis = encode("…");
    let is_cut = style.font.width(&encoded, style.size) > width_max + 0.01;
    if is_cut {
        let room = width_max - style.font.width(&ellipsis, style.size);
        while !encoded.is_empty() && style.font.width(&encoded, style.size) > room {
            encoded.pop();
        }
        encoded.extend(ellipsis);
    }
    let width = style.font.width(&encoded, style.size);
    (encoded, style, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_does_not_fit_is_made_smaller_and_then_cut() {
        let (text, style, width) = fitted("short", 100.0, Style::regular(9.0));
        assert_eq!((text.as_slice(), style.size), (b"short".as_slice(), 9.0));
        assert!(width < 100.0);
        let (text, style, width) = fitted(&"w".repeat(20), 100.0, Style::regular(9.0));
        assert_eq!(text.len(), 20);
        assert!(style.size < 9.0 && width < 100.1, "{style:?} {width}");
        let (text, style, width) = fitted(&"w".repeat(254), 100.0, Style::regular(9.0));
        assert_eq!(style.size.to_bits(), SIZE_MIN.to_bits());
        assert!(text.len() < 254 && text.ends_with(&encode("…")) && width <= 100.0, "{width}");
    }
}
