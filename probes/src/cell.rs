//! Block statistics: the exact figures of one row in one block, from raw values that are kept only while the block lasts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, HopExchange};
use crate::figures::derive;
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
    raw: BTreeMap<Metric, RawValues>,
    kept_values: usize,
}

#[derive(Clone, Debug, Default)]
struct RawValues {
    kept: Vec<i64>,
    count: u64,
    exchanges: u64,
    sum: i128,
    min: i64,
    max: i64,
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
            raw: BTreeMap::new(),
            kept_values: kept_values.max(1),
        }
    }

    /// Takes the figures of one exchange that has ended.
    pub fn finish(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        // A figure's values of one exchange need not come together, so the exchange is booked once it is over.
        let mut touched = [false; Metric::ALL.len()];
        derive(exchange, hop, &mut |metric, nanos| {
            self.record(metric, nanos);
            touched[metric.index()] = true;
        });
        for (metric, _) in Metric::ALL.into_iter().zip(touched).filter(|(_, hit)| *hit) {
            self.raw.entry(metric).or_default().exchanges += 1;
        }
    }

    /// Forgets everything, for the next cell.
    pub fn reset(&mut self) {
        self.raw.clear();
    }

    /// The statistics of what was taken so far.
    pub fn statistics(&self) -> CellStatistics {
        let figures = self.raw.iter().map(|(&metric, raw)| (metric, raw.figure()));
        CellStatistics(figures.collect())
    }

    fn record(&mut self, metric: Metric, nanos: i64) {
        let raw = self.raw.entry(metric).or_default();
        raw.min = if raw.count == 0 {
            nanos
        } else {
            raw.min.min(nanos)
        };
        raw.max = if raw.count == 0 {
            nanos
        } else {
            raw.max.max(nanos)
        };
        raw.count += 1;
        raw.sum += i128::from(nanos);
        if raw.kept.len() < self.kept_values {
            raw.kept.push(nanos);
        }
    }
}

impl RawValues {
    fn figure(&self) -> CellFigure {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let at = |quantile: f64| sorted[nearest_rank(quantile, sorted.len() as u64) as usize - 1];
        CellFigure {
            count: self.count,
            exchanges: self.exchanges,
            mean: self.sum as f64 / self.count as f64,
            p50: at(0.5),
            p99: at(0.99),
            min: self.min,
            max: self.max,
            beyond_bound: self.count - sorted.len() as u64,
        }
    }
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
