//! Block statistics against hand-computed ones.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::exchange::Outcome;
use crate::samples::{exchange, hop};

#[test]
fn statistics_are_exact() {
    let mut sample = CellSample::default();
    sample.finish(&exchange(1, &[2_001, 2_012, 2_023]), None);
    sample.finish(&exchange(2, &[2_003]), None);
    let statistics = sample.statistics();
    let ttft = statistics.get(Metric::Ttft).unwrap();
    assert_eq!((ttft.count, ttft.exchanges), (2, 2));
    assert_eq!(
        (ttft.p50, ttft.p99, ttft.min, ttft.max),
        (1_001, 1_003, 1_001, 1_003)
    );
    assert_eq!(ttft.mean, 1_002.0);
    let itl = statistics.get(Metric::Itl).unwrap();
    assert_eq!((itl.count, itl.exchanges, itl.p50), (2, 1, 11));
    assert_eq!(statistics.get(Metric::TokenOverhead), None);
    assert_eq!(ttft.statistic(Statistic::P50), 1_001.0);
    assert_eq!(ttft.statistic(Statistic::P99), 1_003.0);
    assert_eq!(ttft.statistic(Statistic::Mean), 1_002.0);
}

#[test]
fn negative_values_keep_their_sign() {
    let mut sample = CellSample::default();
    sample.finish(
        &exchange(1, &[2_000, 2_100]),
        Some(&hop(1, &[1_900, 2_150])),
    );
    let overhead = *sample.statistics().get(Metric::TokenOverhead).unwrap();
    assert_eq!(
        (overhead.p50, overhead.min, overhead.mean),
        (-50, -50, -50.0)
    );
}

#[test]
fn beyond_the_bound_only_percentiles_stop() {
    let mut sample = CellSample::new(2);
    for first in [2_010, 2_020, 2_090] {
        sample.finish(&exchange(1, &[first]), None);
    }
    let ttft = *sample.statistics().get(Metric::Ttft).unwrap();
    assert_eq!((ttft.count, ttft.beyond_bound), (3, 1));
    assert_eq!((ttft.p99, ttft.max, ttft.mean), (1_020, 1_090, 1_040.0));
}

#[test]
fn failures_leave_no_trace_and_a_reset_forgets() {
    let mut sample = CellSample::default();
    let mut failed = exchange(1, &[2_000]);
    failed.outcome = Outcome::Truncated;
    sample.finish(&failed, None);
    assert_eq!(sample.statistics(), CellStatistics::default());
    sample.finish(&exchange(1, &[2_000]), None);
    sample.reset();
    assert_eq!(sample.statistics(), CellStatistics::default());
}

#[test]
fn statistics_are_a_map_by_name_in_json() {
    let mut sample = CellSample::default();
    sample.finish(&exchange(1, &[2_000]), None);
    let statistics = sample.statistics();
    let json = serde_json::to_value(&statistics).unwrap();
    assert_eq!(json["ttft"]["p50"], 1_000);
    let back: CellStatistics = serde_json::from_value(json).unwrap();
    assert_eq!(back, statistics);
}

proptest! {
    #[test]
    fn values_taken_together_are_those_taken_one_by_one(
        values in vec(prop_oneof![any::<i64>(), -1_000i64..1_000], 1..300),
        most in 1usize..400,
    ) {
        let (mut together, mut single) = (CellSample::new(most), CellSample::new(most));
        values.chunks(7).for_each(|some| together.some(Metric::Itl, some));
        values.iter().for_each(|&nanos| single.one(Metric::Itl, nanos));
        prop_assert_eq!(together.statistics(), single.statistics());
        let sum: i128 = values.iter().copied().map(i128::from).sum();
        prop_assert_eq!(exact_sum(&values), sum);
    }
}
