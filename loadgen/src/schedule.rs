//! When sessions start: a pure sequence of arrivals, which reads no clock and knows no limit.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::rate::{Burstiness, Rate};

/// When the next session is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As soon as a place is free (a closed loop).
    WhenFree,
    /// This long after the cell's start, whether a place is free or not (an open loop).
    At(Duration),
}

/// A sequence of arrivals.
pub trait Schedule {
    /// The next arrival. Offsets never decrease.
    fn next_arrival(&mut self) -> Arrival;
}

/// A closed loop: whoever is done starts anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closed;

impl Schedule for Closed {
    fn next_arrival(&mut self) -> Arrival {
        Arrival::WhenFree
    }
}

/// Equal gaps; the first arrival is at the start.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    gap: Duration,
    next: Duration,
}

impl Constant {
    /// `rate` arrivals a second; the gap is rounded to a nanosecond once, so that all gaps are the same.
    pub fn new(rate: Rate) -> Self {
        Self {
            gap: Duration::from_secs_f64(1.0 / rate.per_second()),
            next: Duration::ZERO,
        }
    }
}

impl Schedule for Constant {
    fn next_arrival(&mut self) -> Arrival {
        let at = self.next;
        self.next += self.gap;
        Arrival::At(at)
    }
}

/// A Poisson process: exponential gaps, never rescaled to meet a total.
#[derive(Clone, Debug)]
pub struct Poisson {
    rate: Rate,
    seconds: f64,
    random: ChaCha8Rng,
}

impl Poisson {
    /// `rate` arrivals a second in the mean, drawn from `random`.
    pub fn new(rate: Rate, random: ChaCha8Rng) -> Self {
        Self {
            rate,
            seconds: 0.0,
            random,
        }
    }
}

impl Schedule for Poisson {
    fn next_arrival(&mut self) -> Arrival {
        self.seconds += exponential(&mut self.random) / self.rate.per_second();
        Arrival::At(Duration::from_secs_f64(self.seconds))
    }
}

/// Gamma gaps: a shape below 1 is burstier than Poisson, 1 is Poisson, above is smoother.
#[derive(Clone, Debug)]
pub struct Gamma {
    rate: Rate,
    shape: f64,
    seconds: f64,
    random: ChaCha8Rng,
}

impl Gamma {
    /// `rate` arrivals a second in the mean; `burstiness` is the distribution's shape.
    pub fn new(rate: Rate, burstiness: Burstiness, random: ChaCha8Rng) -> Self {
        Self {
            rate,
            shape: burstiness.shape(),
            seconds: 0.0,
            random,
        }
    }
}

impl Schedule for Gamma {
    fn next_arrival(&mut self) -> Arrival {
        // A gamma variate of mean 1: shape `a`, scale `1/a`.
        self.seconds += gamma(&mut self.random, self.shape) / self.shape / self.rate.per_second();
        Arrival::At(Duration::from_secs_f64(self.seconds))
    }
}

fn exponential(random: &mut ChaCha8Rng) -> f64 {
    // random() is in [0, 1): its complement never is zero, and so the logarithm is finite.
    -(1.0 - random.random::<f64>()).ln()
}

/// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); scale 1.
fn gamma(random: &mut ChaCha8Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - random.random::<f64>()).powf(1.0 / shape);
        return gamma(random, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v <= 0.0 {
            continue;
        }
        let u = 1.0 - random.random::<f64>();
        if u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Box and Muller's normal variate.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (2.0 * exponential(random)).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn offsets(schedule: &mut impl Schedule, count: usize) -> Vec<f64> {
        (0..count)
            .map(|_| match schedule.next_arrival() {
                Arrival::At(at) => at.as_secs_f64(),
                Arrival::WhenFree => panic!("an open schedule says when"),
            })
            .collect()
    }

    fn gaps(offsets: &[f64]) -> Vec<f64> {
        let mut last = 0.0;
        offsets
            .iter()
            .map(|&at| {
                let gap = at - last;
                last = at;
                gap
            })
            .collect()
    }

    /// Kolmogorov and Smirnov's distance between `sample` and an exponential distribution of the given rate.
    fn distance_from_exponential(mut sample: Vec<f64>, rate: f64) -> f64 {
        sample.sort_by(f64::total_cmp);
        let n = sample.len() as f64;
        sample
            .iter()
            .enumerate()
            .map(|(i, gap)| {
                let expected = 1.0 - (-rate * gap).exp();
                let i = i as f64;
                ((i + 1.0) / n - expected).max(expected - i / n)
            })
            .fold(0.0, f64::max)
    }

    fn rate(per_second: f64) -> Rate {
        Rate::new(per_second).unwrap()
    }

    #[test]
    fn constant_gaps_are_equal_to_the_nanosecond() {
        for per_second in [0.7, 3.0, 1000.0 / 7.0, 9_999.0] {
            let mut schedule = Constant::new(rate(per_second));
            let arrivals: Vec<Arrival> = (0..10_000).map(|_| schedule.next_arrival()).collect();
            let nanos = |arrival: &Arrival| match arrival {
                Arrival::At(at) => at.as_nanos(),
                Arrival::WhenFree => panic!("an open schedule says when"),
            };
            assert_eq!(nanos(&arrivals[0]), 0);
            let gap = nanos(&arrivals[1]);
            assert!((gap as f64 - 1e9 / per_second).abs() <= 1.0);
            for pair in arrivals.windows(2) {
                assert_eq!(nanos(&pair[1]) - nanos(&pair[0]), gap);
            }
        }
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let count = 10_000;
        let mut schedule = Poisson::new(rate(250.0), ChaCha8Rng::seed_from_u64(1));
        let sample = gaps(&offsets(&mut schedule, count));
        // 1.63 / sqrt(n): the 1 % critical value for large samples.
        let limit = 1.63 / (count as f64).sqrt();
        let distance = distance_from_exponential(sample.clone(), 250.0);
        assert!(distance < limit, "{distance} is not below {limit}");
        // The test must be able to fail: gaps of another rate, and equal gaps, are found out.
        assert!(distance_from_exponential(sample, 270.0) > limit);
        assert!(distance_from_exponential(vec![0.004; count], 250.0) > limit);
    }

    #[test]
    fn poisson_arrivals_are_not_rescaled_to_a_total() {
        let ends: Vec<f64> = (0..8)
            .map(|seed| {
                let mut schedule = Poisson::new(rate(100.0), ChaCha8Rng::seed_from_u64(seed));
                offsets(&mut schedule, 1_000)[999]
            })
            .collect();
        assert!(ends.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ends.iter().all(|end| (9.0..11.0).contains(end)), "{ends:?}");
    }

    #[test]
    fn gamma_has_the_rate_and_the_burstiness_asked_for() {
        for shape in [0.25, 1.0, 4.0] {
            let burstiness = Burstiness::new(shape).unwrap();
            let mut schedule = Gamma::new(rate(50.0), burstiness, ChaCha8Rng::seed_from_u64(3));
            let sample = gaps(&offsets(&mut schedule, 20_000));
            let mean = sample.iter().sum::<f64>() / 20_000.0;
            let variance = sample.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 20_000.0;
            // Of a gamma distribution, variance / mean^2 is 1 / shape.
            assert!(
                (mean * 50.0 - 1.0).abs() < 0.05,
                "shape {shape}: mean {mean}"
            );
            let squared_cv = variance / (mean * mean);
            assert!(
                (squared_cv * shape - 1.0).abs() < 0.1,
                "shape {shape}: {squared_cv}"
            );
        }
    }

    #[test]
    fn a_seed_repeats_and_nonsense_rates_are_none() {
        let mut one = Poisson::new(rate(10.0), ChaCha8Rng::seed_from_u64(5));
        let mut two = Poisson::new(rate(10.0), ChaCha8Rng::seed_from_u64(5));
        assert_eq!(offsets(&mut one, 100), offsets(&mut two, 100));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::new(bad), None);
            assert_eq!(Burstiness::new(bad), None);
        }
        assert_eq!(Closed.next_arrival(), Arrival::WhenFree);
    }
}
