//! Choosing the next token from a row of logits.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::portable::exp;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: always the most likely token. Otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep only the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// The same seed and the same prompt give the same tokens; `None` is seed 0.
    pub seed: Option<u64>,
    /// Never choose an end-of-generation token, so that a job runs to its `max_tokens`.
    pub ignore_eos: bool,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            seed: None,
            ignore_eos: false,
        }
    }
}

/// The choices of one job.
pub(crate) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

/// Tokens still in question, with their weights; kept between calls to save the allocation.
pub(crate) type Candidates = Vec<(f32, u32)>;

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Sampler {
        let random = ChaCha8Rng::seed_from_u64(sampling.seed.unwrap_or(0));
        Sampler { sampling, random }
    }

    /// The next token. `endings` are the end-of-generation tokens.
    pub(crate) fn choose(
        &mut self,
        logits: &mut [f32],
        endings: &[u32],
        candidates: &mut Candidates,
    ) -> u32 {
        if self.sampling.ignore_eos {
            for &ending in endings {
                if let Some(logit) = logits.get_mut(ending as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let (best, largest) = most_likely(logits);
        let temperature = self.sampling.temperature;
        // A temperature that is no number is greedy as well.
        if temperature.is_nan() || temperature <= 0.0 || !largest.is_finite() {
            return best;
        }

        candidates.clear();
        let weights = logits
            .iter()
            .map(|logit| exp((logit - largest) / temperature));
        candidates.extend(weights.zip(0..).filter(|(weight, _)| *weight > 0.0));
        let mut total: f64 = candidates
            .iter()
            .map(|(weight, _)| f64::from(*weight))
            .sum();
        let top_p = f64::from(self.sampling.top_p);
        if top_p < 1.0 {
            // All tokens below this share together miss less than 1 - top_p: the nucleus lies above it.
            let share = total * (1.0 - top_p.max(0.0)) / logits.len() as f64;
            candidates.retain(|(weight, id)| f64::from(*weight) >= share || *id == best);
            candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let wanted = total * top_p;
            let mut sum = 0.0;
            let mut kept = 0;
            for (weight, _) in candidates.iter() {
                sum += f64::from(*weight);
                kept += 1;
                if sum >= wanted {
                    break;
                }
            }
            candidates.truncate(kept);
            total = sum;
        }

        let unit = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * total;
        for (weight, id) in candidates.iter() {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *id;
            }
        }
        candidates.last().map_or(best, |(_, id)| *id)
    }
}

/// The first of the largest logits.
pub(crate) fn most_likely(logits: &[f32]) -> (u32, f32) {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut chunks = logits.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    let rest = chunks.remainder().iter();
    let largest = rest
        .chain(&lanes)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let place = logits.iter().position(|&logit| logit == largest);
    (place.unwrap_or(0) as u32, largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        let mut candidates = Candidates::new();
        (0..count)
            .map(|_| sampler.choose(&mut logits.to_vec(), &[0], &mut candidates))
            .collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let sampling = Sampling::default();
        assert_eq!(draw(sampling.clone(), &[1.0, 3.0, 3.0, 2.0], 3), [1, 1, 1]);
        assert_eq!(
            draw(
                Sampling {
                    temperature: f32::NAN,
                    ..sampling
                },
                &[1.0, 0.0],
                1
            ),
            [0]
        );
    }

    #[test]
    fn ignoring_the_end_never_chooses_it() {
        let ignore = Sampling {
            ignore_eos: true,
            ..Sampling::default()
        };
        assert_eq!(draw(ignore.clone(), &[9.0, 1.0, 2.0], 1), [2]);
        let warm = Sampling {
            temperature: 5.0,
            ..ignore
        };
        assert!(draw(warm, &[9.0, 1.0, 2.0], 200).iter().all(|&id| id != 0));
    }

    #[test]
    fn the_seed_decides_and_frequencies_follow_the_weights() {
        let logits = [0.0, 2f32.ln(), 4f32.ln() + 0.0, -20.0];
        let sampling = |seed| Sampling {
            temperature: 1.0,
            seed: Some(seed),
            ..Sampling::default()
        };
        let drawn = draw(sampling(7), &logits, 7000);
        assert_eq!(drawn, draw(sampling(7), &logits, 7000));
        assert_ne!(drawn, draw(sampling(8), &logits, 7000));
        for (id, expected) in [(0, 1000.0), (1, 2000.0), (2, 4000.0)] {
            let count = drawn.iter().filter(|&&drawn| drawn == id).count() as f64;
            assert!((count - expected).abs() < 150.0, "{id}: {count}");
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let logits = [1f32.ln(), 2f32.ln(), 3f32.ln(), 4f32.ln()];
        let sampling = |top_p| Sampling {
            temperature: 1.0,
            top_p,
            ..Sampling::default()
        };
        let ids = |top_p| {
            let mut ids = draw(sampling(top_p), &logits, 500);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(ids(0.0), [3]);
        assert_eq!(ids(0.39), [3]);
        assert_eq!(ids(0.6), [2, 3]);
        assert_eq!(ids(0.85), [1, 2, 3]);
        assert_eq!(ids(1.0), [0, 1, 2, 3]);
    }
}
