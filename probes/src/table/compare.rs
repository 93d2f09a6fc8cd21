//! The tables of `compare`: what each row measured, and how it differs from the baselines.

use crate::floor::Floor;
use crate::histogram::Summary;
use crate::metric::Metric;
use crate::report::{Report, RowReport};
use crate::row::{Row, Transport};
use crate::stats::Statistic;

use super::change_cell::{UNCERTAIN, change_cell};
use super::grid::{Cell, Grid, fitting};
use super::notes::notes;
use super::quantity::TimeUnit;
use super::wrap::wrapped;
use super::{
    Style, carried, conditions, floor, lateness, legs, link, precision, price, savings, waiting,
};

/// What the first table shows. The last three are overheads.
const MEASURED: [(Metric, &str); 5] = [
    (Metric::Ttft, "ttft"),
    (Metric::ModelTtft, "model ttft"),
    (Metric::FirstTokenOverhead, "1st token"),
    (Metric::TokenOverhead, "per token"),
    (Metric::RoundtripOverhead, "roundtrip"),
];

/// Stands beside `ttft` in open loops: what a tool says that does not anchor at the schedule.
const DISPATCHED: (Metric, &str) = (Metric::TtftDispatched, "ttft dispatched");

/// What the second table compares, and what OpenAI published for it.
pub(super) const COMPARED: [(Metric, &str, &str); 3] = [
    (Metric::RoundtripOverhead, "roundtrip overhead", "-80"),
    (Metric::TokenOverhead, "per-token overhead", "-30"),
    (Metric::Ttft, "ttft", "-50"),
];

/// A column of the tables of changes.
#[derive(Clone, Copy)]
struct Column {
    metric: Metric,
    name: &'static str,
    /// What OpenAI published.
    published: &'static str,
    /// Of what is beyond the floor.
    net: bool,
}

impl Column {
    const fn whole((metric, name, published): (Metric, &'static str, &'static str)) -> Self {
        Self {
            metric,
            name,
            published,
            net: false,
        }
    }
}

/// Behind a long link nearly all of a delta's lateness is the way down, which no channel shortens.
const NET_OF_THE_WAY: Column = Column {
    metric: Metric::TokenOverhead,
    name: "per-token net",
    published: "-30",
    net: true,
};

/// All tables of a comparison, the sentence and the verdict.
pub fn compare(report: &Report, style: Style) -> String {
    let width = style.columns();
    let mut parts = vec![measured(report, width, style.colour)];
    let baselines = [Row::HTTP_COLD_FULL, Row::HTTP_FULL]
        .into_iter()
        .map(|row| row.to_string());
    let mut named: Vec<String> = Vec::new();
    let others = report.channels.iter().flat_map(|row| &row.versus);
    for baseline in baselines.chain(others.map(|versus| versus.baseline.clone())) {
        if !named.contains(&baseline) {
            named.push(baseline);
        }
    }
    for baseline in named {
        parts.extend(changes(report, &baseline, width, style.colour));
    }
    parts.extend(
        report
            .precision
            .as_ref()
            .map(|it| precision::told(it, width)),
    );
    parts.extend(savings::savings(report, style));
    parts.extend(floor::beyond(report, style));
    parts.extend(legs::legs(report, style));
    parts.extend(lateness::lateness(report, style));
    parts.extend(price::price(report, style));
    parts.extend(waiting::waiting(report, style));
    parts.extend(carried::carried(report, style));
    parts.push(wrapped(&super::sentence(report), width, ""));
    parts.push(super::verdict(&report.verdict, style));
    parts.join("\n")
}

fn measured(report: &Report, width: usize, colour: bool) -> String {
    let mut title =
        "What each row measured; 1st token, per token and roundtrip: overheads, what all but the model added."
            .to_owned();
    let mut columns = MEASURED.to_vec();
    if report.open_loop {
        columns.insert(1, DISPATCHED);
        title.push_str(
            " ttft dispatched: ttft without the time by which the generator itself was late.",
        );
    }
    let tables = fitting(&columns, width, colour, &|metrics| {
        // What was completed stands beside the first figures.
        let outcomes = metrics.first() == MEASURED.first();
        measured_grid(report, metrics, outcomes)
    });
    wrapped(&title, width, "")
        + &conditions::conditions(report, width)
        + &link::did(report, width)
        + &tables
        + &notes(report, width)
}

fn measured_grid(report: &Report, metrics: &[(Metric, &str)], outcomes: bool) -> Grid {
    let units: Vec<TimeUnit> = metrics
        .iter()
        .map(|(metric, _)| unit_of(report, *metric))
        .collect();
    let mut grid = Grid::default();
    let mut heading = vec![(1, "row".to_owned())];
    let mut columns: Vec<Cell> = vec!["".into()];
    for ((_, name), unit) in metrics.iter().zip(&units) {
        heading.push((2, (*name).to_owned()));
        columns.extend([format!("p50 {}", unit.name()).into(), "p99".into()]);
    }
    if outcomes {
        heading.push((2, "outcome".to_owned()));
        columns.extend(["done".into(), "fail".into()]);
    }
    grid.spans(heading);
    grid.row(columns);
    grid.rule();
    for row in &report.channels {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for ((metric, _), unit) in metrics.iter().zip(&units) {
            cells.extend(p50_p99(row.metrics.get(metric), *unit));
        }
        if outcomes {
            cells.extend([row.completed, row.failed].map(|count| Cell::from(count.to_string())));
        }
        grid.row(cells);
    }
    grid
}

fn unit_of(report: &Report, metric: Metric) -> TimeUnit {
    let summaries = report
        .channels
        .iter()
        .filter_map(|row| row.metrics.get(&metric));
    TimeUnit::for_values(summaries.flat_map(|s| [s.p50 as f64, s.p99 as f64]))
}

pub(super) fn p50_p99(summary: Option<&Summary>, unit: TimeUnit) -> [Cell; 2] {
    match summary {
        Some(summary) => [summary.p50, summary.p99].map(|nanos| unit.show(nanos as f64).into()),
        None => ["-".into(), "-".into()],
    }
}

/// `None` where no row is compared with that baseline.
fn changes(report: &Report, baseline: &str, width: usize, colour: bool) -> Option<String> {
    let compared = |row: &&RowReport| row.versus.iter().any(|v| v.baseline == baseline);
    let rows: Vec<&RowReport> = report.channels.iter().filter(compared).collect();
    if rows.is_empty() {
        return None;
    }
    let direct = baseline.starts_with(&Transport::Direct.to_string());
    let mut columns: Vec<Column> = match direct {
        true => vec![
            Column::whole((Metric::Ttft, "ttft", "")),
            Column::whole((Metric::Roundtrip, "roundtrip", "")),
        ],
        false => COMPARED.map(Column::whole).into(),
    };
    if !direct && report.floor.as_ref().is_some_and(Floor::is_of_a_link) {
        columns.insert(2, NET_OF_THE_WAY);
    }
    let tables = fitting(&columns, width, colour, &|columns| {
        change_grid(&rows, baseline, columns, direct)
    });
    let title = match direct {
        true => {
            format!("Beyond {baseline}: what the way through the proxy adds, p50 [95 % interval]")
        }
        false => format!("Change of p50 against {baseline} in % [95 % interval]"),
    };
    Some(format!("{title}\n{tables}{UNCERTAIN}"))
}

fn change_grid(rows: &[&RowReport], baseline: &str, columns: &[Column], as_time: bool) -> Grid {
    let mut grid = Grid::default();
    let mut heading: Vec<Cell> = vec!["row".into()];
    heading.extend(columns.iter().map(|column| Cell::from(column.name)));
    grid.row(heading);
    if baseline == Row::HTTP_COLD_FULL.to_string() {
        let mut published: Vec<Cell> = vec!["(OpenAI published)".into()];
        published.extend(columns.iter().map(|column| Cell::from(column.published)));
        grid.row(published);
    }
    grid.rule();
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for column in columns {
            let change = match column.net {
                true => row.net_versus(baseline, column.metric, Statistic::P50),
                false => row.versus(baseline, column.metric, Statistic::P50),
            };
            cells.push(change.map_or("-".into(), |change| change_cell(change, as_time)));
        }
        grid.row(cells);
    }
    grid
}
