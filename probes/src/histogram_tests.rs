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

/// What the library gives for the same magnitudes.
fn reference(magnitudes: impl Iterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, HIGHEST_NANOS, SIGNIFICANT_DIGITS).unwrap();
    magnitudes.for_each(|magnitude| histogram.record(magnitude.min(HIGHEST_NANOS)).unwrap());
    histogram
}

#[track_caller]
fn check_against_the_library(values: &[i64]) {
    let ours = recorded(values);
    let above = values.iter().filter(|&&value| value >= 0);
    let below = values.iter().filter(|&&value| value < 0);
    for (ours, theirs) in [
        (ours.positive(), reference(above.map(|&v| v.unsigned_abs()))),
        (ours.negative(), reference(below.map(|&v| v.unsigned_abs()))),
    ] {
        let Some(ours) = ours else {
            assert!(theirs.is_empty());
            continue;
        };
        // Thirty thousand counts are nothing to print.
        assert!(ours == theirs);
        assert_eq!((ours.min(), ours.max()), (theirs.min(), theirs.max()));
        assert_eq!(ours.mean(), theirs.mean());
    }
    if let Some((summary, library)) = ours.summary().zip(ours.positive())
        && summary.negatives == 0
    {
        assert_eq!(summary.max, library.max() as i64);
        assert_eq!(summary.min, library.min() as i64);
        assert_eq!(summary.p99, library.value_at_quantile(0.99) as i64);
        assert!((summary.mean - library.mean()).abs() <= library.mean() * 1e-9);
    }
}

#[test]
fn every_edge_of_a_bucket_falls_where_the_library_puts_it() {
    let around = |edge: u64| [edge.saturating_sub(1), edge, edge + 1];
    let edges = (0..43).flat_map(|bits| [1u64 << bits, 3 << bits, 1025 << bits]);
    let values: Vec<i64> = edges
        .chain([HIGHEST_NANOS, HIGHEST_NANOS + 1_000_000_000])
        .flat_map(around)
        .map(|value| value as i64)
        .collect();
    for &value in &values {
        check_against_the_library(&[value]);
        check_against_the_library(&[-value]);
    }
    check_against_the_library(&values);
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
    fn the_library_records_the_same(
        values in prop::collection::vec(-5_000_000_000_000i64..5_000_000_000_000, 1..100),
    ) {
        check_against_the_library(&values);
    }

    #[test]
    fn recording_all_is_recording_each(values in prop::collection::vec(value(), 0..100)) {
        let mut together = SignedHistogram::default();
        let saturated: u64 = values.chunks(3).map(|some| together.record_all(some)).sum();
        let single = recorded(&values);
        prop_assert_eq!(saturated, single.saturated());
        prop_assert_eq!(together.summary(), single.summary());
        prop_assert!(together.positive() == single.positive());
        prop_assert!(together.negative() == single.negative());
    }

    #[test]
    fn merging_is_recording_together(
        parts in prop::collection::vec(prop::collection::vec(value(), 0..40), 1..5),
    ) {
        let mut merged = SignedHistogram::default();
        for part in &parts {
            merged.merge(&recorded(part));
        }
        let together = recorded(&parts.concat());
        prop_assert_eq!(merged.summary(), together.summary());
        prop_assert!(merged.positive() == together.positive());
        prop_assert!(merged.negative() == together.negative());
    }
}

/// Small and large ones of either sign, and some beyond an hour.
fn value() -> impl Strategy<Value = i64> {
    prop_oneof![
        -3_000i64..3_000,
        -10_000_000_000i64..10_000_000_000,
        any::<i64>()
    ]
}
