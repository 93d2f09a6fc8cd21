//! What the bench beside peers says of its goals: only what its turns tell.

#[allow(dead_code, reason = "the bench has the rest")]
#[path = "../benches/peers/pairs.rs"]
mod pairs;
#[allow(dead_code, reason = "the bench has the rest")]
#[path = "../benches/peers/table.rs"]
mod table;

use pairs::{Figure, ratio};
use table::{Goal, Table, Tally};

/// How the goal of at most theirs (of a rate: at least) stands after such turns.
fn stands(ours: &[f64], theirs: &[f64], more: bool) -> Tally {
    let figure = Figure {
        name: "added latency p99".to_owned(),
        unit: "us",
        more,
        values: vec![ours.to_vec(), theirs.to_vec()],
    };
    let goals = [Goal {
        against: "haproxy",
        ratio: 1.0,
    }];
    let mut table = Table::default();
    table.figure("requests", &figure, &["tokenlag", "haproxy"], 0, &goals);
    table.end();
    table.tally()
}

const MET: Tally = Tally {
    met: 1,
    missed: 0,
    open: 0,
};
const MISSED: Tally = Tally {
    met: 0,
    missed: 1,
    open: 0,
};
const OPEN: Tally = Tally {
    met: 0,
    missed: 0,
    open: 1,
};

#[test]
fn a_goal_is_met_or_missed_where_the_whole_interval_is_on_one_side() {
    let (few, many) = ([10.0, 10.5, 9.5, 10.2], [20.0, 20.4, 19.8, 20.1]);
    assert_eq!(stands(&few, &many, false), MET);
    assert_eq!(stands(&many, &few, false), MISSED);
    assert_eq!(stands(&many, &few, true), MET);
    assert_eq!(stands(&few, &many, true), MISSED);
    assert_eq!(
        stands(&[10.0, 30.0, 20.0], &[20.0, 10.0, 30.0], false),
        OPEN
    );
}

#[test]
fn one_turn_tells_nothing() {
    let found = ratio(&[10.0], &[20.0]).unwrap();
    assert_eq!(found.mean, 0.5);
    assert_eq!((found.low, found.high), (f64::NEG_INFINITY, f64::INFINITY));
    for more in [false, true] {
        assert_eq!(stands(&[10.0], &[20.0], more), OPEN);
        assert_eq!(stands(&[20.0], &[10.0], more), OPEN);
    }
}

#[test]
fn what_cannot_be_a_ratio_is_open_and_not_left_out() {
    // The peer's 99th percentile came out below the one without a proxy.
    for theirs in [[-30.0, 10.0, 5.0], [0.0, 0.0, 0.0]] {
        assert_eq!(ratio(&[20.0, 30.0, 25.0], &theirs), None);
        assert_eq!(stands(&[20.0, 30.0, 25.0], &theirs, false), OPEN);
    }
    assert_eq!(stands(&[], &[], false), OPEN);
}
