//! The results as a picture: a group of bars for each case, in colours that go with light and with dark pages.

use std::fmt::Write as _;

/// Width of the picture, in pixels.
const WIDTH: u32 = 760;
/// Where the bars begin: before it stand the names.
const BARS_X: u32 = 150;
/// The longest bar; behind it there is room for its figure.
const BAR_MAX: f64 = 480.0;
/// From one bar to the next.
const BAR_STEP: u32 = 20;
/// The height of a bar.
const BAR_HEIGHT: u32 = 14;
/// What a group takes beside its bars.
const GROUP_MARGIN: u32 = 44;

const STYLE: &str = "
    .page { fill: #ffffff } text { fill: #24292f; font: 12px system-ui, sans-serif } .title { font-weight: 600 }
    .ours { fill: #0b6e4f } .floor { fill: #9aa4ae } .peer { fill: #4a78b5 } .spread { stroke: #24292f; stroke-width: 1 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 } text { fill: #d6dde4 } .ours { fill: #3fb68b } .floor { fill: #5c6670 }
      .peer { fill: #6f9fdc } .spread { stroke: #d6dde4 }
    }";

/// What a bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Floor,
    Peer,
}

/// A bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Bars that are compared, on a scale of their own.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// Draws groups below each other.
pub(crate) fn draw(groups: &[Group]) -> String {
    let of_group = |group: &Group| GROUP_MARGIN + u32::try_from(group.bars.len()).unwrap_or(u32::MAX) * BAR_STEP;
    let height: u32 = groups.iter().map(of_group).sum::<u32>() + GROUP_MARGIN / 2;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Messages a second, by case and side\">\n<style>{STYLE}\n</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let mut y = 0;
    for group in groups {
        let most = group.bars.iter().map(|bar| bar.most).fold(f64::MIN_POSITIVE, f64::max);
        // Writing to a string does not fail.
        writeln!(svg, "<text class=\"title\" x=\"12\" y=\"{}\">{}</text>", y + 28, escape(&group.title)).ok();
        for (at, bar) in (0..).zip(&group.bars) {
            draw_bar(&mut svg, bar, y + 38 + at * BAR_STEP, BAR_MAX / most);
        }
        y += of_group(group);
    }
    svg + "</svg>\n"
}

fn draw_bar(svg: &mut String, bar: &Bar, y: u32, scale: f64) {
    let class = match bar.kind {
        Kind::Ours => "ours",
        Kind::Floor => "floor",
        Kind::Peer => "peer",
    };
    let (width, middle, text_y) = (bar.median * scale, y + BAR_HEIGHT / 2, y + BAR_HEIGHT - 3);
    let at = |value: f64| f64::from(BARS_X) + value * scale;
    writeln!(svg, "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{}</text>", BARS_X - 8, escape(&bar.name)).ok();
    writeln!(svg, "<rect class=\"{class}\" x=\"{BARS_X}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>")
        .ok();
    let (from, to) = (at(bar.least), at(bar.most));
    writeln!(svg, "<path class=\"spread\" d=\"M{from:.1} {middle}H{to:.1}\"/>").ok();
    writeln!(svg, "<text x=\"{:.1}\" y=\"{text_y}\">{}/s</text>", to + 6.0, short(bar.median)).ok();
}

/// A number with three digits that count.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, " M"),
        1e3.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [7.0, 12_345.0, 999_499.0, 2_150_000.0].map(short);
        assert_eq!(shown, ["7.00", "12.3 k", "999 k", "2.15 M"]);
    }

    #[test]
    fn the_longest_bar_fills_the_room_and_the_others_follow_it() {
        let bar = |name: &str, kind, median| Bar { name: name.to_owned(), kind, median, least: median, most: median };
        let bars = vec![bar("broker", Kind::Ours, 100.0), bar("<peer>", Kind::Peer, 25.0)];
        let svg = draw(&[Group { title: "publish & ack".to_owned(), bars }]);
        for expected in ["width=\"480.0\"", "width=\"120.0\"", "&lt;peer>", "publish &amp; ack", "prefers-color-scheme"]
        {
            assert!(svg.contains(expected), "{expected} is missing in {svg}");
        }
    }
}
