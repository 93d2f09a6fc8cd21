//! The tables of `compare`: what each row measured, and how it differs from the baselines.

use crate::histogram::Summary;
use crate::metric::Metric;
use crate::report::{Report, RowReport};
use crate::row::{Row, Transport};
use crate::stats::{Change, Statistic};

use super::Style;
use super::grid::{Cell, Grid};
use super::quantity::{TimeUnit, percent};

/// Tables never take more columns than this.
const WIDEST: usize = 100;
/// Below this, what each row measured takes two tables.
const WIDE: usize = 96;

const MEASURED: [(Metric, &str); 5] = [
    (Metric::Ttft, "ttft"),
    (Metric::ModelTtft, "model ttft"),
    (Metric::FirstTokenOverhead, "1st-token over"),
    (Metric::TokenOverhead, "per-token over"),
    (Metric::RoundtripOverhead, "roundtrip over"),
];

const BETTER: &str = "\x1b[32m";
const WORSE: &str = "\x1b[31m";
const FAINT: &str = "\x1b[2m";

/// What the second table compares, and what OpenAI published for it.
const COMPARED: [(Metric, &str, &str); 3] = [
    (Metric::RoundtripOverhead, "roundtrip over", "-80"),
    (Metric::TokenOverhead, "per-token over", "-30"),
    (Metric::Ttft, "ttft", "-50"),
];

/// All tables of a comparison, the sentence and the verdict.
pub fn compare(report: &Report, style: Style) -> String {
    let width = style.width.min(WIDEST);
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
    parts.push(super::sentence(report) + "\n");
    parts.push(super::verdict(&report.verdict));
    parts.join("\n")
}

fn measured(report: &Report, width: usize, colour: bool) -> String {
    let title = "What each row measured: p50 and p99\n";
    if width >= WIDE {
        return format!(
            "{title}{}",
            measured_grid(report, &MEASURED, true).print(width, colour)
        );
    }
    let (times, overheads) = MEASURED.split_at(2);
    format!(
        "{title}{}\n{}",
        measured_grid(report, times, true).print(width, colour),
        measured_grid(report, overheads, false).print(width, colour)
    )
}

fn measured_grid(report: &Report, metrics: &[(Metric, &str)], outcomes: bool) -> Grid {
    let units: Vec<TimeUnit> = metrics
        .iter()
        .map(|(metric, _)| unit_of(report, *metric))
        .collect();
    let mut grid = Grid::default();
    let mut heading = vec![(1, "row".to_owned())];
    for ((_, name), unit) in metrics.iter().zip(&units) {
        heading.push((2, format!("{name} {}", unit.name())));
    }
    if outcomes {
        heading.push((2, String::new()));
    }
    grid.spans(heading);
    let mut columns: Vec<Cell> = vec!["".into()];
    for _ in metrics {
        columns.extend(["p50".into(), "p99".into()]);
    }
    if outcomes {
        columns.extend(["done".into(), "fail".into()]);
    }
    grid.row(columns);
    grid.rule();
    for row in &report.channels {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for ((metric, _), unit) in metrics.iter().zip(&units) {
            cells.extend(p50_p99(row.metrics.get(metric), *unit));
        }
        if outcomes {
            cells.extend([
                row.completed.to_string().into(),
                row.failed.to_string().into(),
            ]);
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
        for (metric, ..) in &columns {
            cells.push(change_cell(row.versus(baseline, *metric, Statistic::P50)));
        }
        grid.row(cells);
    }
    let what = match direct {
        true => "the proxy's own cost",
        false => "% of p50",
    };
    Some(format!(
        "Change against {baseline}, {what}, with its 95 % interval (~: not distinguishable from zero)\n{}",
        grid.print(width, colour)
    ))
}

fn change_cell(change: Option<&Change>) -> Cell {
    let Some(change) = change else {
        return "-".into();
    };
    let colour = match (change.is_distinguishable(), change.change) {
        (false, _) => FAINT,
        (true, Some(share)) if share > 0.0 => WORSE,
        (true, Some(_)) => BETTER,
        (true, None) => FAINT,
    };
    Cell::from(change_text(change)).coloured(colour)
}

fn change_text(change: &Change) -> String {
    let mark = match change.is_distinguishable() {
        true => "",
        false => " ~",
    };
    match (change.change, change.difference) {
        (Some(share), _) => match change.low.zip(change.high) {
            Some((low, high)) => format!(
                "{} ({} to {}){mark}",
                percent(share),
                percent(low),
                percent(high)
            ),
            None => format!("{} (1 block){mark}", percent(share)),
        },
        (None, Some(difference)) => {
            let unit = TimeUnit::for_values([difference.mean_ns]);
            format!("{} {}{mark}", unit.show(difference.mean_ns), unit.name())
        }
        (None, None) => "-".to_owned(),
    }
}
