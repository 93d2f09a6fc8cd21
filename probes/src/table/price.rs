//! What an output token costs on each row: CPU time at both ends, context switches, system calls, packets, allocations; and the
//! change of it against the careful client's row.

use crate::report::{PriceChange, Report, RowReport};
use crate::row::Row;
use crate::stats::Change;

use super::Style;
use super::change_cell::{UNCERTAIN, change_cell};
use super::grid::{Cell, Grid, fitting};
use super::quantity::three_digits;
use super::wrap::wrapped;

/// Columns that belong together: a heading, the counters under it, and by what they are divided.
struct Group {
    heading: &'static str,
    counters: &'static [(&'static str, &'static str)],
    unit: f64,
}

const MICROS: f64 = 1e3;

/// What is headed with `~` is an estimate: how much of a thread's time was the kernel's rests on ticks over its whole life.
const GROUPS: [Group; 8] = [
    Group {
        heading: "client CPU us",
        counters: &[
            ("client_cpu_ns_per_token", "all"),
            ("client_cpu_system_ns_per_token", "~kernel"),
        ],
        unit: MICROS,
    },
    Group {
        heading: "proxy CPU us",
        counters: &[
            ("proxy_cpu_ns_per_token", "all"),
            ("proxy_cpu_system_ns_per_token", "~kernel"),
        ],
        unit: MICROS,
    },
    Group {
        heading: "switches",
        counters: &[
            ("client_context_switches_per_token", "client"),
            ("proxy_context_switches_per_token", "proxy"),
        ],
        unit: 1.0,
    },
    Group {
        heading: "client calls",
        counters: &[("reads_per_token", "read"), ("writes_per_token", "write")],
        unit: 1.0,
    },
    Group {
        heading: "proxy calls",
        counters: &[
            ("proxy_reads_per_token", "read"),
            ("proxy_writes_per_token", "write"),
        ],
        unit: 1.0,
    },
    Group {
        heading: "client packets",
        counters: &[
            ("packets_sent_per_token", "sent"),
            ("packets_received_per_token", "received"),
        ],
        unit: 1.0,
    },
    Group {
        heading: "proxy packets",
        counters: &[
            ("proxy_packets_sent_per_token", "sent"),
            ("proxy_packets_received_per_token", "received"),
        ],
        unit: 1.0,
    },
    Group {
        heading: "allocations",
        counters: &[
            ("client_allocations_per_token", "client"),
            ("proxy_allocations_per_token", "proxy"),
        ],
        unit: 1.0,
    },
];

/// What the changes are shown of; all of them are in `report.json`.
const COMPARED: [(&str, &str); 3] = [
    ("client_cpu_ns_per_token", "client CPU"),
    ("proxy_cpu_ns_per_token", "proxy CPU"),
    ("wire_bytes_received_per_token", "bytes received"),
];

/// The section; `None` where no CPU time was measured. What was measured in no row has no column.
pub(super) fn price(report: &Report, style: Style) -> Option<String> {
    let is_measured = |(name, _): &(&str, &str)| {
        let mut rows = report.channels.iter();
        rows.any(|row| row.counters.contains_key(*name))
    };
    let measured: Vec<&Group> = (GROUPS.iter())
        .filter(|group| group.counters.iter().any(is_measured))
        .collect();
    if !measured.first()?.heading.contains("CPU") {
        return None;
    }
    let width = style.columns();
    let title = "The price of an output token: what generator and proxy spent on it, requests and connections included";
    let tables = fitting(&measured, width, style.colour, &|groups| {
        grid(&report.channels, groups)
    });
    let changes = changes(report, style).map_or(String::new(), |changes| format!("\n{changes}"));
    Some(wrapped(title, width, "") + &tables + &changes)
}

fn grid(rows: &[RowReport], groups: &[&Group]) -> Grid {
    let mut heading = vec![(1, "row".to_owned())];
    let mut columns: Vec<Cell> = vec!["".into()];
    for group in groups {
        heading.push((group.counters.len(), group.heading.to_owned()));
        columns.extend(group.counters.iter().map(|(_, name)| Cell::from(*name)));
    }
    let mut grid = Grid::default();
    grid.spans(heading);
    grid.row(columns);
    grid.rule();
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        for group in groups {
            cells.extend(group.counters.iter().map(|(name, _)| {
                let count = row.counters.get(*name);
                count.map_or("-".into(), |count| three_digits(count / group.unit).into())
            }));
        }
        grid.row(cells);
    }
    grid
}

/// The changes against the careful client's row; where that did not run, against the first baseline that did.
fn changes(report: &Report, style: Style) -> Option<String> {
    let mut all = report.channels.iter().flat_map(|row| &row.price_versus);
    let careful = Row::HTTP_FULL.to_string();
    let first = all.clone().next()?;
    let baseline = match all.any(|change| change.baseline == careful) {
        true => &careful,
        false => &first.baseline,
    };
    let rows: Vec<&RowReport> = (report.channels.iter())
        .filter(|row| row.price_versus.iter().any(|it| it.baseline == *baseline))
        .collect();
    let tables = fitting(&COMPARED, style.columns(), style.colour, &|compared| {
        let mut grid = Grid::default();
        let mut heading: Vec<Cell> = vec!["row".into()];
        heading.extend(compared.iter().map(|(_, name)| Cell::from(*name)));
        grid.row(heading);
        grid.rule();
        for row in &rows {
            let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
            cells.extend(compared.iter().map(|(counter, _)| {
                let mut changes = row.price_versus.iter();
                let found = changes.find(|it| it.baseline == *baseline && it.counter == *counter);
                found.map_or("-".into(), cell)
            }));
            grid.row(cells);
        }
        grid
    });
    let title = format!("Change of the price against {baseline} in % [95 % interval]");
    Some(format!("{title}\n{tables}{UNCERTAIN}"))
}

fn cell(price: &PriceChange) -> Cell {
    let change = Change {
        change: price.change,
        low: price.low,
        high: price.high,
        blocks: price.blocks,
        pairs: 0,
        interval: price.interval,
        difference: None,
        without_logarithm: 0,
        withheld: None,
    };
    change_cell(&change, false)
}
