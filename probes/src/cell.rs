//! Block statistics: the exact figures of one row in one block, from raw values that are kept only while the block lasts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, HopExchange};
use crate::figures::{Figures, derive_into};
use crate::histogram::nearest_rank;
use crate::metric::Metric;
use crate::stats::Statistic;

/// Values of one figure that a sample keeps unless told otherwise: 2 MB a figure at most.
pub const DEFAULT_KEPT_VALUES: usize = 1 << 18;

/// Exact statistics of one figure in one cell, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellFigure {
    /// How many values there are.
    pub count: u64,
    /// How many exchanges they come from.
    pub exchanges: u64,
    /// Arithmetic mean of all values.
    pub mean: f64,
    /// Median (nearest rank) of the values kept.
    pub p50: i64,
    /// 99th percentile (nearest rank) of the values kept.
    pub p99: i64,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
    /// Values that came after the bound was reached: in `count`, `mean`, `min` and `max`, not in the percentiles.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beyond_bound: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl CellFigure {
    /// The named statistic, in nanoseconds.
    pub fn statistic(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::P50 => self.p50 as f64,
            Statistic::P99 => self.p99 as f64,
            Statistic::Mean => self.mean,
        }
    }
}

/// The statistics of one (row, block), by figure. A figure without values is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellStatistics(pub BTreeMap<Metric, CellFigure>);

impl CellStatistics {
    /// One figure's statistics; `None` where it has no values.
    pub fn get(&self, metric: Metric) -> Option<&CellFigure> {
        self.0.get(&metric)
    }
}

/// The raw values of one (row, block), bounded, from which [`CellStatistics`] are computed.
#[derive(Clone, Debug)]
pub struct CellSample {
    /// In the order of [`Metric::ALL`].
    raw: [RawValues; Metric::ALL.len()],
    kept_values: usize,
}

#[derive(Clone, Debug)]
struct RawValues {
    /// The first values, from which everything is computed once the block is over.
    kept: Vec<i64>,
    count: u64,
    exchanges: u64,
    /// The count when an exchange was last booked.
    booked: u64,
    beyond: Beyond,
}

/// Of values that came after the bound was reached: what they say together.
#[derive(Clone, Copy, Debug)]
struct Beyond {
    sum: i128,
    min: i64,
    max: i64,
}

impl Beyond {
    const NONE: Self = Self {
        sum: 0,
        min: i64::MAX,
        max: i64::MIN,
    };

    fn take(&mut self, values: &[i64]) {
        for &nanos in values {
            self.min = self.min.min(nanos);
            self.max = self.max.max(nanos);
        }
        self.sum += exact_sum(values);
    }
}

impl Default for RawValues {
    fn default() -> Self {
        Self::over(Vec::new())
    }
}

impl Default for CellSample {
    fn default() -> Self {
        Self::new(DEFAULT_KEPT_VALUES)
    }
}

impl CellSample {
    /// An empty sample that keeps at most `kept_values` values of each figure.
    pub fn new(kept_values: usize) -> Self {
        Self {
            raw: std::array::from_fn(|_| RawValues::default()),
            kept_values: kept_values.max(1),
        }
    }

    /// Takes the figures of one exchange that has ended.
    pub fn finish(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        derive_into(exchange, hop, self);
        self.exchange_is_over();
    }

    /// A figure's values of one exchange need not come together, so the exchange is booked once all have.
    pub(crate) fn exchange_is_over(&mut self) {
        for raw in &mut self.raw {
            raw.exchanges += u64::from(raw.count > raw.booked);
            raw.booked = raw.count;
        }
    }

    /// Takes one value of a figure that no exchange has for itself, in nanoseconds.
    pub fn record(&mut self, metric: Metric, nanos: i64) {
        self.one(metric, nanos);
    }

    /// Forgets everything and keeps the memory, for the next cell.
    pub fn reset(&mut self) {
        for raw in &mut self.raw {
            let mut kept = std::mem::take(&mut raw.kept);
            kept.clear();
            *raw = RawValues::over(kept);
        }
    }

    /// The statistics of what was taken so far.
    pub fn statistics(&self) -> CellStatistics {
        let mut sorted = Vec::new();
        let figures = Metric::ALL.into_iter().zip(&self.raw);
        let with_values = figures.filter(|(_, raw)| raw.count > 0);
        CellStatistics(
            with_values
                .map(|(metric, raw)| (metric, raw.figure(&mut sorted)))
                .collect(),
        )
    }
}

impl Figures for CellSample {
    #[inline]
    fn one(&mut self, metric: Metric, nanos: i64) {
        self.raw[metric.index()].record(nanos, self.kept_values);
    }

    fn some(&mut self, metric: Metric, values: &[i64]) {
        self.raw[metric.index()].record_all(values, self.kept_values);
    }
}

/// The sum of fewer than 2^31 values, without a carry at each of them.
pub(crate) fn exact_sum(values: &[i64]) -> i128 {
    let (mut bits, mut sum) = (0, 0_i64);
    for &value in values {
        bits |= value;
        sum = sum.wrapping_add(value);
    }
    // No value is above all their bits together: below four seconds, as nearly all are, the sum cannot overflow.
    if (0..1 << 32).contains(&bits) {
        return sum.into();
    }
    // Their halves are added up apart, and cannot either.
    let (mut upper, mut lower) = (0_i64, 0_u64);
    for &value in values {
        upper += value >> 32;
        lower += u64::from(value as u32);
    }
    (i128::from(upper) << 32) + i128::from(lower)
}

impl RawValues {
    /// No values yet; they will be kept in `kept`, which is empty.
    fn over(kept: Vec<i64>) -> Self {
        Self {
            kept,
            count: 0,
            exchanges: 0,
            booked: 0,
            beyond: Beyond::NONE,
        }
    }

    #[inline]
    fn record(&mut self, nanos: i64, most: usize) {
        self.record_all(&[nanos], most);
    }

    fn record_all(&mut self, values: &[i64], most: usize) {
        self.count += values.len() as u64;
        let room = most.saturating_sub(self.kept.len()).min(values.len());
        let (kept, beyond) = values.split_at(room);
        self.kept.extend_from_slice(kept);
        if !beyond.is_empty() {
            self.beyond.take(beyond);
        }
    }

    /// Of one value or more; `sorted` is room to sort in.
    fn figure(&self, sorted: &mut Vec<i64>) -> CellFigure {
        sorted.clear();
        sorted.extend_from_slice(&self.kept);
        sorted.sort_unstable();
        let at = |quantile: f64| sorted[nearest_rank(quantile, sorted.len() as u64) as usize - 1];
        let sum = self.beyond.sum + exact_sum(sorted);
        CellFigure {
            count: self.count,
            exchanges: self.exchanges,
            mean: sum as f64 / self.count as f64,
            p50: at(0.5),
            p99: at(0.99),
            min: self.beyond.min.min(sorted[0]),
            max: self.beyond.max.max(sorted[sorted.len() - 1]),
            beyond_bound: self.count - sorted.len() as u64,
        }
    }
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
