//! Exchanges that find their partner, and the reasons why some do not.

use super::*;
use crate::exchange::FailureKind;
use crate::samples::{exchange, hop};

/// Which exchanges found a partner, and the counts.
#[track_caller]
fn check(
    exchanges: Vec<Exchange>,
    hops: Vec<HopExchange>,
    evicted: u64,
    partners: &[bool],
    unjoined: Unjoined,
) -> Joined {
    let order: Vec<TraceId> = exchanges.iter().map(|exchange| exchange.trace).collect();
    let joined = join(exchanges, hops, evicted);
    let found: Vec<bool> = joined.exchanges.iter().map(|j| j.hop.is_some()).collect();
    assert_eq!(found, partners);
    assert_eq!(joined.unjoined, unjoined);
    let kept: Vec<TraceId> = joined.exchanges.iter().map(|j| j.exchange.trace).collect();
    assert_eq!(kept, order, "every exchange is kept, in its order");
    joined
}

#[test]
fn partners_meet_whatever_the_order_of_the_records() {
    let joined = check(
        vec![exchange(1, &[2_000]), exchange(2, &[3_000])],
        vec![hop(9, &[5]), hop(2, &[2_900]), hop(1, &[1_900])],
        0,
        &[true, true],
        Unjoined::default(),
    );
    assert_eq!(joined.foreign, 1);
    for JoinedExchange { exchange, hop } in joined.exchanges {
        assert_eq!(hop.unwrap().trace, Some(exchange.trace));
    }
}

#[test]
fn each_reason_is_counted_apart() {
    let mut unnamed = hop(1, &[1_900]);
    unnamed.trace = None;
    check(
        vec![
            exchange(1, &[2_000]),
            exchange(2, &[2_000, 2_100]),
            exchange(3, &[2_000]),
            exchange(4, &[2_000]),
            exchange(4, &[2_000]),
        ],
        vec![
            unnamed,
            hop(2, &[1_900]),
            hop(3, &[1_900]),
            hop(3, &[1_900]),
            hop(4, &[1_900]),
        ],
        5,
        &[false; 5],
        Unjoined {
            no_hop_record: 1,
            ordinals_differ: 1,
            duplicate_trace: 3,
            evicted: 5,
        },
    );
}

#[test]
fn failures_keep_what_there_is_and_count_as_nothing() {
    let mut failed = exchange(1, &[2_000]);
    failed.outcome = Outcome::Failed(FailureKind::ConnectionLost);
    let mut cancelled = exchange(2, &[]);
    cancelled.outcome = Outcome::Cancelled;
    check(
        vec![failed, cancelled],
        vec![hop(1, &[1_900, 2_000, 2_100])],
        0,
        &[true, false],
        Unjoined::default(),
    );
}

#[test]
fn nothing_joins_to_nothing() {
    check(Vec::new(), Vec::new(), 0, &[], Unjoined::default());
}

#[test]
fn evictions_are_a_cause_and_not_a_count_of_their_own() {
    let mut sum = Unjoined {
        no_hop_record: 2,
        evicted: 2,
        ..Unjoined::default()
    };
    sum.add(&Unjoined {
        duplicate_trace: 1,
        ..Unjoined::default()
    });
    assert_eq!(sum.total(), 3);
    assert_eq!(sum.evicted, 2);
}
