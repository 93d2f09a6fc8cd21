//! One figure by turn: a line for each turn, a column for each row.

use std::collections::{BTreeMap, BTreeSet};

use crate::folder::Turns;
use crate::row::Row;

use super::Style;
use super::grid::{Cell, Grid, fitting};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// The table; a sentence where no exchange has the figure.
pub fn turns(turns: &Turns, style: Style) -> String {
    let rows: Vec<(&Row, &BTreeMap<u32, i64>)> = turns.p50_ns.iter().collect();
    let medians = || rows.iter().flat_map(|(_, medians)| medians.iter());
    let numbers: BTreeSet<u32> = medians().map(|(turn, _)| *turn).collect();
    if numbers.is_empty() {
        return format!("No exchange of this run has {}.\n", turns.metric);
    }
    let unit = TimeUnit::for_values(medians().map(|(_, nanos)| *nanos as f64));
    let width = style.columns();
    let tables = fitting(&rows, width, style.colour, &|rows| {
        let mut grid = Grid::default();
        let mut heading: Vec<Cell> = vec!["turn".into()];
        heading.extend(rows.iter().map(|(row, _)| Cell::from(row.to_string())));
        grid.row(heading);
        grid.rule();
        for turn in &numbers {
            let mut line: Vec<Cell> = vec![(u64::from(*turn) + 1).to_string().into()];
            line.extend(rows.iter().map(|(_, medians)| match medians.get(turn) {
                Some(nanos) => Cell::from(unit.show(*nanos as f64)),
                None => "-".into(),
            }));
            grid.row(line);
        }
        grid
    });
    let title = format!(
        "{} at each turn of a session, p50 in {}",
        turns.metric,
        unit.name()
    );
    wrapped(&title, width, "") + &tables
}

#[cfg(test)]
mod tests {
    use super::super::tests::plain;
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn turns_go_down_and_rows_across() {
        let found = Turns {
            metric: Metric::RequestTransfer,
            p50_ns: BTreeMap::from([
                (Row::HTTP_FULL, BTreeMap::from([(0, 50_000), (1, 61_000)])),
                (
                    "ws/incremental".parse().unwrap(),
                    BTreeMap::from([(1, 40_000)]),
                ),
            ]),
        };
        let text = turns(&found, plain(80));
        let want = "request_transfer at each turn of a session, p50 in us\n\
                    turn  http/full  ws/incremental\n\
                    -------------------------------\n\
                    1          50.0               -\n\
                    2          61.0            40.0\n";
        assert_eq!(text, want);
        let none = Turns {
            p50_ns: BTreeMap::new(),
            ..found
        };
        assert_eq!(
            turns(&none, plain(80)),
            "No exchange of this run has request_transfer.\n"
        );
    }
}
