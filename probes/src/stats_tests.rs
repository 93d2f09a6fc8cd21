//! Changes by hand, and the coverage of their intervals on simulated runs with drift.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

fn blocks(medians: impl IntoIterator<Item = i64>) -> Blocks {
    let figure = |p50: i64| CellFigure {
        count: 40,
        exchanges: 10,
        mean: p50 as f64,
        p50,
        p99: 3 * p50,
        min: p50,
        max: p50,
        beyond_bound: 0,
    };
    (0..).zip(medians.into_iter().map(figure)).collect()
}

#[test]
fn the_ratio_is_a_geometric_mean_over_blocks() {
    // Ratios 1/2 and 2: the logarithms cancel.
    let none = change(&blocks([50, 200]), &blocks([100, 100]), Statistic::P50, 1);
    assert!(none.change.unwrap().abs() < 1e-12);
    assert_eq!((none.blocks, none.pairs), (2, 20));
    assert_eq!(none.interval, Some(IntervalMethod::StudentT));
    assert_eq!(none.difference.unwrap().mean_ns, 25.0);
    assert!(!none.is_distinguishable());
}

#[test]
fn drift_that_hits_both_rows_cancels() {
    let baseline: Vec<i64> = (1..=24).map(|block| block * 1_000).collect();
    let row: Vec<i64> = baseline.iter().map(|ns| ns / 4).collect();
    let found = change(&blocks(row), &blocks(baseline), Statistic::P99, 1);
    assert!((found.change.unwrap() + 0.75).abs() < 1e-12);
    assert!((found.low.unwrap() + 0.75).abs() < 1e-9);
    assert!((found.high.unwrap() + 0.75).abs() < 1e-9);
    assert_eq!(found.interval, Some(IntervalMethod::BootstrapT));
    assert!(found.is_distinguishable());
}

#[test]
fn only_blocks_that_both_rows_have_are_compared() {
    let row = blocks([10, 20, 30]);
    let mut baseline = blocks([10, 10, 10]);
    baseline.remove(&1);
    let found = change(&row, &baseline, Statistic::P50, 1);
    assert_eq!((found.blocks, found.pairs), (2, 20));
    assert!((found.change.unwrap() - (3f64.sqrt() - 1.0)).abs() < 1e-12);
}

#[test]
fn one_block_has_no_interval_and_none_has_nothing() {
    let one = change(&blocks([30]), &blocks([20]), Statistic::P50, 1);
    assert_eq!((one.low, one.high, one.interval), (None, None, None));
    assert!((one.change.unwrap() - 0.5).abs() < 1e-12);
    assert!(!one.is_distinguishable());
    let none = change(&blocks([]), &blocks([20]), Statistic::P50, 1);
    assert_eq!((none.change, none.difference, none.blocks), (None, None, 0));
    assert!(!none.is_distinguishable());
}

#[test]
fn without_a_logarithm_the_difference_stands_alone() {
    let mut row: Vec<i64> = vec![10; 20];
    row[3] = -5;
    row[7] = 0;
    let found = change(&blocks(row), &blocks([100; 20]), Statistic::P50, 1);
    assert_eq!((found.change, found.low, found.high), (None, None, None));
    assert_eq!(found.without_logarithm, 2);
    assert_eq!(found.blocks, 20, "no block is dropped");
    let difference = found.difference.unwrap();
    assert_eq!(difference.mean_ns, -91.25);
    assert!(difference.low_ns.unwrap() < -91.25 && -91.25 < difference.high_ns.unwrap());
    assert!(found.is_distinguishable());
}

#[test]
fn a_change_survives_json() {
    let found = change(&blocks([3, 4, 5]), &blocks([4, 4, 4]), Statistic::Mean, 1);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Change>(&json).unwrap(), found);
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Share of simulated runs whose interval holds the true change.
fn coverage(experiments: u64, block_count: u32, true_change: f64, noise: f64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_122);
    let held = (0..experiments)
        .filter(|&seed| {
            let mut drift = 0.0;
            let mut pairs = Vec::new();
            for _ in 0..block_count {
                // The machine's speed wanders, for both rows alike; each row has noise of its own.
                drift += 0.1 * normal(&mut rng);
                let mut median = |scale: f64| {
                    (1e6 * scale * (drift + noise * normal(&mut rng)).exp()).round() as i64
                };
                pairs.push((median(1.0 + true_change), median(1.0)));
            }
            let row = blocks(pairs.iter().map(|pair| pair.0));
            let baseline = blocks(pairs.iter().map(|pair| pair.1));
            let found = change(&row, &baseline, Statistic::P50, seed);
            found.low.unwrap() <= true_change && true_change <= found.high.unwrap()
        })
        .count();
    held as f64 / experiments as f64
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    for (experiments, block_count, true_change, noise) in
        [(400, 24, -0.4, 0.2), (200, 12, 0.0, 0.5)]
    {
        let share = coverage(experiments, block_count, true_change, noise);
        assert!(
            (0.91..=0.98).contains(&share),
            "{share} with {block_count} blocks, change {true_change}, noise {noise}"
        );
    }
}
