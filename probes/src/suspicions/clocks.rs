//! Two clocks that are known too badly, or drift too far, for the figures that are taken with both.

use crate::clocks::{ClockEstimate, ClockRecord};
use crate::metric::Metric;
use crate::record::RunRecord;
use crate::report::Recorders;
use crate::row::Row;
use crate::verdict::Warning;

use super::{millis, warning};

/// The share of a figure that drift may add to it, or take off.
const DRIFT_SHARE: f64 = 0.1;

/// What speaks against a run whose ends have clocks of their own; nothing where the clock is one.
pub(super) fn drift(record: &RunRecord, recorders: &Recorders) -> Vec<Warning> {
    let clocks = record.clocks.as_ref().filter(|it| it.is_estimated());
    let Some(estimate) = clocks.and_then(ClockRecord::estimate) else {
        return Vec::new();
    };
    // One of them is enough to say: the same remedy mends both.
    let one_way = bent(&estimate).or_else(|| badly_known(record, recorders));
    let whole = drifting(&estimate, recorders);
    one_way.into_iter().chain(whole).collect()
}

/// The offset did not go in a straight line between two batches of round trips: it was set, or a machine was stopped.
fn bent(estimate: &ClockEstimate) -> Option<Warning> {
    if estimate.bend_ns <= estimate.uncertainty_ns {
        return None;
    }
    warning(
        "clock_drift",
        format!(
            "the two ends' clocks moved against one another by {} more within the run than an even drift explains, beyond the {} \
             to which the offset is known",
            millis(estimate.bend_ns as f64),
            millis(estimate.uncertainty_ns as f64),
        ),
        "let chrony or ntpd settle on both machines before the run, and let neither be suspended or moved meanwhile",
    )
}

/// A row's figure is no larger than what the offset may be off by around its cells; of several the worst.
fn badly_known(record: &RunRecord, recorders: &Recorders) -> Option<Warning> {
    let late = |(row, recorder): (&Row, &crate::recorder::Recorder)| {
        let p50 = recorder.summary(Metric::TokenOverhead)?.p50;
        Some((p50, record.clock_uncertainty_ns(*row)?, *row))
    };
    // Each row by its own clocks' batches: the row with the smallest figure may be the one whose offset is known best.
    let short = |(p50, uncertainty, _): &(i64, u64, Row)| {
        i128::from(*uncertainty).saturating_sub(i128::from(*p50))
    };
    let (p50, uncertainty, row) = recorders
        .iter()
        .filter_map(late)
        .filter(|found| short(found) >= 0)
        .max_by_key(short)?;
    warning(
        "clock_drift",
        format!(
            "the two ends have clocks of their own, and their offset is known to {}: no less than a figure that is taken \
             with both, the token_overhead p50 of {row}: {}",
            millis(uncertainty as f64),
            millis(p50 as f64),
        ),
        "reach --proxy-admin on the shortest way there is, with nothing else on it; or compare roundtrip_overhead and \
         first_token_overhead, which need no offset",
    )
}

/// The overheads are differences of two spans, one by each clock: the longer the model takes, the more drift is in them.
fn drifting(estimate: &ClockEstimate, recorders: &Recorders) -> Option<Warning> {
    let (drift, within) = estimate.drift_ppm.zip(estimate.drift_uncertainty_ppm)?;
    let at_least = (drift.abs() - within) / 1e6;
    let figures = [
        (Metric::FirstTokenOverhead, Metric::ModelTtft),
        (Metric::RoundtripOverhead, Metric::ModelTime),
    ];
    let spoilt = recorders.iter().flat_map(|(row, recorder)| {
        figures.into_iter().filter_map(move |(metric, model)| {
            let p50 = recorder.summary(metric)?.p50 as f64;
            let added = recorder.summary(model)?.p50 as f64 * at_least;
            Some((added, p50, metric, *row))
        })
    });
    let (added, p50, metric, row) = spoilt
        .filter(|(added, p50, ..)| *added > DRIFT_SHARE * p50.max(0.0))
        .max_by(|one, other| {
            (one.0 - DRIFT_SHARE * one.1).total_cmp(&(other.0 - DRIFT_SHARE * other.1))
        })?;
    warning(
        "clock_drift",
        format!(
            "the proxy's clock drifts by {drift:+.1} ppm against ours, which is {} over the model's time, above a tenth of the \
             {metric} p50 of {row}: {}",
            millis(added),
            millis(p50),
        ),
        "let chrony or ntpd discipline the clocks of both machines, or ask for shorter replies",
    )
}

#[cfg(test)]
#[path = "clocks_tests.rs"]
mod tests;
