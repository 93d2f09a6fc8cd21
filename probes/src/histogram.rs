//! A histogram of signed nanoseconds: two HdrHistograms, the negative values in one of their own by magnitude.

use hdrhistogram::{AdditionError, Histogram};
use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::metric::Unit;

/// The largest value that is told apart: one hour. Larger ones are booked as one hour and counted as saturated.
pub const HIGHEST_NANOS: u64 = 3_600_000_000_000;
/// Values are kept to this many significant decimal digits.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// A distribution in one line of a report. Values are nanoseconds, to three significant digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The unit of all values below.
    pub unit: Unit,
    /// How many values there are, negative ones included.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub std: f64,
    /// Smallest value.
    pub min: i64,
    /// Median.
    pub p50: i64,
    /// 90th percentile.
    pub p90: i64,
    /// 99th percentile.
    pub p99: i64,
    /// 99.9th percentile.
    pub p999: i64,
    /// Largest value.
    pub max: i64,
    /// How many values are below zero.
    #[serde(default)]
    pub negatives: u64,
    /// How many values were above one hour and are booked as one hour.
    #[serde(default)]
    pub saturated: u64,
}

/// Signed values from minus one hour to one hour, to three significant digits. Mergeable.
///
/// A part is allocated when its first value comes: one takes 270 KB, of which only what values fell into is in memory.
#[derive(Clone, Debug, Default)]
pub struct SignedHistogram {
    positive: Option<Counts>,
    negative: Option<Counts>,
    saturated: u64,
}

impl SignedHistogram {
    /// Records one value, in nanoseconds; `false` where it was beyond one hour, and is booked as one hour.
    #[inline]
    pub fn record(&mut self, nanos: i64) -> bool {
        let part = match nanos {
            0.. => &mut self.positive,
            _ => &mut self.negative,
        };
        let magnitude = nanos.unsigned_abs();
        let told_apart = magnitude <= HIGHEST_NANOS;
        self.saturated += u64::from(!told_apart);
        part.get_or_insert_with(Counts::new).record(magnitude);
        told_apart
    }

    /// Records values, in nanoseconds; how many of them were beyond one hour, and are booked as one hour.
    pub(crate) fn record_all(&mut self, values: &[i64]) -> u64 {
        // No value is above all their bits together: mostly that tells all of them to be in range at once.
        let bits = values.iter().fold(0, |bits, nanos| bits | nanos);
        if values.is_empty() || !(0..=HIGHEST_NANOS as i64).contains(&bits) {
            return values
                .iter()
                .map(|&nanos| u64::from(!self.record(nanos)))
                .sum();
        }
        let part = self.positive.get_or_insert_with(Counts::new);
        part.record_all(values);
        0
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &SignedHistogram) {
        for (ours, theirs) in [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ] {
            if let Some(theirs) = theirs.as_ref().filter(|part| part.len() > 0) {
                ours.get_or_insert_with(Counts::new).add(theirs);
            }
        }
        self.saturated += other.saturated;
    }

    /// Empties it and keeps its memory.
    pub fn reset(&mut self) {
        let parts = [&mut self.positive, &mut self.negative];
        parts.into_iter().flatten().for_each(Counts::reset);
        self.saturated = 0;
    }

    /// Values that are zero or more, as HdrHistogram's files and tools take them; `None` where there are none.
    pub fn positive(&self) -> Option<Histogram<u64>> {
        self.above().map(Counts::to_histogram)
    }

    /// Magnitudes of the values below zero, in the same way; `None` where there are none.
    pub fn negative(&self) -> Option<Histogram<u64>> {
        self.below().map(Counts::to_histogram)
    }

    /// How many values were beyond one hour.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.above().map_or(0, Counts::len) + self.negatives()
    }

    /// How many values are below zero.
    pub fn negatives(&self) -> u64 {
        self.below().map_or(0, Counts::len)
    }

    /// How many values lie from `from`, which is not negative, to below `to`, to within the width of their buckets.
    pub(crate) fn count_within(&self, from: i64, to: i64) -> u64 {
        let lies = |middle: u64| i64::try_from(middle).is_ok_and(|it| (from..to).contains(&it));
        let buckets = self.above().into_iter().flat_map(Counts::buckets);
        buckets
            .filter(|bucket| lies(bucket.middle()))
            .map(|bucket| bucket.count)
            .sum()
    }

    fn above(&self) -> Option<&Counts> {
        self.positive.as_ref().filter(|part| part.len() > 0)
    }

    fn below(&self) -> Option<&Counts> {
        self.negative.as_ref().filter(|part| part.len() > 0)
    }

    /// Adds values that are zero or more, as a file gave them back.
    ///
    /// # Errors
    /// A value lies beyond the highest one.
    pub(crate) fn add_positive(&mut self, part: &Histogram<u64>) -> Result<(), AdditionError> {
        add(&mut self.positive, part)
    }

    /// Adds magnitudes of values below zero, as a file gave them back.
    ///
    /// # Errors
    /// A magnitude lies beyond the highest one.
    pub(crate) fn add_negative(&mut self, part: &Histogram<u64>) -> Result<(), AdditionError> {
        add(&mut self.negative, part)
    }

    /// Restores what no histogram file tells.
    pub(crate) fn add_saturated(&mut self, count: u64) {
        self.saturated += count;
    }

    /// The value at `quantile` (0 to 1): the smallest value that at least that share of all values does not exceed.
    pub fn value_at_quantile(&self, quantile: f64) -> Option<i64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = nearest_rank(quantile, count);
        let below = self.negatives();
        if rank <= below {
            // Negative values rise as their magnitudes fall.
            let bucket = self.below()?.at_rank(below - rank + 1)?;
            return Some(-(bucket.highest as i64));
        }
        Some(self.above()?.at_rank(rank - below)?.highest as i64)
    }

    /// The distribution in one line; `None` where nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        let count = self.count();
        let (mean, std) = self.moments()?;
        let first = |part: &Counts| Some(part.buckets().next()?.lowest as i64);
        let last = |part: &Counts| Some(part.buckets().next_back()?.highest as i64);
        let (above, below) = (self.above(), self.below());
        let smallest = below.and_then(last).map(|magnitude| -magnitude);
        let largest = above.and_then(last);
        Some(Summary {
            unit: Unit::Nanoseconds,
            count,
            mean,
            std,
            min: smallest.or_else(|| above.and_then(first))?,
            p50: self.value_at_quantile(0.5)?,
            p90: self.value_at_quantile(0.9)?,
            p99: self.value_at_quantile(0.99)?,
            p999: self.value_at_quantile(0.999)?,
            max: largest.or_else(|| below.and_then(first).map(|magnitude| -magnitude))?,
            negatives: self.negatives(),
            saturated: self.saturated,
        })
    }

    /// Mean and standard deviation; every value counts as the middle of its bucket.
    fn moments(&self) -> Option<(f64, f64)> {
        let count = self.count() as f64;
        if count == 0.0 {
            return None;
        }
        let weighted = |of: &dyn Fn(f64) -> f64| {
            let sum = |part: Option<&Counts>, sign: f64| -> f64 {
                part.into_iter()
                    .flat_map(Counts::buckets)
                    .map(|bucket| of(sign * bucket.middle() as f64) * bucket.count as f64)
                    .sum()
            };
            (sum(self.below(), -1.0) + sum(self.above(), 1.0)) / count
        };
        let mean = weighted(&|value| value);
        let variance = weighted(&|value| (value - mean).powi(2));
        Some((mean, variance.sqrt()))
    }
}

fn add(part: &mut Option<Counts>, other: &Histogram<u64>) -> Result<(), AdditionError> {
    part.get_or_insert_with(Counts::new).add_histogram(other)
}

/// Which of `count` values, in rising order and from 1, stands at `quantile`.
pub(crate) fn nearest_rank(quantile: f64, count: u64) -> u64 {
    // 0.999 * 1000 is 999.0000000000001 in binary: what lies within rounding error of a rank is that rank.
    let exact = quantile * count as f64;
    ((exact - exact * 1e-12).ceil() as u64).clamp(1, count.max(1))
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
