//! What each row waited for below its bytes: cores, room in the sockets, packets that were lost on the way.

use crate::report::{Report, RowReport, SocketReport};

use super::Style;
use super::grid::{Cell, Grid, fitting};
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// Who waits: a line of a row.
struct End<'a> {
    label: String,
    /// Mean wait for a core, in nanoseconds.
    core: Option<f64>,
    sockets: Option<&'a SocketReport>,
}

/// A column, and how a line's value is found.
struct Column {
    name: &'static str,
    value: fn(&End<'_>) -> Option<f64>,
    is_time: bool,
}

const fn count(name: &'static str, value: fn(&End<'_>) -> Option<f64>) -> Column {
    Column {
        name,
        value,
        is_time: false,
    }
}

const CORE: Column = Column {
    name: "core",
    value: |end| end.core,
    is_time: true,
};

/// Below the sockets' calls. What is zero throughout has no column, and is named below the table.
const COLUMNS: [Column; 7] = [
    CORE,
    count("unsent p50", |end| {
        Some(end.sockets?.unsent_bytes?.p50 as f64)
    }),
    count("unsent max", |end| {
        Some(end.sockets?.unsent_bytes?.max as f64)
    }),
    count("sent again", |end| end.counted("packets_retransmitted")),
    count("lost", |end| end.counted("packets_lost")),
    count("congestion", |end| end.counted("congestion_events")),
    count("window p50", |end| {
        Some(end.sockets?.congestion_window_bytes?.p50 as f64)
    }),
];

/// What tells of waiting in an end's sockets. A window alone does not.
const SIGNS: std::ops::Range<usize> = 2..6;

impl End<'_> {
    fn counted(&self, name: &str) -> Option<f64> {
        self.sockets?.counts.get(name).copied()
    }

    fn has_waited(&self) -> bool {
        let mut signs = COLUMNS[SIGNS].iter().map(|column| (column.value)(self));
        signs.any(|value| value.is_some_and(|value| value > 0.0))
    }
}

/// The section; `None` where nothing of it was measured.
pub(super) fn waiting(report: &Report, style: Style) -> Option<String> {
    let ends: Vec<End<'_>> = report.channels.iter().flat_map(ends).collect();
    let values = |column: &Column| -> Vec<f64> { ends.iter().filter_map(column.value).collect() };
    let (mut shown, mut none) = (Vec::new(), Vec::new());
    for column in &COLUMNS {
        let values = values(column);
        match values.iter().any(|&value| value > 0.0) {
            true => shown.push(column),
            false if values.is_empty() => {}
            false => none.push(column.name),
        }
    }
    if shown.is_empty() && none.is_empty() {
        return None;
    }
    let unit = TimeUnit::for_values(values(&CORE));
    let width = style.columns();
    let tables = match shown.is_empty() {
        true => String::new(),
        false => fitting(&shown, width, style.colour, &|columns| {
            grid(&ends, columns, unit)
        }),
    };
    let nothing = (!none.is_empty())
        .then(|| wrapped(&format!("none anywhere: {}", none.join(", ")), width, "  "));
    let title = "Waiting: for a core (mean of each time), and in the sockets: bytes unsent as more were written, segments sent \
                 again (TCP), packets lost (QUIC)";
    Some(wrapped(title, width, "") + &tables + &nothing.unwrap_or_default())
}

/// The load generator's line, the proxy's, and one of the proxy's sockets to its upstream where something waited there.
fn ends(row: &RowReport) -> Vec<End<'_>> {
    let core = |name: &str| row.counters.get(name).copied();
    let sockets = |name: &str| row.sockets.get(name);
    let end = |label: &str, core, sockets| End {
        label: label.to_owned(),
        core,
        sockets,
    };
    let client = End {
        label: row.row.to_string(),
        core: core("client_run_queue_delay_ns"),
        sockets: sockets("client"),
    };
    let proxy = end("  proxy", core("proxy_run_queue_delay_ns"), sockets("door"));
    let is_known = |end: &End<'_>| end.core.is_some() || end.sockets.is_some();
    let upstream = end("  proxy to upstream", None, sockets("upstream"));
    let mut ends = vec![client];
    ends.extend(is_known(&proxy).then_some(proxy));
    ends.extend(upstream.has_waited().then_some(upstream));
    ends
}

fn grid(ends: &[End<'_>], columns: &[&Column], unit: TimeUnit) -> Grid {
    let mut grid = Grid::default();
    let mut heading: Vec<Cell> = vec!["row".into()];
    heading.extend(columns.iter().map(|column| match column.is_time {
        true => format!("{} {}", column.name, unit.name()).into(),
        false => Cell::from(column.name),
    }));
    grid.row(heading);
    grid.rule();
    for end in ends {
        let mut cells: Vec<Cell> = vec![end.label.clone().into()];
        cells.extend(columns.iter().map(|column| {
            let value = (column.value)(end);
            value.map_or("-".into(), |value| match column.is_time {
                true => Cell::from(unit.show(value)),
                false => format!("{value:.0}").into(),
            })
        }));
        grid.row(cells);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, plain, sketch};
    use super::super::{compare, load};
    use super::*;
    use crate::report::DepthReport;
    use crate::row::{Row, State, Transport};
    use crate::samples::run;

    fn depth(p50: u64, max: u64) -> Option<DepthReport> {
        Some(DepthReport {
            samples: 60,
            p50,
            max,
        })
    }

    fn over_tcp(unsent_max: u64, again: f64) -> SocketReport {
        SocketReport {
            unsent_bytes: depth(0, unsent_max),
            queued_bytes: depth(0, 4_096),
            congestion_window_bytes: depth(65_536, 65_536),
            counts: counts([again, 0.0, 0.0]),
        }
    }

    fn over_quic(lost: f64, events: f64) -> SocketReport {
        SocketReport {
            congestion_window_bytes: depth(12_288, 147_456),
            counts: counts([0.0, lost, events]),
            ..SocketReport::default()
        }
    }

    fn counts(counts: [f64; 3]) -> std::collections::BTreeMap<String, f64> {
        let names = ["packets_retransmitted", "packets_lost", "congestion_events"];
        let named = names.map(str::to_owned).into_iter().zip(counts);
        named.collect()
    }

    fn report() -> Report {
        let rows = [
            sketch(Row::events(Transport::Direct, State::Full), 90, 10),
            sketch(Row::HTTP_FULL, 210, 58),
            sketch(Row::events(Transport::Quic, State::Full), 120, 60),
        ];
        let (record, recorders) = run(&rows, 2);
        let mut report = Report::build(&record, &recorders);
        for row in &mut report.channels {
            let mut wait = |name: &str, nanos| row.counters.insert(name.to_owned(), nanos);
            wait("client_run_queue_delay_ns", 12_340.0);
            let mut socket = |name: &str, report| row.sockets.insert(name.to_owned(), report);
            if row.row.transport == Transport::Direct {
                socket("client", over_tcp(0, 0.0));
                continue;
            }
            wait("proxy_run_queue_delay_ns", 4_567.0);
            match row.row.transport {
                Transport::Quic => {
                    socket("client", over_quic(0.0, 0.0));
                    socket("door", over_quic(7.0, 2.0));
                    socket("upstream", over_tcp(0, 0.0));
                }
                _ => {
                    socket("client", over_tcp(0, 0.0));
                    socket("door", over_tcp(1_480, 3.0));
                    socket("upstream", over_tcp(0, 1.0));
                }
            }
        }
        report
    }

    #[test]
    fn each_end_has_a_line_and_what_is_none_has_no_column() {
        for width in [100, 80] {
            let told = waiting(&report(), plain(width)).unwrap();
            check(&format!("waiting-{width}.txt"), width, &told);
        }
        let mut calm = report();
        for row in &mut calm.channels {
            row.sockets.remove("door");
            row.sockets.remove("upstream");
        }
        let told = waiting(&calm, plain(80)).unwrap();
        let none = "none anywhere: unsent p50, unsent max, sent again, lost, congestion\n";
        assert!(told.ends_with(none), "{told}");
        assert!(!told.contains("to upstream"), "{told}");
    }

    #[test]
    fn it_stands_in_both_commands_and_not_where_nothing_was_measured() {
        let mut report = report();
        let told = waiting(&report, plain(100)).unwrap();
        assert!(compare(&report, plain(100)).contains(&told));
        assert!(load(&report, plain(100)).contains(&told));
        for row in &mut report.channels {
            row.sockets.clear();
            row.counters
                .retain(|name, _| !name.contains("run_queue_delay"));
        }
        assert_eq!(waiting(&report, plain(100)), None);
        // Of a proxy that was there already only the load generator's own is known.
        let core = "client_run_queue_delay_ns".to_owned();
        report.channels[1].counters.insert(core, 2_000.0);
        let told = waiting(&report, plain(100)).unwrap();
        assert!(told.contains("http/full       2.00\n"), "{told}");
        assert!(!told.contains("proxy\n"), "{told}");
    }
}
