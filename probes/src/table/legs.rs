//! The legs of the first token, each beside its floor: where its time went.

use crate::floor::Floor;
use crate::metric::Metric;
use crate::report::{Report, RowReport};

use super::Style;
use super::compare::p50_p99;
use super::floor::{is_shown, time};
use super::grid::{Cell, Grid, fitting};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// The legs in their order, as the table names them. They add up to the time from the dispatch to the first token.
const LEGS: [(Metric, &str); 6] = [
    (Metric::Setup, "setup"),
    (Metric::RequestTransfer, "transfer"),
    (Metric::ProxyRequest, "proxy, request"),
    (Metric::ModelTtft, "model ttft"),
    (Metric::ProxyToken, "proxy, token"),
    (Metric::Delivery, "delivery"),
];

/// The section; `None` where it is not asked for and the link is not emulated, or where no row has legs.
pub(super) fn legs(report: &Report, style: Style) -> Option<String> {
    let has_legs = |row: &&RowReport| row.metrics.contains_key(&Metric::RequestTransfer);
    let rows: Vec<&RowReport> = report.channels.iter().filter(has_legs).collect();
    if !is_shown(report, style) || rows.is_empty() {
        return None;
    }
    let width = style.columns();
    let floor = report.floor.as_ref();
    let tables = fitting(&LEGS, width, style.colour, &|legs| grid(&rows, floor, legs));
    let title = "Where the time to the first token goes: its legs, from the dispatch on";
    let cold = floor.map(|floor| {
        let round_trip = floor.round_trip_ns;
        format!(
            "a new connection costs a setup of one round trip ({}) at the least, two ({}) with a full handshake of TLS 1.3 over TCP",
            time(round_trip),
            time(round_trip.saturating_mul(2)),
        )
    });
    let cold = cold.map_or(String::new(), |cold| wrapped(&cold, width, "  "));
    Some(wrapped(title, width, "") + &tables + &cold)
}

fn grid(rows: &[&RowReport], floor: Option<&Floor>, legs: &[(Metric, &str)]) -> Grid {
    let unit = |metric: Metric| {
        let summaries = rows.iter().filter_map(|row| row.metrics.get(&metric));
        TimeUnit::for_values(summaries.flat_map(|it| [it.p50 as f64, it.p99 as f64]))
    };
    let units: Vec<TimeUnit> = legs.iter().map(|(metric, _)| unit(*metric)).collect();
    let mut heading = vec![(1, "row".to_owned())];
    let mut columns: Vec<Cell> = vec!["".into()];
    let mut under: Vec<Cell> = vec!["(floor, warm)".into()];
    for ((metric, name), unit) in legs.iter().zip(&units) {
        heading.push((2, (*name).to_owned()));
        columns.extend([format!("p50 {}", unit.name()).into(), "p99".into()]);
        let nanos = floor.and_then(|floor| floor.under(*metric));
        let shown = nanos.map_or("-".to_owned(), |nanos| unit.show(nanos as f64));
        under.extend([shown.into(), "".into()]);
    }
    let mut grid = Grid::default();
    grid.spans(heading);
    grid.row(columns);
    if floor.is_some() {
        grid.row(under);
    }
    grid.rule();
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for ((metric, _), unit) in legs.iter().zip(&units) {
            cells.extend(p50_p99(row.metrics.get(metric), *unit));
        }
        grid.row(cells);
    }
    grid
}
