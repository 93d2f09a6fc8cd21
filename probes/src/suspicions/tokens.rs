//! Rows that did not do the same work: different prompts, outputs or caches.

use crate::record::RunRecord;
use crate::recorder::Tallies;
use crate::report::Recorders;
use crate::row::Row;
use crate::verdict::Warning;

use super::warning;

/// How far two rows' tokens per exchange may lie apart: rounding, and the odd reply that ended early.
const TOLERATED_TOKEN_SPREAD: f64 = 0.005;
/// Cached prompt tokens may lie apart by this share of the prompt.
const TOLERATED_CACHE_SPREAD: f64 = 0.01;
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

/// The rows with the least and the most of something per exchange; `None` with fewer than two rows that know it.
fn extremes(
    record: &RunRecord,
    recorders: &Recorders,
    of: fn(&Tallies) -> Option<(u64, u64)>,
) -> Option<((Row, f64), (Row, f64))> {
    let mut means: Vec<(Row, f64)> = record
        .rows
        .iter()
        .filter_map(|row| {
            let (amount, exchanges) = of(recorders.get(row)?.tallies())?;
            (exchanges > 0).then(|| (*row, amount as f64 / exchanges as f64))
        })
        .collect();
    means.sort_by(|a, b| a.1.total_cmp(&b.1));
    match means.as_slice() {
        [fewest, .., most] => Some((*fewest, *most)),
        _ => None,
    }
}
