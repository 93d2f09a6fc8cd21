//! The mean of a few blocks and its 95 % interval: bootstrap-t, or Student's t where blocks are too few for it.
//!
//! Bootstrap-t after Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), section 12.5: resample the blocks, take
//! `t = (mean* - mean) / se*` of each resample, and put the quantiles of t in place of Student's.

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
    /// Bootstrap-t over blocks: eight blocks or more.
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
            let (t_low, t_high) = t_quantiles(values, mean, seed);
            (t_low, t_high, IntervalMethod::BootstrapT)
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

/// The 2.5 % and 97.5 % quantiles of the resamples' t.
fn t_quantiles(values: &[f64], mean: f64, seed: u64) -> (f64, f64) {
    // Around the mean, sums of squares lose no digits, and one pass over a resample is enough.
    let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let count = centred.len() as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ts = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..centred.len() {
            let value = centred[rng.random_range(0..centred.len() as u32) as usize];
            sum += value;
            squares += value * value;
        }
        let spread = squares - sum * sum / count;
        // A resample of equal values has no error to measure by; what is left of its spread is rounding.
        if spread > squares * 1e-12 {
            ts.push(sum / count / (spread / (count - 1.0) / count).sqrt());
        }
    }
    ts.sort_unstable_by(f64::total_cmp);
    match ts.as_slice() {
        // All values are equal, and the standard error that these multiply is zero.
        [] => (0.0, 0.0),
        _ => {
            let at = |share: f64| ts[(share * (ts.len() - 1) as f64).round() as usize];
            (at(0.025), at(0.975))
        }
    }
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
