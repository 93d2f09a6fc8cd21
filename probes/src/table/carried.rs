//! What each row's channel carried: bytes on the wire and inside the channel, connections, handshakes.

use std::collections::BTreeMap;

use crate::report::Report;

use super::Style;
use super::grid::{Cell, Grid, fitting};
use super::quantity::three_digits;
use super::wrap::wrapped;

/// Columns that belong together: a heading, and the counters under it.
struct Group {
    heading: &'static str,
    counters: &'static [(&'static str, &'static str)],
}

const GROUPS: [Group; 4] = [
    Group {
        heading: "on the wire",
        counters: &[
            ("wire_bytes_sent_per_token", "sent"),
            ("wire_bytes_received_per_token", "received"),
        ],
    },
    Group {
        heading: "in the channel",
        counters: &[
            ("channel_bytes_sent_per_token", "sent"),
            ("channel_bytes_received_per_token", "received"),
        ],
    },
    Group {
        heading: "connections",
        counters: &[("connections_opened", "opened")],
    },
    Group {
        heading: "handshakes",
        counters: &[
            ("handshakes_made", "made"),
            ("handshakes_resumed", "resumed"),
            ("early_data_accepted", "0-RTT"),
        ],
    },
];

/// How a pair's second line is called.
const LEG: &str = "  sidecar to sidecar";

/// The section; `None` where no bytes were counted. What was measured in no row has no column.
pub(super) fn carried(report: &Report, style: Style) -> Option<String> {
    let is_measured = |(name, _): &(&str, &str)| {
        let mut rows = report.channels.iter();
        rows.any(|row| row.counters.contains_key(*name) || row.leg.contains_key(*name))
    };
    let measured: Vec<&Group> = GROUPS
        .iter()
        .filter(|group| group.counters.iter().any(is_measured))
        .collect();
    let [wire, inside, ..] = &GROUPS;
    let bytes = || wire.counters.iter().chain(inside.counters);
    if !bytes().any(is_measured) {
        return None;
    }
    let width = style.columns();
    let title = "Bytes per output token at the load generator; other counts: the whole run";
    let tables = fitting(&measured, width, style.colour, &|groups| {
        grid(report, groups)
    });
    let notes: String = pair_notes(report)
        .into_iter()
        .map(|note| wrapped(note, width, "  "))
        .collect();
    Some(wrapped(title, width, "") + &tables + &notes)
}

/// Which of a pair's two ways the figures are of.
fn pair_notes(report: &Report) -> Vec<&'static str> {
    let pairs = || (report.channels.iter()).filter(|row| row.row.transport.is_pair());
    let mut notes = Vec::new();
    if pairs().any(|row| !row.leg.is_empty()) {
        notes.push(
            "pairs: first between the application and the sidecar beside it, then sidecar to sidecar, as that sidecar counts; \
             neither contains the other",
        );
    }
    if pairs().any(|row| row.leg.is_empty()) {
        notes.push(match notes.is_empty() {
            true => {
                "pairs: between the application and the sidecar beside it; what went between the sidecars was not counted"
            }
            false => "pairs with one line: what went between the sidecars was not counted",
        });
    }
    notes
}

fn grid(report: &Report, groups: &[&Group]) -> Grid {
    let names = || groups.iter().flat_map(|group| group.counters);
    let mut heading = vec![(1, "row".to_owned())];
    heading.extend(
        groups
            .iter()
            .map(|group| (group.counters.len(), group.heading.to_owned())),
    );
    let mut columns: Vec<Cell> = vec!["".into()];
    columns.extend(names().map(|(_, name)| Cell::from(*name)));
    let mut grid = Grid::default();
    grid.spans(heading);
    grid.row(columns);
    grid.rule();
    let line = |label: String, counted: &BTreeMap<String, f64>| {
        let mut cells: Vec<Cell> = vec![label.into()];
        cells.extend(names().map(|(name, _)| match counted.get(*name) {
            Some(count) if name.ends_with("_per_token") => three_digits(*count).into(),
            Some(count) => format!("{count:.0}").into(),
            None => "-".into(),
        }));
        cells
    };
    for row in &report.channels {
        grid.row(line(row.row.to_string(), &row.counters));
        if !row.leg.is_empty() {
            grid.row(line(LEG.to_owned(), &row.leg));
        }
    }
    grid
}
