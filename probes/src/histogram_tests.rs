//! Signed histograms against exact answers.

use proptest::prelude::*;

use super::*;

fn recorded(values: &[i64]) -> SignedHistogram {
    let mut histogram = SignedHistogram::default();
    for &value in values {
        histogram.record(value);
    }
    histogram
}

#[test]
fn nothing_recorded_is_no_summary() {
    assert_eq!(SignedHistogram::default().summary(), None);
    assert_eq!(SignedHistogram::default().value_at_quantile(0.5), None);
}

#[test]
fn negative_values_are_shown_and_not_clamped() {
    let summary = recorded(&[-300, -100, 0, 200, 400]).summary().unwrap();
    assert_eq!(summary.count, 5);
    assert_eq!(summary.negatives, 2);
    assert_eq!((summary.min, summary.max), (-300, 400));
    assert_eq!(summary.p50, 0);
    assert_eq!(summary.p90, 400);
    assert!((summary.mean - 40.0).abs() < 1e-9);
    // Deviations -340, -140, -40, 160, 360.
    assert!((summary.std - 59_440f64.sqrt()).abs() < 1e-6 * summary.std + 3.0);
}

#[test]
fn all_negative_values_rank_from_the_largest_magnitude() {
    let histogram = recorded(&[-10, -20, -30, -40]);
    assert_eq!(histogram.value_at_quantile(0.25), Some(-40));
    assert_eq!(histogram.value_at_quantile(0.5), Some(-30));
    assert_eq!(histogram.value_at_quantile(1.0), Some(-10));
    let summary = histogram.summary().unwrap();
    assert_eq!((summary.min, summary.max), (-40, -10));
}

#[test]
fn what_is_longer_than_an_hour_is_booked_as_an_hour_and_counted() {
    let histogram = recorded(&[5, i64::MAX, i64::MIN]);
    assert_eq!(histogram.saturated(), 2);
    let summary = histogram.summary().unwrap();
    assert_eq!(summary.saturated, 2);
    let hour = HIGHEST_NANOS as f64;
    assert!((summary.max as f64 / hour - 1.0).abs() < 1e-3);
    assert!((summary.min as f64 / hour + 1.0).abs() < 1e-3);
}

#[test]
fn an_empty_part_is_none_after_a_reset() {
    let mut histogram = recorded(&[-1, 1]);
    histogram.reset();
    assert!(histogram.positive().is_none() && histogram.negative().is_none());
    assert_eq!(histogram.summary(), None);
    histogram.record(7);
    assert_eq!(histogram.summary().unwrap().p50, 7);
}

#[test]
fn ranks_do_not_slip_by_binary_fractions() {
    for (quantile, count, rank) in [
        (0.999, 1_000, 999),
        (0.9, 10, 9),
        (0.99, 100, 99),
        (0.5, 1, 1),
        (0.5, 4, 2),
        (0.0, 4, 1),
        (1.0, 4, 4),
    ] {
        assert_eq!(nearest_rank(quantile, count), rank, "{quantile} of {count}");
    }
}

proptest! {
    // Each case walks tens of thousands of buckets, unoptimised.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn quantiles_agree_with_a_sort_to_three_digits(
        mut values in prop::collection::vec(-5_000_000_000i64..50_000_000_000, 1..300),
    ) {
        let histogram = recorded(&values);
        values.sort_unstable();
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let exact = values[nearest_rank(quantile, values.len() as u64) as usize - 1] as f64;
            let shown = histogram.value_at_quantile(quantile).unwrap() as f64;
            prop_assert!((shown - exact).abs() <= exact.abs() * 1e-3 + 1.0, "{shown} {exact}");
        }
        let mean = values.iter().sum::<i64>() as f64 / values.len() as f64;
        let size = values.iter().map(|v| v.unsigned_abs()).max().unwrap() as f64;
        prop_assert!((histogram.summary().unwrap().mean - mean).abs() <= size * 1e-3 + 1.0);
    }

    #[test]
    fn merging_is_recording_together(
        ours in prop::collection::vec(-1_000_000i64..1_000_000, 0..50),
        theirs in prop::collection::vec(-1_000_000i64..1_000_000, 0..50),
    ) {
        let mut merged = recorded(&ours);
        merged.merge(&recorded(&theirs));
        let together: Vec<i64> = ours.into_iter().chain(theirs).collect();
        prop_assert_eq!(merged.summary(), recorded(&together).summary());
    }
}
