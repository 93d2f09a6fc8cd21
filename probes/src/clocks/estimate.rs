//! What the round trips of a run say of its two clocks: offset, drift, and how well they are known.

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;

use super::{ClockBatch, ClockRecord, ClockSpan};

/// Batches that the drift is computed of, at most: evenly chosen where there are more, since every two are compared.
const MOST_COMPARED: usize = 256;

/// Whether the two ends stamp with one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockRelation {
    /// They do: stamps are compared as they are.
    Same,
    /// They do not: the proxy's stamps were moved by an estimate.
    Estimated,
}

/// The two clocks of a run; `clocks` in `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockEstimate {
    /// Whether the clock is one. Where it is, nothing was moved, and what follows is only what the round trips say.
    pub relation: ClockRelation,
    /// How far the proxy's clock was ahead of ours in the middle of the run, in nanoseconds.
    pub offset_ns: i64,
    /// How much faster it went, in millionths: the median over every two batches. `None` with fewer than two.
    pub drift_ppm: Option<f64>,
    /// The drift is no farther from it than this, in millionths, where it was even.
    pub drift_uncertainty_ppm: Option<f64>,
    /// No cross-clock figure of the run is off by more than this, in nanoseconds: half of the slowest of the batches' fastest
    /// round trips, and the residue.
    pub uncertainty_ns: u64,
    /// How far a batch lay from the straight line between its neighbours, in nanoseconds: the median. 0 with fewer than three.
    pub residue_ns: u64,
    /// How far a batch lay from that line beyond what its round trips allow, in nanoseconds: the largest. More than 0 means
    /// that the drift was not even.
    pub bend_ns: u64,
    /// Round trips that were made.
    pub round_trips: u64,
    /// Batches of them.
    pub batches: u32,
}

impl ClockRecord {
    /// The estimate over the whole run; `None` where no round trip was made.
    pub fn estimate(&self) -> Option<ClockEstimate> {
        let batches = self.batches.as_slice();
        let (first, last) = (batches.first()?, batches.last()?);
        let middle = first.moment().midpoint(last.moment());
        let (residue_ns, bend_ns) = misses(batches);
        let slowest = batches.iter().map(|batch| batch.fastest.half_ns()).max();
        let long = last.moment().as_nanos() as f64 - first.moment().as_nanos() as f64;
        let drift = drift(batches);
        // What the first batch and the last one leave of an even drift, and how far from its middle the median lies.
        let left = |drift: f64| {
            let halves = first.fastest.half_ns() as f64 + last.fastest.half_ns() as f64;
            let moved = last.fastest.offset_ns() as f64 - first.fastest.offset_ns() as f64;
            (halves + (drift * long - moved).abs()) / long
        };
        Some(ClockEstimate {
            relation: self.relation(),
            offset_ns: self.offset_ns(middle)?,
            drift_ppm: drift.map(|share| share * 1e6),
            drift_uncertainty_ppm: drift.filter(|_| long > 0.0).map(|drift| left(drift) * 1e6),
            uncertainty_ns: slowest.unwrap_or(0).saturating_add(residue_ns),
            residue_ns,
            bend_ns,
            round_trips: batches.iter().map(|it| u64::from(it.round_trips)).sum(),
            batches: batches.len() as u32,
        })
    }

    /// How far the other clock was ahead `at` a moment of ours, in nanoseconds; `None` where no round trip was made.
    pub fn offset_ns(&self, at: Stamp) -> Option<i64> {
        Some(self.span(at, at)?.offset_at_ours(at))
    }

    /// How far an estimate for a moment between two of ours may be off, in nanoseconds: half of the slowest of the fastest
    /// round trips right before, between and after them, and the residue. `None` where no round trip was made.
    pub fn uncertainty_ns(&self, from: Stamp, to: Stamp) -> Option<u64> {
        self.uncertainty_within([(from, to)])
    }

    /// The same for the worst of several stretches.
    pub(crate) fn uncertainty_within(
        &self,
        stretches: impl IntoIterator<Item = (Stamp, Stamp)>,
    ) -> Option<u64> {
        let slowest = |(from, to)| {
            let (first, last) = (self.last_before(from)?, self.first_after(to)?);
            let around = self.batches.get(first..=last.max(first))?;
            around.iter().map(|batch| batch.fastest.half_ns()).max()
        };
        let slowest = stretches.into_iter().filter_map(slowest).max()?;
        Some(slowest.saturating_add(misses(&self.batches).0))
    }

    /// The batches right before and after a stretch of ours; `None` where no round trip was made.
    pub fn span(&self, from: Stamp, to: Stamp) -> Option<ClockSpan> {
        Some(ClockSpan {
            before: self.batches[self.last_before(from)?],
            after: self.batches[self.first_after(to)?],
        })
    }

    /// The last batch before `at`, or the first of all.
    fn last_before(&self, at: Stamp) -> Option<usize> {
        let before = self.batches.partition_point(|batch| batch.moment() <= at);
        (!self.batches.is_empty()).then(|| before.saturating_sub(1))
    }

    /// The first batch after `at`, or the last of all.
    fn first_after(&self, at: Stamp) -> Option<usize> {
        let after = self.batches.partition_point(|batch| batch.moment() < at);
        Some(after.min(self.batches.len().checked_sub(1)?))
    }
}

/// How much faster the other clock goes: the median of the slopes between every two batches (Theil 1950, Sen 1968), which
/// nearly a third of the batches may spoil without moving it far.
fn drift(batches: &[ClockBatch]) -> Option<f64> {
    let step = batches.len().div_ceil(MOST_COMPARED).max(1);
    let chosen: Vec<&ClockBatch> = batches.iter().step_by(step).collect();
    let mut slopes = Vec::with_capacity(chosen.len() * chosen.len() / 2);
    for (at, one) in chosen.iter().enumerate() {
        for other in &chosen[at + 1..] {
            let apart = other.moment().as_nanos() as f64 - one.moment().as_nanos() as f64;
            if apart > 0.0 {
                let by =
                    i128::from(other.fastest.offset_ns()) - i128::from(one.fastest.offset_ns());
                slopes.push(by as f64 / apart);
            }
        }
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    Some(slopes[slopes.len() / 2])
}

/// How far each inner batch lies from the line between its neighbours: the median, and the largest beyond what round trips allow.
fn misses(batches: &[ClockBatch]) -> (u64, u64) {
    let mut bend = 0;
    let mut misses: Vec<u64> = batches
        .windows(3)
        .map(|three| {
            let (before, it, after) = (three[0], three[1], three[2]);
            let line = ClockSpan { before, after };
            let miss = line
                .offset_at_ours(it.moment())
                .abs_diff(it.fastest.offset_ns());
            let neighbours = before.fastest.half_ns().max(after.fastest.half_ns());
            let allowed = it.fastest.half_ns().saturating_add(neighbours);
            bend = bend.max(miss.saturating_sub(allowed));
            miss
        })
        .collect();
    misses.sort_unstable();
    (misses.get(misses.len() / 2).copied().unwrap_or(0), bend)
}
