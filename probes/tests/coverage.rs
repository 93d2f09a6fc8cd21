//! How often the report's 95 % intervals hold the truth: thousands of simulated runs with drift and heavy tails, by fixed seeds.
//!
//! Each experiment is a whole run: exchanges by their stamps, cells in blocks of random order, the manifest, the report. The
//! truth is known, because both rows draw from one distribution, and one of them is scaled or shifted.

mod simulated;

use simulated::{Noise, Plan, Run};
use tokenlag_probes::{Change, Statistic};

/// Experiments behind each share: its standard error is half a percent.
const EXPERIMENTS: u64 = 2_000;

/// Fails unless `holds` is true of 93 to 97 % of the runs, in the median and in the 99th percentile.
#[track_caller]
fn check(plan: Plan, holds: impl Fn(&Change) -> bool) {
    let mut held = [0u64; 2];
    for seed in 0..EXPERIMENTS {
        let run = Run::whole(plan, seed);
        for (held, found) in held.iter_mut().zip(run.changes()) {
            *held += u64::from(holds(&found));
        }
    }
    for (statistic, held) in [Statistic::P50, Statistic::P99].into_iter().zip(held) {
        let share = held as f64 / EXPERIMENTS as f64;
        println!("{statistic} of {plan:?}: held in {:.2} %", share * 100.0);
        assert!(
            (0.93..=0.97).contains(&share),
            "{statistic}: {share} of {plan:?}"
        );
    }
}

#[track_caller]
fn check_ratio(plan: Plan) {
    check(plan, |found| simulated::holds(found, plan.change()));
}

#[test]
fn the_ratio_holds_the_truth_through_drift_and_heavy_tails() {
    check_ratio(Plan::default());
}

#[test]
fn it_does_so_with_the_fewest_blocks_that_are_trusted() {
    check_ratio(Plan {
        blocks: 20,
        scale: 1.0,
        ..Plan::default()
    });
}

#[test]
fn it_does_so_where_one_row_is_skewed() {
    check_ratio(Plan {
        noise: Noise::ScalesOneRow,
        ..Plan::default()
    });
}

#[test]
fn the_difference_holds_the_truth_where_noise_is_added() {
    let plan = Plan {
        noise: Noise::Shifts,
        ..Plan::default()
    };
    check(plan, |found| {
        let found = found.difference.expect("both rows ran");
        let ends = found.low_ns.zip(found.high_ns);
        ends.is_some_and(|(low, high)| (low..=high).contains(&plan.difference_ns()))
    });
}

/// Runs that look at their intervals and go on until they are narrow: the share that holds the truth, of those that got
/// there, is a little less than of runs whose length was said before.
#[track_caller]
fn check_until(plan: Plan, half_width: f64) {
    let most = 200;
    let (mut held, mut reached, mut blocks) = (0u64, 0u64, 0u64);
    for seed in 0..EXPERIMENTS {
        let run = Run::until(plan, seed, half_width, most);
        let [found, _] = run.changes();
        blocks += u64::from(found.blocks);
        reached += u64::from(found.half_width().is_some_and(|it| it <= half_width));
        held += u64::from(simulated::holds(&found, plan.change()));
    }
    let share = |count: u64| count as f64 / EXPERIMENTS as f64;
    println!(
        "until {half_width} of {plan:?}: held in {:.2} %, reached in {:.2} %, with {:.0} blocks in the mean",
        share(held) * 100.0,
        share(reached) * 100.0,
        share(blocks)
    );
    assert!((0.93..=0.97).contains(&share(held)), "{} held", share(held));
    assert!(share(reached) > 0.9, "{} reached", share(reached));
}

#[test]
fn stopping_at_narrow_intervals_costs_little() {
    let plan = Plan {
        scale: 1.0,
        ..Plan::default()
    };
    check_until(plan, 0.03);
}
