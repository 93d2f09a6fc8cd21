//! The conditions under which a run is not to be trusted: one function each, a pure look at the record and the histograms.

mod clocks;
mod machine;
mod path;
mod tokens;

use crate::record::{Cell, RunRecord};
use crate::recorder::{Recorder, Tallies};
use crate::report::Recorders;
use crate::row::{Row, Transport};
use crate::verdict::Warning;

/// Blocks below which an interval says little.
const ENOUGH_BLOCKS: usize = 20;
/// Share of errors, and of exchanges that are not joined, that is still passed over.
const TOLERATED_SHARE: f64 = 0.01;

/// Every warning that the record and the recorders give cause for.
pub(crate) fn all(record: &RunRecord, recorders: &Recorders) -> Vec<Warning> {
    let rows = || record.rows.iter().map(|row| (*row, recorders.get(row)));
    let each = |look: fn(Row, &Recorder) -> Option<Warning>| {
        rows().filter_map(move |(row, recorder)| look(row, recorder?))
    };
    let mut warnings: Vec<Warning> = rows()
        .filter_map(|(row, recorder)| nothing_completed(row, recorder))
        .collect();
    warnings.extend(each(errors));
    warnings.extend(each(unjoined));
    if record.open_loop {
        warnings.extend(each(machine::dispatch_lag));
    }
    warnings.extend(few_blocks(record, recorders));
    warnings.extend(tokens::input(record, recorders));
    warnings.extend(tokens::output(record, recorders));
    warnings.extend(tokens::cached(record, recorders));
    warnings.extend(tokens::coalesced(record, recorders));
    warnings.extend(machine::run_queue(record, recorders));
    warnings.extend(clocks::drift(record, recorders));
    warnings.extend(rows().filter_map(|(row, recorder)| path::suspect(record, row, recorder?)));
    warnings
}

fn warning(code: &str, message: String, remedy: &str) -> Option<Warning> {
    Some(Warning {
        code: code.to_owned(),
        message,
        remedy: remedy.to_owned(),
    })
}

fn nothing_completed(row: Row, recorder: Option<&Recorder>) -> Option<Warning> {
    let tallies = recorder.map(Recorder::tallies);
    if tallies.is_some_and(|tallies| tallies.completed > 0) {
        return None;
    }
    let tried = tallies.map_or(0, Tallies::exchanges);
    let kinds: Vec<String> = tallies
        .into_iter()
        .flat_map(|tallies| &tallies.failures)
        .map(|(kind, count)| format!("{count} {}", kind.name()))
        .collect();
    let why = match kinds.as_slice() {
        [] => String::new(),
        kinds => format!(" ({})", kinds.join(", ")),
    };
    warning(
        "nothing_completed",
        format!("none of the {tried} exchanges of {row} completed{why}"),
        "check the address, the model's name and the key with a single request, and read the log for the first error",
    )
}

fn errors(row: Row, recorder: &Recorder) -> Option<Warning> {
    let tallies = recorder.tallies();
    let errors = tallies.errors();
    let ended = tallies.completed.saturating_add(errors);
    let share = errors as f64 / ended as f64;
    if tallies.completed == 0 || share <= TOLERATED_SHARE {
        return None;
    }
    warning(
        "errors",
        format!(
            "{errors} of {ended} exchanges of {row} went wrong ({:.1} %), and failures have no latency",
            share * 100.0
        ),
        "lower the load, or look up the kinds of failure in report.json and mend their cause",
    )
}

fn unjoined(row: Row, recorder: &Recorder) -> Option<Warning> {
    let tallies = recorder.tallies();
    let unjoined = tallies.unjoined;
    let share = unjoined.total() as f64 / tallies.completed as f64;
    if row.transport == Transport::Direct || tallies.completed == 0 || share <= TOLERATED_SHARE {
        return None;
    }
    let remedy = match unjoined {
        _ if unjoined.evicted > 0 => {
            "make the proxy's buffer of recent exchanges larger, or the blocks shorter"
        }
        _ if unjoined.ordinals_differ >= unjoined.total() / 2 => {
            "something between the proxy and the client merges or splits events: take it out of the path"
        }
        _ => {
            "point --proxy-admin at the same proxy that carries the load, and let nothing strip traceparent"
        }
    };
    warning(
        "unjoined",
        format!(
            "{} of {} exchanges of {row} have no partner at the proxy ({} without a record, {} with other deltas, \
             {} with a trace id used twice; {} records were evicted), so their overheads are missing",
            unjoined.total(),
            tallies.completed,
            unjoined.no_hop_record,
            unjoined.ordinals_differ,
            unjoined.duplicate_trace,
            unjoined.evicted
        ),
        remedy,
    )
}

fn few_blocks(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    if record.rows.len() < 2 {
        return None;
    }
    let is_whole = |cell: &&Cell| !cell.statistics.0.is_empty();
    let blocks = |row: &Row| record.cells_of(*row).filter(is_whole).count();
    // A row in which nothing completed has a warning of its own.
    let completed = |row: &&Row| {
        let recorder = recorders.get(row);
        recorder.is_some_and(|recorder| recorder.tallies().completed > 0)
    };
    let (row, fewest) = record
        .rows
        .iter()
        .filter(completed)
        .map(|row| (row, blocks(row)))
        .min_by_key(|(_, blocks)| *blocks)?;
    if fewest >= ENOUGH_BLOCKS {
        return None;
    }
    warning(
        "few_blocks",
        format!(
            "{row} ran in {fewest} blocks in which nothing is missing; with fewer than {ENOUGH_BLOCKS} the intervals are wide and say little"
        ),
        "let the rows take more turns with --blocks; a --duration must leave the time for them",
    )
}

fn millis(nanos: f64) -> String {
    format!("{:.3} ms", nanos / 1e6)
}

#[cfg(test)]
mod anything;
#[cfg(test)]
mod tests;
