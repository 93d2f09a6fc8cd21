//! When sessions start: a pure sequence of arrivals, which reads no clock and knows no limit.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::rate::{Burstiness, Rate};

/// A sequence of arrivals.
pub trait Schedule {
    /// How long after the cell's start the next session is due, whether a place is free or not. It never decreases.
    fn next_arrival(&mut self) -> Duration;
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
    fn next_arrival(&mut self) -> Duration {
        let at = self.next;
        self.next += self.gap;
        at
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
    fn next_arrival(&mut self) -> Duration {
        self.seconds += exponential(&mut self.random) / self.rate.per_second();
        Duration::from_secs_f64(self.seconds)
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
    fn next_arrival(&mut self) -> Duration {
        // A gamma variate of mean 1: shape `a`, scale `1/a`.
        self.seconds += gamma(&mut self.random, self.shape) / self.shape / self.rate.per_second();
        Duration::from_secs_f64(self.seconds)
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
#[path = "schedule_tests.rs"]
mod tests;
