//! Gaps that are what they are called, by goodness of fit at fixed seeds.

use rand::SeedableRng;

use super::*;

/// Gaps of each sample.
const SAMPLE: usize = 20_000;

fn offsets(schedule: &mut impl Schedule, count: usize) -> Vec<f64> {
    (0..count)
        .map(|_| schedule.next_arrival().as_secs_f64())
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

/// Kolmogorov and Smirnov's distance between `sample` and a distribution, in the form of Stephens ("EDF statistics for
/// goodness of fit and some comparisons", *Journal of the American Statistical Association* 69, 1974), whose critical
/// values do not depend on the sample's size.
fn distance(mut sample: Vec<f64>, cumulative: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let farthest = sample
        .iter()
        .enumerate()
        .map(|(i, gap)| {
            let expected = cumulative(*gap);
            let i = i as f64;
            ((i + 1.0) / n - expected).max(expected - i / n)
        })
        .fold(0.0, f64::max);
    farthest * (n.sqrt() + 0.12 + 0.11 / n.sqrt())
}

/// Its 1 % critical value for a distribution that is known in full (Stephens 1974, table 1A).
const CRITICAL: f64 = 1.628;

/// The gamma distribution of that shape and of mean 1: the regularised incomplete gamma function, by the series of
/// Abramowitz and Stegun (*Handbook of Mathematical Functions*, 1964), 6.5.29.
fn cumulative_gamma(shape: f64, gap: f64) -> f64 {
    let x = shape * gap;
    let (mut term, mut sum) = (1.0 / shape, 1.0 / shape);
    let mut k = 0.0;
    while term > sum * 1e-14 {
        k += 1.0;
        term *= x / (shape + k);
        sum += term;
    }
    (shape * x.ln() - x - ln_gamma(shape)).exp() * sum
}

/// Stirling's series (Abramowitz and Stegun, 6.1.41), after the argument is raised by recurrence.
fn ln_gamma(mut x: f64) -> f64 {
    let mut lifted = 0.0;
    while x < 10.0 {
        lifted -= x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    lifted + (x - 0.5) * x.ln() - x + std::f64::consts::TAU.ln() / 2.0 + series
}

fn rate(per_second: f64) -> Rate {
    Rate::new(per_second).unwrap()
}

#[test]
fn constant_gaps_are_equal_to_the_nanosecond() {
    for per_second in [0.7, 3.0, 1000.0 / 7.0, 9_999.0] {
        let mut schedule = Constant::new(rate(per_second));
        let arrivals: Vec<Duration> = (0..10_000).map(|_| schedule.next_arrival()).collect();
        let nanos = Duration::as_nanos;
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
    let mut schedule = Poisson::new(rate(250.0), ChaCha8Rng::seed_from_u64(1));
    let sample = gaps(&offsets(&mut schedule, SAMPLE));
    let exponential = |rate: f64| move |gap: f64| 1.0 - (-rate * gap).exp();
    let found = distance(sample.clone(), exponential(250.0));
    assert!(found < CRITICAL, "{found}");
    // The test must be able to fail: gaps of another rate, and equal gaps, are found out.
    assert!(distance(sample, exponential(270.0)) > CRITICAL);
    assert!(distance(vec![0.004; SAMPLE], exponential(250.0)) > CRITICAL);
}

#[test]
fn gamma_gaps_are_gamma() {
    for shape in [0.25, 1.0, 4.0] {
        let burstiness = Burstiness::new(shape).unwrap();
        let mut schedule = Gamma::new(rate(50.0), burstiness, ChaCha8Rng::seed_from_u64(3));
        let sample: Vec<f64> = gaps(&offsets(&mut schedule, SAMPLE));
        let of = |shape: f64| move |gap: f64| cumulative_gamma(shape, gap * 50.0);
        let found = distance(sample.clone(), of(shape));
        assert!(found < CRITICAL, "shape {shape}: {found}");
        let other = distance(sample, of(shape * 1.1));
        assert!(other > CRITICAL, "shape {shape}: {other}");
    }
}

#[test]
fn the_gamma_distribution_is_computed_right() {
    // Of shape 1 it is exponential; of shape 4 Erlang's, a finite sum; of shape 1/2 the square of a normal variate.
    for gap in [0.01, 0.3, 1.0, 2.5, 9.0] {
        assert!((cumulative_gamma(1.0, gap) - (1.0 - (-gap).exp())).abs() < 1e-9);
        let x = 4.0 * gap;
        let erlang = 1.0 - (-x).exp() * (1.0 + x + x * x / 2.0 + x.powi(3) / 6.0);
        assert!((cumulative_gamma(4.0, gap) - erlang).abs() < 1e-9);
    }
    // 3.841 is the square of 1.95996, beyond which lie 5 % of the normal variates.
    assert!((cumulative_gamma(0.5, 3.841_459) - 0.95).abs() < 1e-6);
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
}
