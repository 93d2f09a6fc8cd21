//! Golden files of the tables, at 80 and at 100 columns. `TOKENLAG_BLESS=1` writes them anew; read the difference before it is committed.

use std::path::Path;

use super::*;
use crate::csv::csv;
use crate::metric::Metric;
use crate::receipt::StampSource;
use crate::report::Report;
use crate::row::{Encoding, Row, State, Transport};
use crate::samples::{RowSketch, run};
use crate::stats::Statistic;
use crate::verdict::Warning;

const WS: Row = Row::events(Transport::Ws, State::Incremental);
const DIRECT: Row = Row::events(Transport::Direct, State::Full);

#[test]
fn open_loops_show_the_twin_from_the_dispatch() {
    let mut report = compared();
    let told = |report: &Report| table_text(report);
    assert!(!told(&report).contains("dispatched"));
    report.open_loop = true;
    assert!(told(&report).contains("ttft dispatched"));
}

fn table_text(report: &Report) -> String {
    compare(report, Style::default())
}

pub(super) fn sketch(row: Row, request: u64, delta: u64) -> RowSketch {
    RowSketch {
        row,
        request,
        delta,
        model: (36_700, 1_000),
    }
}

fn compared() -> Report {
    let compact = Row {
        encoding: Encoding::Compact,
        ..Row::events(Transport::Quic, State::Incremental)
    };
    let (record, recorders) = run(
        &[
            sketch(DIRECT, 90, 10),
            sketch(Row::HTTP_COLD_FULL, 720, 61),
            sketch(Row::HTTP_FULL, 210, 58),
            sketch(Row::events(Transport::Ws, State::Full), 190, 44),
            sketch(WS, 130, 43),
            sketch(compact, 120, 260),
        ],
        2,
    );
    let mut report = Report::build(&record, &recorders);
    // Two blocks are enough for a table, and everything else about this run is sound.
    report.verdict = Verdict {
        trusted: true,
        warnings: Vec::new(),
    };
    // Direct has no proxy, so no figure of both ends: the samples' hop is taken off here.
    for row in report.channels.iter_mut().filter(|row| row.row == DIRECT) {
        for metric in Metric::OVERHEADS {
            row.metrics.remove(&metric);
            row.versus.retain(|versus| versus.metric != metric);
        }
        row.metrics.remove(&Metric::ModelTtft);
    }
    // The samples' noise hits all rows alike; these intervals are by hand.
    for row in &mut report.channels {
        for versus in &mut row.versus {
            let change = &mut versus.change;
            if let Some(share) = change.change {
                change.low = Some(share - 0.021);
                change.high = Some(share + 0.017);
            }
        }
    }
    report
}

#[track_caller]
pub(super) fn check(name: &str, width: usize, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{line}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/table/golden")
        .join(name);
    if std::env::var_os("TOKENLAG_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs");
}

pub(super) fn plain(width: usize) -> Style {
    Style {
        width,
        colour: false,
        legs: false,
    }
}

#[test]
fn compare_at_100_columns() {
    check("compare-100.txt", 100, &compare(&compared(), plain(100)));
}

#[test]
fn compare_at_80_columns() {
    check("compare-80.txt", 80, &compare(&compared(), plain(80)));
}

#[test]
fn what_is_not_known_of_the_conditions_is_not_said() {
    let mut report = loaded();
    assert!(!load(&report, plain(80)).contains("Conditions"));
    report.conditions.tls = Some(true);
    report.conditions.tcp_congestion_control = Some(String::new());
    assert!(load(&report, plain(80)).contains("\nConditions: TLS on\n"));
    report.conditions.tls = Some(false);
    assert!(load(&report, plain(80)).contains("\nConditions: TLS off\n"));
    report.conditions.stamp = Some(StampSource::Kernel);
    let stamped = "\nConditions: TLS off, stamped by the kernel at receipt\n";
    assert!(load(&report, plain(80)).contains(stamped));
    report.conditions.stamp = None;
    report.conditions.tls = Some(true);
    report.channels[0].row.transport = Transport::PairWs;
    let pairs = "\nConditions: TLS on (in pairs between the sidecars alone)\n";
    assert!(load(&report, plain(80)).contains(pairs));
}

#[test]
fn bytes_that_were_not_counted_have_no_table() {
    let mut report = loaded();
    assert!(load(&report, plain(80)).contains("Bytes per output token"));
    let row = &mut report.channels[0];
    row.counters.retain(|name, _| !name.contains("bytes"));
    assert!(row.counters.contains_key("connections_opened"));
    assert!(!load(&report, plain(80)).contains("Bytes per output token"));
}

#[test]
fn tables_grow_no_wider_than_100_columns() {
    let report = compared();
    assert_eq!(compare(&report, plain(240)), compare(&report, plain(100)));
}

#[test]
fn a_run_without_trust_says_so() {
    let mut report = compared();
    report.verdict.trusted = false;
    report.verdict.warnings.push(Warning {
        code: "few_blocks".to_owned(),
        message: "ws/incremental ran in 3 blocks".to_owned(),
        remedy: "run longer (--duration)".to_owned(),
    });
    for row in &mut report.channels {
        row.failed = 2;
        for versus in &mut row.versus {
            let change = &mut versus.change;
            match versus.metric {
                Metric::TokenOverhead => {
                    (change.change, change.low, change.high) = (None, None, None);
                    change.without_logarithm = 1;
                }
                Metric::Ttft => (change.low, change.high) = (Some(-0.01), Some(0.02)),
                _ => {}
            }
        }
    }
    check("untrusted-100.txt", 100, &compare(&report, plain(100)));
}

#[test]
fn exchanges_that_were_not_joined_are_shown() {
    let mut report = compared();
    for row in &mut report.channels {
        match row.row.transport {
            Transport::Ws => row.unjoined.no_hop_record = 1,
            Transport::Http => row.unjoined.ordinals_differ = 2,
            _ => {}
        }
    }
    let text = compare(&report, plain(100));
    let (table, _) = text
        .split_once("\n\n")
        .expect("the first table is a paragraph");
    check("unjoined-100.txt", 100, &format!("{table}\n"));
}

#[test]
fn load_at_100_columns() {
    check("load-100.txt", 100, &load(&loaded(), plain(100)));
}

#[test]
fn load_at_80_columns() {
    check("load-80.txt", 80, &load(&loaded(), plain(80)));
}

fn loaded() -> Report {
    let (record, recorders) = run(&[sketch(Row::HTTP_FULL, 210, 58)], 2);
    Report::build(&record, &recorders)
}

#[test]
fn csv_has_a_line_per_row_and_figure() {
    let text = csv(&loaded());
    check("load.csv", usize::MAX, &text.replace('\r', ""));
    let fields = |line: &str| line.split(',').count();
    assert!(text.split_terminator("\r\n").all(|line| fields(line) == 15));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let report = compared();
    let coloured = compare(
        &report,
        Style {
            colour: true,
            ..plain(100)
        },
    );
    let bare = coloured
        .replace("\x1b[32m", "")
        .replace("\x1b[31m", "")
        .replace("\x1b[2m", "")
        .replace("\x1b[0m", "");
    assert_ne!(bare, coloured);
    let trimmed = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    assert_eq!(trimmed(&bare), trimmed(&compare(&report, plain(100))));
}

#[test]
fn nothing_to_compare_is_said_so() {
    let alone = sentence(&loaded());
    assert!(alone.starts_with("Nothing was compared: no two rows ran"));
    assert!(alone.contains("--channels or --baseline"), "{alone}");
    let mut unfinished = compared();
    for row in &mut unfinished.channels {
        row.versus.clear();
    }
    let none = "Nothing was compared: no row completed beside a baseline.";
    assert_eq!(sentence(&unfinished), none);
}

#[test]
fn another_baseline_than_the_usual_ones_is_spoken_of() {
    let quic = |encoding| Row {
        encoding,
        ..Row::events(Transport::Quic, State::Full)
    };
    let rows = [
        sketch(DIRECT, 90, 10),
        sketch(quic(Encoding::Events), 720, 61),
        sketch(quic(Encoding::Compact), 120, 60),
    ];
    let (mut record, recorders) = run(&rows, 2);
    record.baselines = vec![quic(Encoding::Events)];
    let said = sentence(&Report::build(&record, &recorders));
    assert!(
        said.contains("gainst quic/full, quic/full/compact "),
        "{said}"
    );
}

#[test]
fn the_headline_row_is_chosen_before_the_figures() {
    let report = compared();
    let said = sentence(&report);
    assert!(
        said.starts_with("Against HTTP per request (http-cold/full), ws/incremental takes"),
        "{said}"
    );
    assert_eq!(
        said.matches("; against keep-alive HTTP (http/full), it ")
            .count(),
        1
    );
    let change = report
        .row(WS)
        .and_then(|row| row.versus("http/full", Metric::RoundtripOverhead, Statistic::P50));
    assert!(change.is_some_and(|change| change.is_distinguishable()));
}
