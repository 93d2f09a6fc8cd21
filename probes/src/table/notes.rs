//! What stands under the first table: how its figures are to be read, and what is missing in them.

use crate::report::{Report, RowReport};
use crate::row::ReadStamp;

use super::wrap::wrapped;

/// The notes in lines; empty where there is nothing to note.
pub(super) fn notes(report: &Report, width: usize) -> String {
    [upper_bounds(report), unjoined(report)]
        .into_iter()
        .flatten()
        .map(|note| wrapped(&note, width, "  "))
        .collect()
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
