//! The tables of a sweep: each figure of each row, with a column for each comparison.

use crate::floor::Floor;
use crate::metric::Metric;
use crate::row::{Row, Transport};
use crate::sweep::{Found, RowFound, Sweep, SweepCase};

use super::Style;
use super::change_cell::{UNCERTAIN, change_cell};
use super::grid::{Cell, Grid, fitting};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// What is shown as a time, and compared.
const FIGURES: [(Metric, &str); 3] = [
    (Metric::RoundtripOverhead, "roundtrip overhead"),
    (Metric::TokenOverhead, "per-token overhead"),
    (Metric::Ttft, "ttft"),
];

/// The exit code of a comparison whose figures must not be trusted.
const UNTRUSTED: i32 = 3;

/// All tables of a sweep, and which of its comparisons must not be trusted.
pub fn sweep(sweep: &Sweep, style: Style) -> String {
    let width = style.columns();
    let found: Vec<(&SweepCase, &Found)> = (sweep.cases.iter())
        .filter_map(|case| Some((case, case.found.as_ref()?)))
        .collect();
    let mut parts = Vec::new();
    if let Some((case, _)) = found.first() {
        let axes: Vec<&str> = case.values.keys().map(String::as_str).collect();
        let title = format!(
            "The sweep's {} comparisons, a column for each: {}",
            sweep.cases.len(),
            axes.join("/")
        );
        parts.push(wrapped(&title, width, ""));
    }
    let rows = rows(&found);
    let far =
        |(_, found): &(&SweepCase, &Found)| found.floor.as_ref().is_some_and(Floor::is_of_a_link);
    let any_far = found.iter().any(far);
    // Without columns there is no table.
    let figures = FIGURES.into_iter().filter(|_| !found.is_empty());
    for (metric, name) in figures {
        parts.push(times(&found, &rows, metric, name, style));
        for baseline in [Row::HTTP_COLD_FULL, Row::HTTP_FULL] {
            let baseline = baseline.to_string();
            parts.extend(changes(
                &found,
                &rows,
                &baseline,
                (metric, name),
                false,
                style,
            ));
            if metric == Metric::TokenOverhead && any_far {
                let net = (metric, "per-token overhead beyond the floor");
                parts.extend(changes(&found, &rows, &baseline, net, true, style));
            }
        }
    }
    parts.push(doubts(sweep, width));
    parts.join("\n")
}

/// Rows of any comparison, in the order in which they come first.
fn rows(found: &[(&SweepCase, &Found)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for row in found.iter().flat_map(|(_, found)| &found.channels) {
        if !rows.contains(&row.row) {
            rows.push(row.row);
        }
    }
    rows
}

fn of(found: &Found, row: Row) -> Option<&RowFound> {
    found.channels.iter().find(|it| it.row == row)
}

/// A table with a column for each comparison; rows without any value are left out.
fn grid(
    found: &[(&SweepCase, &Found)],
    rows: &[Row],
    foot: Option<Vec<Cell>>,
    cell: &dyn Fn(&Found, Row) -> Option<Cell>,
) -> Grid {
    let mut grid = Grid::default();
    let mut heading: Vec<Cell> = vec!["row".into()];
    heading.extend(found.iter().map(|(case, _)| Cell::from(case.label())));
    grid.row(heading);
    grid.rule();
    for &row in rows {
        let cells: Vec<Option<Cell>> = found.iter().map(|(_, found)| cell(found, row)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut line: Vec<Cell> = vec![row.to_string().into()];
        line.extend(cells.into_iter().map(|cell| cell.unwrap_or("-".into())));
        grid.row(line);
    }
    if let Some(foot) = foot {
        grid.row(foot);
    }
    grid
}

/// Medians as times.
fn times(
    found: &[(&SweepCase, &Found)],
    rows: &[Row],
    metric: Metric,
    name: &str,
    style: Style,
) -> String {
    let median = |found: &Found, row: Row| of(found, row)?.p50_ns.get(&metric).copied();
    let all = found.iter().flat_map(|(_, found)| {
        let medians = rows.iter().filter_map(|row| median(found, *row));
        medians.map(|nanos| nanos as f64)
    });
    let unit = TimeUnit::for_values(all);
    let cell = |found: &Found, row| median(found, row).map(|ns| unit.show(ns as f64).into());
    let tables = fitting(found, style.columns(), style.colour, &|found| {
        grid(found, rows, floors(found, metric, unit), &cell)
    });
    format!("{name}, p50 in {}\n{tables}", unit.name())
}

/// A line of the floors under a figure; `None` where there is none.
fn floors(found: &[(&SweepCase, &Found)], metric: Metric, unit: TimeUnit) -> Option<Vec<Cell>> {
    let under = |found: &Found| found.floor.as_ref()?.under(metric);
    found.iter().find_map(|(_, found)| under(found))?;
    let mut line: Vec<Cell> = vec!["(floor)".into()];
    line.extend(found.iter().map(|(_, found)| match under(found) {
        Some(nanos) => Cell::from(unit.show(nanos as f64)),
        None => "-".into(),
    }));
    Some(line)
}

/// Changes of medians against a baseline; `None` where nothing was compared with it.
fn changes(
    found: &[(&SweepCase, &Found)],
    rows: &[Row],
    baseline: &str,
    (metric, name): (Metric, &str),
    net: bool,
    style: Style,
) -> Option<String> {
    let change = |found: &Found, row: Row| {
        let versus = of(found, row)?.versus(baseline, metric)?;
        match net {
            true => versus.net_of_floor.clone(),
            false => Some(versus.change.clone()),
        }
    };
    let compared: Vec<Row> = rows
        .iter()
        .copied()
        .filter(|row| row.transport != Transport::Direct)
        .filter(|row| found.iter().any(|(_, found)| change(found, *row).is_some()))
        .collect();
    if compared.is_empty() {
        return None;
    }
    let cell = |found: &Found, row| change(found, row).map(|change| change_cell(&change, false));
    let tables = fitting(found, style.columns(), style.colour, &|found| {
        grid(found, &compared, None, &cell)
    });
    let title = format!("{name}, change of p50 against {baseline} in % [95 % interval]");
    let title = wrapped(&title, style.columns(), "  ");
    Some(format!("{title}{tables}{UNCERTAIN}"))
}

/// What speaks against one comparison, and how it ended; nothing where all is well.
fn doubt(case: &SweepCase) -> Vec<String> {
    let Some(found) = &case.found else {
        return vec![match case.exit {
            None => "did not run to its end".to_owned(),
            Some(code) => format!("found nothing (exit code {code})"),
        }];
    };
    let mut told = Vec::new();
    if !found.trusted {
        let warnings = found.warnings.join(", ");
        told.push(format!("must not be trusted: {warnings}"));
    }
    match case.exit {
        Some(0) => {}
        // It says no more than that.
        Some(UNTRUSTED) if !found.trusted => {}
        Some(code) => told.push(format!("ended with exit code {code}")),
        None => told.push("did not run to its end".to_owned()),
    }
    told
}

/// What did not run, what failed, what must not be trusted, and the floors.
fn doubts(sweep: &Sweep, width: usize) -> String {
    let mut text = String::new();
    for case in &sweep.cases {
        let told = doubt(case);
        if told.is_empty() {
            continue;
        }
        let line = format!("{} ({}): {}", case.label(), case.folder, told.join("; "));
        text.push_str(&wrapped(&line, width, "  "));
    }
    match text.is_empty() {
        true => "Verdict: nothing was found that speaks against these comparisons.\n".to_owned(),
        false => format!("Verdict, by comparison (its own report says why):\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::tests::{check, plain, sketch};
    use super::*;
    use crate::report::Report;
    use crate::row::State;
    use crate::samples::run;
    use crate::sweep::SWEEP_SCHEMA;

    fn case(number: u32, link: &str, tls: &str, round_trip: u64) -> SweepCase {
        let (mut record, recorders) = run(
            &[
                sketch(Row::HTTP_COLD_FULL, 720 + round_trip, 61 + round_trip / 2),
                sketch(Row::HTTP_FULL, 210 + round_trip, 58 + round_trip / 2),
                sketch(
                    Row::events(Transport::Ws, State::Incremental),
                    130 + round_trip,
                    43 + round_trip / 2,
                ),
            ],
            20,
        );
        let span = Duration::from_micros(round_trip);
        record.floor = Some(match link {
            "loopback" => Floor::of_connect(Duration::from_micros(30)),
            _ => Floor::of_link(span, span / 2),
        });
        let report = Report::build(&record, &recorders);
        SweepCase {
            number,
            values: BTreeMap::from([
                ("link".to_owned(), link.to_owned()),
                ("tls".to_owned(), tls.to_owned()),
            ]),
            folder: format!("{number:02}-link-{link}-tls-{tls}"),
            exit: Some(0),
            found: Some(Found::of(&report)),
        }
    }

    fn swept() -> Sweep {
        let mut failed = case(4, "metro", "on", 4_000);
        failed.found = None;
        failed.exit = Some(1);
        let mut doubtful = case(2, "loopback", "on", 0);
        let found = doubtful.found.as_mut().unwrap();
        found.trusted = false;
        found.warnings = vec!["run_queue_delay".to_owned()];
        Sweep {
            schema: SWEEP_SCHEMA.to_owned(),
            command_line: Vec::new(),
            started_at: String::new(),
            ended_at: None,
            cases: vec![
                case(1, "loopback", "off", 0),
                doubtful,
                case(3, "metro", "off", 4_000),
                failed,
            ],
        }
    }

    #[test]
    fn a_sweep_at_100_and_at_80_columns() {
        check("sweep-100.txt", 100, &sweep(&swept(), plain(100)));
        check("sweep-80.txt", 80, &sweep(&swept(), plain(80)));
    }

    #[test]
    fn a_sweep_survives_json() {
        let json = serde_json::to_value(swept()).unwrap();
        assert_eq!(json["schema"], "tokenlag.sweep/1");
        assert_eq!(json["cases"][2]["found"]["floor"]["source"], "link");
        let row = &json["cases"][2]["found"]["channels"][2];
        assert_eq!(row["channel"], "ws");
        assert!(row["p50_ns"]["request_transfer"].is_i64(), "{row}");
        assert_eq!(serde_json::from_value::<Sweep>(json).unwrap(), swept());
    }

    #[test]
    fn how_a_comparison_ended_is_told_beside_its_doubts() {
        let told = |trusted: bool, exit: Option<i32>| {
            let mut case = case(1, "metro", "on", 4_000);
            case.exit = exit;
            let found = case.found.as_mut().unwrap();
            found.trusted = trusted;
            found.warnings = vec!["failed_exchanges".to_owned()];
            doubt(&case).join("; ")
        };
        assert_eq!(told(true, Some(0)), "");
        assert_eq!(told(true, Some(99)), "ended with exit code 99");
        let doubtful = "must not be trusted: failed_exchanges";
        // It is 0 with --allow-untrusted.
        assert_eq!(told(false, Some(0)), doubtful);
        assert_eq!(told(false, Some(3)), doubtful);
        for code in [1, 99] {
            let both = format!("{doubtful}; ended with exit code {code}");
            assert_eq!(told(false, Some(code)), both);
        }
        assert_eq!(
            told(false, None),
            format!("{doubtful}; did not run to its end")
        );
    }

    #[test]
    fn a_sweep_without_any_figure_says_so() {
        let mut empty = swept();
        for case in &mut empty.cases {
            case.found = None;
            case.exit = None;
        }
        let text = sweep(&empty, plain(80));
        assert_eq!(text.matches("did not run to its end").count(), 4, "{text}");
        assert!(text.starts_with("Verdict, by comparison"), "{text}");
    }
}
