//! Aligned columns: the first to the left, the others to the right, headings above.

/// A cell of text, with the escape that colours it, if any.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            colour: None,
        }
    }
}

impl Cell {
    pub(super) fn coloured(self, colour: &'static str) -> Self {
        Self {
            colour: Some(colour),
            ..self
        }
    }
}

const RESET: &str = "\x1b[0m";

/// Rows of cells, headings over several columns, and rules over the table's width.
#[derive(Debug, Default)]
pub(super) struct Grid {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Cells(Vec<Cell>),
    Spans(Vec<(usize, String)>),
    Rule,
}

impl Grid {
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Cells(cells.into_iter().collect()));
    }

    /// A heading whose cells each stand over several columns: (columns, text), to the right.
    pub(super) fn spans(&mut self, spans: impl IntoIterator<Item = (usize, String)>) {
        self.lines.push(Line::Spans(spans.into_iter().collect()));
    }

    pub(super) fn rule(&mut self) {
        self.lines.push(Line::Rule);
    }

    /// The fewest columns that it takes, one space between its own.
    pub(super) fn narrowest(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + widths.len().saturating_sub(1)
    }

    /// The table as text, each line ended; columns lie two spaces apart where `width` allows it, else one.
    pub(super) fn print(&self, width: usize, colour: bool) -> String {
        let widths = self.widths();
        let cells: usize = widths.iter().sum();
        let gaps = widths.len().saturating_sub(1);
        let gap = if cells + 2 * gaps <= width { 2 } else { 1 };
        let mut text = String::new();
        for line in &self.lines {
            let printed = match line {
                Line::Rule => "-".repeat(cells + gap * gaps),
                Line::Cells(row) => print_cells(row, &widths, gap, colour),
                Line::Spans(spans) => print_spans(spans, &widths, gap),
            };
            text.push_str(printed.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in &self.lines {
            let Line::Cells(row) = line else { continue };
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        // A heading that is wider than its columns widens the last of them.
        for line in &self.lines {
            let Line::Spans(spans) = line else { continue };
            let mut at = 0;
            for (columns, text) in spans {
                let end = (at + columns).min(widths.len());
                let taken: usize = widths[at..end].iter().sum::<usize>() + (end - at).max(1) - 1;
                let wanted = text.chars().count();
                if let Some(last) = widths[at..end].last_mut() {
                    *last += wanted.saturating_sub(taken);
                }
                at = end;
            }
        }
        widths
    }
}

/// One table where `width` allows it; else the columns are shared among several.
pub(super) fn fitting<C>(
    columns: &[C],
    width: usize,
    colour: bool,
    table: &dyn Fn(&[C]) -> Grid,
) -> String {
    let whole = table(columns);
    if whole.narrowest() <= width || columns.len() < 2 {
        return whole.print(width, colour);
    }
    let (left, right) = columns.split_at(columns.len() / 2);
    [left, right]
        .map(|part| fitting(part, width, colour, table))
        .join("\n")
}

fn print_cells(row: &[Cell], widths: &[usize], gap: usize, colour: bool) -> String {
    let mut text = String::new();
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let padded = match column {
            0 => format!("{:<width$}", cell.text),
            _ => format!("{:gap$}{:>width$}", "", cell.text),
        };
        match cell.colour.filter(|_| colour) {
            Some(escape) => text.push_str(&format!("{escape}{padded}{RESET}")),
            None => text.push_str(&padded),
        }
    }
    text
}

fn print_spans(spans: &[(usize, String)], widths: &[usize], gap: usize) -> String {
    let mut text = String::new();
    let mut at = 0;
    for (columns, heading) in spans {
        let end = (at + columns).min(widths.len());
        let width = widths[at..end].iter().sum::<usize>() + gap * (end - at).saturating_sub(1);
        match at {
            0 => text.push_str(&format!("{heading:<width$}")),
            _ => text.push_str(&format!("{:gap$}{heading:>width$}", "")),
        }
        at = end;
    }
    text
}
