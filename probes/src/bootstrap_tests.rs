//! Intervals by hand, and their coverage on simulated runs.

use super::*;

#[test]
fn one_value_has_a_mean_and_no_interval() {
    assert_eq!(estimate(&[], 1), None);
    let one = estimate(&[3.0], 1).unwrap();
    assert_eq!(
        (one.mean, one.low, one.high, one.method),
        (3.0, None, None, None)
    );
}

#[test]
fn few_values_get_students_t() {
    // Mean 2, standard deviation 1, standard error 1/sqrt(3), t = 4.303.
    let few = estimate(&[1.0, 2.0, 3.0], 1).unwrap();
    assert_eq!(few.method, Some(IntervalMethod::StudentT));
    assert!((few.low.unwrap() - (2.0 - 4.303 / 3f64.sqrt())).abs() < 1e-12);
    assert!((few.high.unwrap() - (2.0 + 4.303 / 3f64.sqrt())).abs() < 1e-12);
}

#[test]
fn equal_values_leave_no_doubt() {
    let sure = estimate(&[0.25; 20], 1).unwrap();
    assert_eq!(
        (sure.mean, sure.low, sure.high),
        (0.25, Some(0.25), Some(0.25))
    );
}

#[test]
fn a_seed_names_one_interval() {
    let values: Vec<f64> = (0..20).map(|k| f64::from(k * k % 11)).collect();
    assert_eq!(estimate(&values, 7), estimate(&values, 7));
    assert_ne!(estimate(&values, 7), estimate(&values, 8));
}

#[test]
fn a_symmetric_sample_comes_near_students_interval() {
    // 40 values, mean 0; Student's t for 39 degrees of freedom is 2.023.
    let values: Vec<f64> = (0..40).map(|k| f64::from(k) - 19.5).collect();
    let found = estimate(&values, 3).unwrap();
    let error = (40.0 * 41.0 / 12.0 / 40.0f64).sqrt();
    for (bound, sign) in [(found.low.unwrap(), -1.0), (found.high.unwrap(), 1.0)] {
        let expected = sign * 2.023 * error;
        assert!((bound / expected - 1.0).abs() < 0.1, "{bound} {expected}");
    }
}

#[test]
fn a_skewed_sample_gets_a_skewed_interval() {
    let mut values = vec![0.0; 16];
    values.extend([1.0, 2.0, 4.0, 9.0]);
    let found = estimate(&values, 5).unwrap();
    let (below, above) = (
        found.mean - found.low.unwrap(),
        found.high.unwrap() - found.mean,
    );
    assert!(above > 1.5 * below, "{below} below, {above} above");
}
