//! What each row's channel carried: bytes on the wire and inside the channel, connections, handshakes.

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

/// The section; `None` where no bytes were counted. What was measured in no row has no column.
pub(super) fn carried(report: &Report, style: Style) -> Option<String> {
    let is_measured = |(name, _): &(&str, &str)| {
        let mut rows = report.channels.iter();
        rows.any(|row| row.counters.contains_key(*name))
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
    let pairs = report
        .channels
        .iter()
        .any(|row| row.row.transport.is_pair());
    let note = match pairs {
        true => wrapped(
            "pairs: between the application and the sidecar beside it, not between the sidecars",
            width,
            "  ",
        ),
        false => String::new(),
    };
    Some(wrapped(title, width, "") + &tables + &note)
}

fn grid(report: &Report, groups: &[&Group]) -> Grid {
    let counters = || groups.iter().flat_map(|group| group.counters);
    let mut heading = vec![(1, "row".to_owned())];
    heading.extend(
        groups
            .iter()
            .map(|group| (group.counters.len(), group.heading.to_owned())),
    );
    let mut columns: Vec<Cell> = vec!["".into()];
    columns.extend(counters().map(|(_, name)| Cell::from(*name)));
    let mut grid = Grid::default();
    grid.spans(heading);
    grid.row(columns);
    grid.rule();
    for row in &report.channels {
        let mut cells: Vec<Cell> = vec![row.row.to_string().into()];
        cells.extend(counters().map(|(name, _)| match row.counters.get(*name) {
            Some(count) if name.ends_with("_per_token") => three_digits(*count).into(),
            Some(count) => format!("{count:.0}").into(),
            None => "-".into(),
        }));
        grid.row(cells);
    }
    grid
}
