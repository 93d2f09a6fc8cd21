//! The middle of noisy values: a trimmed mean and its interval, by a bootstrap.

/// Resamples behind an interval.
const RESAMPLES: usize = 4_000;
/// On either side so many are left out.
const TRIMMED: f64 = 0.2;

/// A trimmed mean, and its 95 % interval: the percentile bootstrap's, which is the one to take for means that are trimmed so much
/// (Wilcox, *Introduction to Robust Estimation and Hypothesis Testing*, section 4.4).
#[derive(Clone, Copy, Debug)]
pub struct Middle {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// Of `values`, which are not none.
pub fn middle(values: &[f64]) -> Middle {
    let mut coin = Coin::new(2);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = values.iter().map(|_| values[coin.below(values.len())]);
            trimmed_mean(drawn.collect())
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
    Middle {
        mean: trimmed_mean(values.to_vec()),
        low: at(0.025),
        high: at(0.975),
    }
}

fn trimmed_mean(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let left_out = (TRIMMED * values.len() as f64) as usize;
    let kept = &values[left_out..values.len() - left_out];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// The upper median; not a number where there are no values.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Chance: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub struct Coin(u64);

impl Coin {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn heads(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A number from 0 to `bound`, which is small and left out.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
