//! What stands under the first table: how its figures are to be read, and what is missing in them.

use crate::clocks::ClockRelation;
use crate::report::{Report, RowReport};
use crate::row::ReadStamp;

use super::floor;
use super::quantity::TimeUnit;
use super::wrap::wrapped;

/// The notes in lines; empty where there is nothing to note.
pub(super) fn notes(report: &Report, width: usize) -> String {
    [
        floor::note(report),
        clocks(report),
        upper_bounds(report),
        unjoined(report),
    ]
    .into_iter()
    .flatten()
    .map(|note| wrapped(&note, width, "  "))
    .collect()
}

/// How far the proxy's clock is from ours, and what hangs on it; nothing where it is one clock.
fn clocks(report: &Report) -> Option<String> {
    let clocks = report.clocks.as_ref()?;
    if clocks.relation == ClockRelation::Same {
        return None;
    }
    let side = if clocks.offset_ns < 0 {
        "behind ours"
    } else {
        "ahead of ours"
    };
    let drift = clocks.drift_ppm.zip(clocks.drift_uncertainty_ppm);
    let drift = drift.map_or(String::new(), |(drift, within)| {
        format!(", drifting by {drift:+.1} ppm (within {within:.1})")
    });
    let unit = TimeUnit::for_values([clocks.uncertainty_ns as f64]);
    Some(format!(
        "Clocks: the proxy's is {:.6} s {side}{drift}; per token, and the legs to and from the proxy, are moved by that and \
         right to {} {} ({} round trips); their ratios are withheld, a difference between rows stands",
        clocks.offset_ns.unsigned_abs() as f64 / 1e9,
        unit.show(clocks.uncertainty_ns as f64),
        unit.name(),
        clocks.round_trips,
    ))
}

/// Which channels' stamps are upper bounds.
fn upper_bounds(report: &Report) -> Option<String> {
    let is_bound = |row: &&RowReport| row.read_stamp == ReadStamp::UpperBound;
    let bounds = report.channels.iter().filter(is_bound);
    let mut channels: Vec<String> = bounds.map(|row| row.row.transport.to_string()).collect();
    channels.dedup();
    let which = (!channels.is_empty()).then(|| channels.join(", "))?;
    let whose = if channels.len() == 1 { "its" } else { "their" };
    Some(format!(
        "{which}: stamped no earlier than the bytes came, so {whose} figures are upper bounds"
    ))
}

/// How many exchanges of which rows have no partner at the proxy.
fn unjoined(report: &Report) -> Option<String> {
    let rows: Vec<String> = report
        .channels
        .iter()
        .map(|row| (row, row.unjoined.total()))
        .filter(|(_, count)| *count > 0)
        .map(|(row, count)| format!("{} {count} of {}", row.row, row.completed))
        .collect();
    let which = (!rows.is_empty()).then(|| rows.join(", "))?;
    Some(format!(
        "Without overheads, since not joined with the proxy's records: {which}"
    ))
}
