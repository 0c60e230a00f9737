//! Tables for people.

use std::fmt;

/// Spaces between two columns.
const GAP: usize = 2;

/// Rows below a head, in columns as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    head: [Column; N],
    rows: Vec<[String; N]>,
}

/// The head of a column, and the side that its cells stand on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [Column; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.head.map(|column| column.title().chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn line(&self, cells: [&str; N], widths: [usize; N]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let gap = if at == 0 { 0 } else { GAP };
            line.push_str(&" ".repeat(gap));
            match self.head[at] {
                Column::Left(_) => line.push_str(&format!("{cell:<width$}")),
                Column::Right(_) => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

impl Column {
    fn title(self) -> &'static str {
        let (Self::Left(title) | Self::Right(title)) = self;
        title
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        f.write_str(&self.line(self.head.map(Column::title), widths))?;
        self.rows.iter().try_for_each(|row| {
            let cells = std::array::from_fn(|at| row[at].as_str());
            write!(f, "\n{}", self.line(cells, widths))
        })
    }
}

/// Names and values of one thing, one a line; what has no value is left out.
pub(super) fn pairs<const N: usize>(pairs: [(&str, String); N]) -> String {
    let pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default() + GAP;
    let line = |(name, value): &(&str, String)| format!("{:<width$}{value}", format!("{name}:"));
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right() {
        let mut table = Table::new([Column::Left("NAME"), Column::Right("N"), Column::Left("TEXT")]);
        table.row(["a".to_owned(), "1000".to_owned(), "x".to_owned()]);
        table.row(["größer".to_owned(), "1".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME       N  TEXT\na       1000  x\ngrößer     1");
    }

    #[test]
    fn a_pair_without_a_value_is_left_out() {
        let text = pairs([("name", "a".to_owned()), ("labels", String::new()), ("retention", "7d".to_owned())]);
        assert_eq!(text, "name:       a\nretention:  7d");
    }
}
