//! Golden files of a comparison behind a link, and of what is said of a floor that was measured.

use std::time::Duration;

use super::tests::{check, plain, sketch};
use super::*;
use crate::floor::Floor;
use crate::metric::Metric;
use crate::report::Report;
use crate::row::{Row, State, Transport};
use crate::samples::run;

fn compared(floor: Floor) -> Report {
    let (mut record, recorders) = run(
        &[
            sketch(Row::HTTP_COLD_FULL, 720, 61),
            sketch(Row::HTTP_FULL, 210, 58),
            sketch(Row::events(Transport::Ws, State::Full), 190, 44),
            sketch(Row::events(Transport::Ws, State::Incremental), 130, 43),
        ],
        20,
    );
    record.floor = Some(floor);
    Report::build(&record, &recorders)
}

fn link() -> Floor {
    let way = Duration::from_micros(20);
    Floor::of_link(2 * way, way)
}

#[test]
fn behind_a_link_at_100_columns() {
    check("link-100.txt", 100, &compare(&compared(link()), plain(100)));
}

#[test]
fn behind_a_link_at_80_columns() {
    check("link-80.txt", 80, &compare(&compared(link()), plain(80)));
}

#[test]
fn a_measured_floor_is_noted_and_has_its_tables_where_they_are_asked_for() {
    let report = compared(Floor::of_connect(Duration::from_micros(31)));
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let usual = one_line(&compare(&report, plain(100)));
    assert!(usual.contains("a round trip of 31.0 us"), "{usual}");
    assert!(usual.contains("the way down of 15.5 us"), "{usual}");
    assert!(!usual.contains("legs") && !usual.contains("net"), "{usual}");
    let asked = Style {
        legs: true,
        ..plain(100)
    };
    let asked = compare(&report, asked);
    assert!(asked.contains("its legs") && asked.contains("beyond its floor"));
    assert!(!asked.contains("per-token net"), "{asked}");
}

#[test]
fn a_row_without_overheads_is_not_in_the_table_of_what_is_beyond_the_floor() {
    let direct = Row::events(Transport::Direct, State::Full);
    let (mut record, recorders) = run(
        &[sketch(direct, 90, 10), sketch(Row::HTTP_FULL, 210, 58)],
        20,
    );
    record.floor = Some(link());
    let mut report = Report::build(&record, &recorders);
    let row = &mut report.channels[0];
    assert_eq!(row.row, direct);
    // Of both ends' figures the control has none: the samples' hop is taken off here.
    row.net_of_floor
        .retain(|metric, _| *metric == Metric::Setup);
    assert!(!row.net_of_floor.is_empty());
    let beyond = super::floor::beyond(&report, plain(100)).unwrap();
    assert!(beyond.contains("http/full"), "{beyond}");
    assert!(!beyond.contains("direct"), "{beyond}");
}

#[test]
fn a_share_of_nothing_is_not_said() {
    let far = compared(Floor::of_link(
        Duration::from_micros(140),
        Duration::from_micros(70),
    ));
    let said = sentence(&far);
    assert!(said.contains("beyond the link's delay by -15"), "{said}");
    assert!(
        said.contains("no ratio: the baseline's reaches zero"),
        "{said}"
    );
}
