//! What physics leaves: the floor in a note, and each overhead whole and beyond it.

use crate::floor::{Floor, FloorSource};
use crate::metric::Metric;
use crate::report::{Report, RowReport};

use super::Style;
use super::grid::{Cell, Grid, fitting};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// The overheads, as the first table names them.
const OVERHEADS: [(Metric, &str); 3] = [
    (Metric::FirstTokenOverhead, "1st token"),
    (Metric::TokenOverhead, "per token"),
    (Metric::RoundtripOverhead, "roundtrip"),
];

/// Whether the floor and the legs have tables of their own.
pub(super) fn is_shown(report: &Report, style: Style) -> bool {
    style.legs || report.floor.as_ref().is_some_and(Floor::is_of_a_link)
}

/// The floor, in a sentence under the first table; `None` where it is not known.
pub(super) fn note(report: &Report) -> Option<String> {
    let floor = report.floor.as_ref()?;
    let (round_trip, down) = (time(floor.round_trip_ns), time(floor.downlink_ns));
    let from = match floor.source {
        FloorSource::Link => "as the emulated link has them",
        FloorSource::Connect => "from the shortest of many connects to the proxy, and half of it",
    };
    Some(format!(
        "Floor: no warm channel beats a round trip of {round_trip} for 1st token and roundtrip, nor the way down of {down} for a token \
         ({from})"
    ))
}

/// The section of what is beyond the floor; `None` where that is not known, or where there are no overheads.
pub(super) fn beyond(report: &Report, style: Style) -> Option<String> {
    let floor = report.floor.as_ref().filter(|_| is_shown(report, style))?;
    // The control has legs, and no overhead.
    let has_net = |row: &&RowReport| {
        let mut overheads = OVERHEADS.iter();
        overheads.any(|(metric, _)| row.net_of_floor.contains_key(metric))
    };
    let rows: Vec<&RowReport> = report.channels.iter().filter(has_net).collect();
    if rows.is_empty() {
        return None;
    }
    let width = style.columns();
    let tables = fitting(&OVERHEADS, width, style.colour, &|metrics| {
        grid(&rows, floor, metrics)
    });
    let title = "What each overhead is beyond its floor, p50";
    Some(wrapped(title, width, "") + &tables)
}

fn grid(rows: &[&RowReport], floor: &Floor, metrics: &[(Metric, &str)]) -> Grid {
    let unit = |metric: Metric| {
        let whole = rows.iter().filter_map(|row| row.metrics.get(&metric));
        TimeUnit::for_values(whole.map(|summary| summary.p50 as f64))
    };
    let units: Vec<TimeUnit> = metrics.iter().map(|(metric, _)| unit(*metric)).collect();
    let mut heading = vec![(1, "row".to_owned())];
    let mut columns: Vec<Cell> = vec!["".into()];
    let mut under: Vec<Cell> = vec!["(floor)".into()];
    for ((metric, name), unit) in metrics.iter().zip(&units) {
        heading.push((2, (*name).to_owned()));
        columns.extend([format!("whole {}", unit.name()).into(), "net".into()]);
        let nanos = floor.under(*metric).unwrap_or(0);
        under.extend([unit.show(nanos as f64).into(), "".into()]);
    }
    let mut grid = Grid::default();
    grid.spans(heading);
    grid.row(columns);
    grid.row(under);
    grid.rule();
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for ((metric, _), unit) in metrics.iter().zip(&units) {
            let whole = row.metrics.get(metric).map(|summary| summary.p50);
            let net = row.net_of_floor.get(metric).map(|net| net.p50);
            cells.extend([whole, net].map(|nanos| match nanos {
                Some(nanos) => unit.show(nanos as f64).into(),
                None => Cell::from("-"),
            }));
        }
        grid.row(cells);
    }
    grid
}

/// A time in the unit that suits it alone.
pub(super) fn time(nanos: u64) -> String {
    let unit = TimeUnit::for_values([nanos as f64]);
    format!("{} {}", unit.show(nanos as f64), unit.name())
}
