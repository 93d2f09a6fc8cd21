//! The tables of `compare`: what each row measured, and how it differs from the baselines.

use crate::histogram::Summary;
use crate::metric::Metric;
use crate::report::{Report, RowReport};
use crate::row::{Row, Transport};
use crate::stats::{Change, Statistic};

use super::Style;
use super::grid::{Cell, Grid};
use super::notes::notes;
use super::quantity::{TimeUnit, percent};
use super::wrap::wrapped;

/// What the first table shows. The last three are overheads.
const MEASURED: [(Metric, &str); 5] = [
    (Metric::Ttft, "ttft"),
    (Metric::ModelTtft, "model ttft"),
    (Metric::FirstTokenOverhead, "1st token"),
    (Metric::TokenOverhead, "per token"),
    (Metric::RoundtripOverhead, "roundtrip"),
];

const BETTER: &str = "\x1b[32m";
const WORSE: &str = "\x1b[31m";
const FAINT: &str = "\x1b[2m";

/// What the second table compares, and what OpenAI published for it.
const COMPARED: [(Metric, &str, &str); 3] = [
    (Metric::RoundtripOverhead, "roundtrip overhead", "-80"),
    (Metric::TokenOverhead, "per-token overhead", "-30"),
    (Metric::Ttft, "ttft", "-50"),
];

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
    parts.push(wrapped(&super::sentence(report), width, ""));
    parts.push(super::verdict(&report.verdict, style));
    parts.join("\n")
}

fn measured(report: &Report, width: usize, colour: bool) -> String {
    let title = "What each row measured; 1st token, per token and roundtrip: overheads, what all but the model added.";
    let tables = fitting(&MEASURED, width, colour, &|metrics| {
        // What was completed stands beside the first figures.
        let outcomes = metrics.first() == MEASURED.first();
        measured_grid(report, metrics, outcomes)
    });
    wrapped(title, width, "") + &tables + &notes(report, width)
}

/// One table where `width` allows it; else the columns are shared among several.
fn fitting<C>(columns: &[C], width: usize, colour: bool, table: &dyn Fn(&[C]) -> Grid) -> String {
    let whole = table(columns);
    if whole.narrowest() <= width || columns.len() < 2 {
        return whole.print(width, colour);
    }
    let (left, right) = columns.split_at(columns.len() / 2);
    [left, right]
        .map(|part| fitting(part, width, colour, table))
        .join("\n")
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

fn p50_p99(summary: Option<&Summary>, unit: TimeUnit) -> [Cell; 2] {
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
    let columns: Vec<(Metric, &str, &str)> = match direct {
        true => vec![
            (Metric::Ttft, "ttft", ""),
            (Metric::Roundtrip, "roundtrip", ""),
        ],
        false => COMPARED.to_vec(),
    };
    let tables = fitting(&columns, width, colour, &|columns| {
        change_grid(&rows, baseline, columns, direct)
    });
    let title = match direct {
        true => {
            format!("Beyond {baseline}: what the way through the proxy adds, p50 [95 % interval]")
        }
        false => format!("Change of p50 against {baseline} in % [95 % interval]"),
    };
    Some(format!(
        "{title}\n{tables}~ not distinguishable from zero\n"
    ))
}

fn change_grid(
    rows: &[&RowReport],
    baseline: &str,
    columns: &[(Metric, &str, &str)],
    as_time: bool,
) -> Grid {
    let mut grid = Grid::default();
    let mut heading: Vec<Cell> = vec!["row".into()];
    heading.extend(columns.iter().map(|(_, name, _)| Cell::from(*name)));
    grid.row(heading);
    if baseline == Row::HTTP_COLD_FULL.to_string() {
        let mut published: Vec<Cell> = vec!["(OpenAI published)".into()];
        published.extend(columns.iter().map(|(.., figure)| Cell::from(*figure)));
        grid.row(published);
    }
    grid.rule();
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for (metric, ..) in columns {
            let change = row.versus(baseline, *metric, Statistic::P50);
            cells.push(change.map_or("-".into(), |change| change_cell(change, as_time)));
        }
        grid.row(cells);
    }
    grid
}

fn change_cell(change: &Change, as_time: bool) -> Cell {
    let towards = match (as_time, change.change, change.difference) {
        (false, Some(share), _) => share,
        (_, _, difference) => difference.map_or(0.0, |difference| difference.mean_ns),
    };
    let (text, distinguishable) = match change.change.filter(|_| !as_time) {
        Some(share) => (share_text(share, change), change.is_distinguishable()),
        None => time_text(change),
    };
    let mark = if distinguishable { "" } else { "~" };
    let colour = match distinguishable {
        false => FAINT,
        true if towards > 0.0 => WORSE,
        true => BETTER,
    };
    Cell::from(text + mark).coloured(colour)
}

fn share_text(share: f64, change: &Change) -> String {
    match change.low.zip(change.high) {
        Some((low, high)) => format!("{} [{} {}]", percent(share), percent(low), percent(high)),
        None => format!("{} (1 block)", percent(share)),
    }
}

/// The difference as a time, and whether its interval excludes zero.
fn time_text(change: &Change) -> (String, bool) {
    let Some(difference) = change.difference else {
        return ("-".to_owned(), false);
    };
    let unit = TimeUnit::for_values([difference.mean_ns]);
    let mean = unit.show_signed(difference.mean_ns);
    match difference.low_ns.zip(difference.high_ns) {
        Some((low, high)) => (
            format!(
                "{mean} [{} {}] {}",
                unit.show_signed(low),
                unit.show_signed(high),
                unit.name()
            ),
            low > 0.0 || high < 0.0,
        ),
        None => (format!("{mean} {} (1 block)", unit.name()), false),
    }
}
