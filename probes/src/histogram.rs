//! A histogram of signed nanoseconds: two HdrHistograms, the negative values in one of their own by magnitude.

use hdrhistogram::{AdditionError, Histogram};
use serde::{Deserialize, Serialize};

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
/// A part is allocated when its first value comes: one takes about 270 KB.
#[derive(Clone, Debug, Default)]
pub struct SignedHistogram {
    positive: Option<Box<Histogram<u64>>>,
    negative: Option<Box<Histogram<u64>>>,
    saturated: u64,
}

fn empty_part() -> Box<Histogram<u64>> {
    let histogram = Histogram::new_with_bounds(1, HIGHEST_NANOS, SIGNIFICANT_DIGITS)
        .expect("the bounds and digits are constants that HdrHistogram accepts");
    Box::new(histogram)
}

impl SignedHistogram {
    /// Records one value, in nanoseconds.
    pub fn record(&mut self, nanos: i64) {
        let part = match nanos {
            0.. => &mut self.positive,
            _ => &mut self.negative,
        };
        let magnitude = nanos.unsigned_abs();
        if magnitude > HIGHEST_NANOS {
            self.saturated += 1;
        }
        part.get_or_insert_with(empty_part)
            .saturating_record(magnitude.min(HIGHEST_NANOS));
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &SignedHistogram) {
        for (ours, theirs) in [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ] {
            let Some(theirs) = theirs else { continue };
            add(ours, theirs).expect("histograms of this program have the same highest value");
        }
        self.saturated += other.saturated;
    }

    /// Empties it and keeps its memory.
    pub fn reset(&mut self) {
        for part in [&mut self.positive, &mut self.negative]
            .into_iter()
            .flatten()
        {
            part.reset();
        }
        self.saturated = 0;
    }

    /// Values that are zero or more; `None` where there are none.
    pub fn positive(&self) -> Option<&Histogram<u64>> {
        self.positive.as_deref().filter(|part| !part.is_empty())
    }

    /// Magnitudes of the values below zero; `None` where there are none.
    pub fn negative(&self) -> Option<&Histogram<u64>> {
        self.negative.as_deref().filter(|part| !part.is_empty())
    }

    /// How many values were beyond one hour.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.positive().map_or(0, Histogram::len) + self.negative().map_or(0, Histogram::len)
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
        let below = self.negative().map_or(0, Histogram::len);
        if rank <= below {
            // Negative values rise as their magnitudes fall.
            let part = self.negative()?;
            return Some(-(value_at_rank(part, below - rank + 1)? as i64));
        }
        Some(value_at_rank(self.positive()?, rank - below)? as i64)
    }

    /// The distribution in one line; `None` where nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        let count = self.count();
        let (mean, std) = self.moments()?;
        let smallest = match (self.negative(), self.positive()) {
            (Some(part), _) => -(part.max() as i64),
            (None, Some(part)) => part.min() as i64,
            (None, None) => return None,
        };
        let largest = match (self.positive(), self.negative()) {
            (Some(part), _) => part.max() as i64,
            (None, Some(part)) => -(part.min() as i64),
            (None, None) => return None,
        };
        Some(Summary {
            unit: Unit::Nanoseconds,
            count,
            mean,
            std,
            min: smallest,
            p50: self.value_at_quantile(0.5)?,
            p90: self.value_at_quantile(0.9)?,
            p99: self.value_at_quantile(0.99)?,
            p999: self.value_at_quantile(0.999)?,
            max: largest,
            negatives: self.negative().map_or(0, Histogram::len),
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
            let sum = |part: Option<&Histogram<u64>>, sign: f64| -> f64 {
                part.into_iter()
                    .flat_map(|part| {
                        part.iter_recorded().map(move |step| {
                            let middle = part.median_equivalent(step.value_iterated_to()) as f64;
                            (sign * middle, step.count_at_value() as f64)
                        })
                    })
                    .map(|(value, times)| of(value) * times)
                    .sum()
            };
            (sum(self.negative(), -1.0) + sum(self.positive(), 1.0)) / count
        };
        let mean = weighted(&|value| value);
        let variance = weighted(&|value| (value - mean).powi(2));
        Some((mean, variance.sqrt()))
    }
}

fn add(
    part: &mut Option<Box<Histogram<u64>>>,
    other: &Histogram<u64>,
) -> Result<(), AdditionError> {
    part.get_or_insert_with(empty_part).add(other)
}

/// Which of `count` values, in rising order and from 1, stands at `quantile`.
pub(crate) fn nearest_rank(quantile: f64, count: u64) -> u64 {
    // 0.999 * 1000 is 999.0000000000001 in binary: what lies within rounding error of a rank is that rank.
    let exact = quantile * count as f64;
    ((exact - exact * 1e-12).ceil() as u64).clamp(1, count.max(1))
}

fn value_at_rank(part: &Histogram<u64>, rank: u64) -> Option<u64> {
    let mut passed = 0;
    part.iter_recorded().find_map(|step| {
        passed += step.count_at_value();
        (passed >= rank).then(|| part.highest_equivalent(step.value_iterated_to()))
    })
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
