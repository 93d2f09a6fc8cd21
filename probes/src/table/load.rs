//! The table of `load`: one row, every figure, in the columns that load generators share.

use crate::report::{Report, RowReport};

use super::grid::{Cell, Grid};
use super::notes::notes;
use super::quantity::{TimeUnit, three_digits};
use super::{Style, carried, conditions, link, price, waiting};

/// The table of each row, its throughput, and the verdict.
pub fn load(report: &Report, style: Style) -> String {
    let mut parts: Vec<String> = report
        .channels
        .iter()
        .map(|row| one_row(row, style))
        .collect();
    let width = style.columns();
    let conditions = conditions::conditions(report, width) + &link::did(report, width);
    parts.extend((!conditions.is_empty()).then_some(conditions));
    parts.extend(price::price(report, style));
    parts.extend(waiting::waiting(report, style));
    parts.extend(carried::carried(report, style));
    let notes = notes(report, style.columns());
    parts.extend((!notes.is_empty()).then_some(notes));
    parts.push(super::verdict(&report.verdict, style));
    parts.join("\n")
}

fn one_row(row: &RowReport, style: Style) -> String {
    let mut grid = Grid::default();
    let headings = [
        "metric", "unit", "avg", "min", "max", "p50", "p90", "p99", "std",
    ];
    grid.row(headings.map(Cell::from));
    grid.rule();
    for (metric, summary) in &row.metrics {
        let unit = TimeUnit::for_values([summary.p50 as f64]);
        let mut cells: Vec<Cell> = vec![metric.name().into(), unit.name().into()];
        cells.extend(
            [
                summary.mean,
                summary.min as f64,
                summary.max as f64,
                summary.p50 as f64,
                summary.p90 as f64,
                summary.p99 as f64,
                summary.std,
            ]
            .map(|nanos| Cell::from(unit.show(nanos))),
        );
        grid.row(cells);
    }
    let counter = |name: &str| {
        row.counters
            .get(name)
            .map_or("-".to_owned(), |v| three_digits(*v))
    };
    format!(
        "{}: {} completed, {} failed, {} cancelled\n{}\nRequest throughput {} per s, output token throughput {} per s\n",
        row.row,
        row.completed,
        row.failed,
        row.cancelled,
        grid.print(style.columns(), style.colour),
        counter("request_throughput"),
        counter("output_token_throughput"),
    )
}
