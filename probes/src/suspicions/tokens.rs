//! Tokens that cannot be compared: rows that did not do the same work, and tokens that have no stamp of their own.

use crate::record::RunRecord;
use crate::recorder::Tallies;
use crate::report::Recorders;
use crate::row::Row;
use crate::verdict::Warning;

use super::path::{are_proxies_idle, is_busy};
use super::warning;

/// How far two rows' tokens per exchange may lie apart: rounding, and the odd reply that ended early.
const TOLERATED_TOKEN_SPREAD: f64 = 0.005;
/// Cached prompt tokens may lie apart by this share of the prompt.
const TOLERATED_CACHE_SPREAD: f64 = 0.01;
/// Tokens that share a stamp, on average, from which figures per token say too little: a third of all gaps is zero then, and
/// the median gap is no longer one between two stamps that follow each other.
const SHARED_STAMP: f64 = 1.5;

pub(super) fn input(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    let message = token_spread(record, recorders, "prompt tokens", |tallies| {
        Some((tallies.input_tokens, tallies.with_usage))
    })?;
    warning(
        "input_tokens_differ",
        message,
        "give all rows the same prompts, with nonces of equal token length, and one place that keeps the state",
    )
}

pub(super) fn output(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    let message = token_spread(record, recorders, "output tokens", |tallies| {
        Some((tallies.tokens, tallies.completed))
    })?;
    warning(
        "output_tokens_differ",
        message,
        "fix the output's length (--osl with ignore_eos) on a backend that obeys it",
    )
}

/// The message where rows differ in tokens per exchange by more than is tolerated.
fn token_spread(
    record: &RunRecord,
    recorders: &Recorders,
    what: &str,
    of: fn(&Tallies) -> Option<(u64, u64)>,
) -> Option<String> {
    let (fewest, most) = extremes(record, recorders, of)?;
    (most.1 - fewest.1 > TOLERATED_TOKEN_SPREAD * most.1).then(|| {
        format!(
            "rows differ in {what} per exchange: {} has {:.1}, {} has {:.1}",
            fewest.0, fewest.1, most.0, most.1
        )
    })
}

pub(super) fn cached(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    let (fewest, most) = extremes(record, recorders, |tallies| {
        Some((tallies.cached_input_tokens, tallies.with_cached_input))
    })?;
    let (_, prompt) = extremes(record, recorders, |tallies| {
        Some((tallies.input_tokens, tallies.with_usage))
    })?;
    if most.1 - fewest.1 <= TOLERATED_CACHE_SPREAD * prompt.1 {
        return None;
    }
    warning(
        "cached_tokens_differ",
        format!(
            "rows differ in cached prompt tokens per exchange: {} has {:.1}, {} has {:.1}, of {:.1} in the prompt",
            fewest.0, fewest.1, most.0, most.1, prompt.1
        ),
        "start each session with a nonce of its own, give the backend room to cache every session, and warm all rows alike",
    )
}

/// Tokens that share a stamp: several in a delta, or several deltas in a read. All but the last of them were there before.
pub(super) fn coalesced(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    let per_stamp = |tallies: &Tallies| {
        let stamps = tallies.deltas.saturating_sub(tallies.coalesced);
        Some((tallies.tokens, stamps))
    };
    let means = means(record, recorders, per_stamp);
    let is_alone_somewhere = means.first()?.1 < SHARED_STAMP;
    let (row, per_stamp) = means
        .into_iter()
        .rev()
        .find(|(row, _)| !(is_alone_somewhere && come_together(record, *row)))?;
    if per_stamp < SHARED_STAMP {
        return None;
    }
    let tallies = recorders.get(&row)?.tallies();
    let per_delta = tallies.tokens as f64 / tallies.deltas as f64;
    let per_read = per_stamp / per_delta;
    let remedy = if per_delta >= per_read {
        "have the backend send each token in an event of its own (vLLM: --stream-interval 1), or read the figures as those of deltas"
    } else {
        "have the backend and what stands before it write each event at once; where they do, either a sender's congestion window \
         was full, so that what waited left together (row.sockets in report.json says how much waits to be sent), or who reads \
         is too busy to read each on its own: lower the load, or give it a core"
    };
    warning(
        "coalesced_tokens",
        format!(
            "{per_stamp:.1} tokens of {row} share a stamp ({per_delta:.1} a delta, and {per_read:.1} deltas that were read at once): \
             all but the last of them were there earlier, so figures per token are upper bounds, and gaps between them are lost"
        ),
        remedy,
    )
}

/// What one read of this row returned came in one moment: there is no hop between the ends of an emulated link, and who mostly
/// waits there is there when bytes are: the generator, and the sidecar beside it in a pair, which is the one that reads what came
/// over the link. Deltas share a segment where a window was full when they were written, as that
/// of a new connection is (RFC 5681, section 3.1; RFC 6928), and that is what the row is to show. Of a backend that writes
/// many at once nothing is said: all rows have it alike.
fn come_together(record: &RunRecord, row: Row) -> bool {
    let waits = match row.transport.is_pair() {
        true => are_proxies_idle(record, row),
        false => true,
    };
    record.floor.is_some_and(|floor| floor.is_of_a_link()) && waits && !is_busy(record, row)
}

/// The rows with the least and the most of something per exchange; `None` with fewer than two rows that know it.
fn extremes(
    record: &RunRecord,
    recorders: &Recorders,
    of: fn(&Tallies) -> Option<(u64, u64)>,
) -> Option<((Row, f64), (Row, f64))> {
    let means = means(record, recorders, of);
    let (fewest, most) = (*means.first()?, *means.last()?);
    (fewest.0 != most.0).then_some((fewest, most))
}

/// Each row that knows something per exchange, from the least to the most.
fn means(
    record: &RunRecord,
    recorders: &Recorders,
    of: impl Fn(&Tallies) -> Option<(u64, u64)>,
) -> Vec<(Row, f64)> {
    let mut means: Vec<(Row, f64)> = record
        .rows
        .iter()
        .filter_map(|row| {
            let (amount, exchanges) = of(recorders.get(row)?.tallies())?;
            (exchanges > 0).then(|| (*row, amount as f64 / exchanges as f64))
        })
        .collect();
    means.sort_by(|a, b| a.1.total_cmp(&b.1));
    means
}
