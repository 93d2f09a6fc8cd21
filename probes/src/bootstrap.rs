//! The mean of a few blocks and its 95 % interval: two kinds of bootstrap-t, or Student's t where blocks are too few for them.
//!
//! Both take `t = (mean* - mean) / se*` of many resamples, and put its quantiles in place of Student's. The one draws blocks with
//! replacement (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, section 12.5): it follows skewed values, and is too
//! narrow where tails are heavy. The other keeps the blocks and turns their deviations' signs at random (the wild bootstrap of Wu,
//! *Annals of Statistics* 14, 1986, and Liu, 16, 1988, with the weights of Davidson and Flachaire, *Journal of Econometrics* 146,
//! 2008): it holds whatever the tails, and however the noise changes from block to block, but takes values for symmetric. The
//! interval reaches to the farther end of the two on either side; `tests/coverage.rs` shows how often it holds the truth.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// Resamples behind each interval.
const RESAMPLES: usize = 2_000;
/// With fewer blocks than this too many resamples repeat one block, and their t has no bound.
const FEWEST_FOR_BOOTSTRAP: usize = 8;
/// 97.5 % quantiles of Student's t for 1 to 6 degrees of freedom.
const STUDENT: [f64; FEWEST_FOR_BOOTSTRAP - 2] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447];

/// How an interval was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalMethod {
    /// Bootstrap-t over blocks, drawn and with turned signs: eight blocks or more.
    BootstrapT,
    /// Student's t over blocks: two to seven, and the interval is wide.
    StudentT,
}

/// A mean and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Arithmetic mean of the values.
    pub mean: f64,
    /// Lower end; `None` for one value.
    pub low: Option<f64>,
    /// Upper end; `None` for one value.
    pub high: Option<f64>,
    /// How the interval was computed; `None` for one value.
    pub method: Option<IntervalMethod>,
}

/// The mean of `values` (one a block) with its 95 % interval; `None` without values.
///
/// The same values and seed give the same interval.
pub fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    let (mean, error) = mean_and_error(values)?;
    let (t_low, t_high, method) = match values.len() {
        1 => {
            return Some(Estimate {
                mean,
                low: None,
                high: None,
                method: None,
            });
        }
        few @ 2..FEWEST_FOR_BOOTSTRAP => {
            let t = STUDENT[few - 2];
            (-t, t, IntervalMethod::StudentT)
        }
        _ => {
            // Around the mean, sums of squares lose no digits, and one pass over a resample is enough.
            let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (t_low, t_high) = t_of_drawn(&centred, &mut rng);
            let t_turned = t_of_turned(&centred, &mut rng);
            (
                t_low.min(-t_turned),
                t_high.max(t_turned),
                IntervalMethod::BootstrapT,
            )
        }
    };
    Some(Estimate {
        mean,
        // The quantiles change sides: a resample that came out high says that the mean may be low.
        low: Some(mean - t_high * error),
        high: Some(mean - t_low * error),
        method: Some(method),
    })
}

/// Mean, and its standard error (zero for one value).
fn mean_and_error(values: &[f64]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (count - 1.0).max(1.0) / count).sqrt();
    Some((mean, error))
}

/// The 2.5 % and 97.5 % quantiles of t over resamples that draw from the deviations with replacement.
fn t_of_drawn(centred: &[f64], rng: &mut ChaCha8Rng) -> (f64, f64) {
    let mut ts = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..centred.len() {
            let value = centred[rng.random_range(0..centred.len() as u32) as usize];
            sum += value;
            squares += value * value;
        }
        // A resample of equal values has no error to measure by.
        ts.extend(student(sum, squares, centred.len()));
    }
    ts.sort_unstable_by(f64::total_cmp);
    // Without any all values are equal, and the standard error that these multiply is zero.
    (at(&ts, 0.025), at(&ts, 0.975))
}

/// The 95 % quantile of the amount of t over resamples in which each deviation keeps or turns its sign.
fn t_of_turned(centred: &[f64], rng: &mut ChaCha8Rng) -> f64 {
    let squares: f64 = centred.iter().map(|value| value * value).sum();
    if squares == 0.0 {
        return 0.0;
    }
    let mut ts = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let mut sum = 0.0;
        for values in centred.chunks(64) {
            let mut signs: u64 = rng.random();
            for value in values {
                sum += if signs & 1 == 0 { *value } else { -value };
                signs >>= 1;
            }
        }
        // Deviations that are all turned to one value leave no error at all: such a t is beyond any other.
        let t = student(sum, squares, centred.len()).unwrap_or(f64::INFINITY);
        ts.push(t.abs());
    }
    ts.sort_unstable_by(f64::total_cmp);
    at(&ts, 0.95)
}

/// Student's t of `count` values around zero; `None` where they are equal, up to rounding.
fn student(sum: f64, squares: f64, count: usize) -> Option<f64> {
    let count = count as f64;
    let spread = squares - sum * sum / count;
    (spread > squares * 1e-12).then(|| sum / count / (spread / (count - 1.0) / count).sqrt())
}

/// A quantile of sorted values; zero without values.
fn at(sorted: &[f64], share: f64) -> f64 {
    let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(0.0)
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
