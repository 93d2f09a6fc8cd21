//! What a path does to tokens, and which of it is put down to a hop between the ends.

use super::*;
use crate::samples::{at, exchange, hop};

const ROW: Row = Row::HTTP_FULL;
const MILLI: u64 = 1_000_000;
const DELTAS: u64 = 8;
const GAP: u64 = 10 * MILLI;

/// How one exchange went: what its request waited, and what each delta did.
struct Way<'a> {
    request: u64,
    delta: &'a dyn Fn(u64) -> u64,
}

/// A recorder of `count` exchanges, each on a way of its own.
fn recorded<'a>(count: u64, way: impl Fn(u64) -> Way<'a>) -> Recorder {
    let mut recorder = Recorder::new();
    for trace in 0..count {
        let way = way(trace);
        let written = MILLI + way.request;
        let up: Vec<u64> = (0..DELTAS).map(|k| written + 5 * MILLI + k * GAP).collect();
        let late = |k: u64| up[k as usize] + (way.delta)(k);
        // Nothing overtakes.
        let mut arrived = 0;
        let down: Vec<u64> = (0..DELTAS)
            .map(|k| {
                arrived = late(k).max(arrived);
                arrived
            })
            .collect();
        let ours = exchange(trace.into(), &down);
        let mut theirs = hop(trace.into(), &up);
        theirs.in_body = at(written - 20_000);
        theirs.up_written = Some(at(written));
        recorder.finish(&ours, Some(&theirs));
    }
    recorder
}

#[track_caller]
fn check(recorder: &Recorder, expected: Option<(&str, &str)>) {
    let found = suspect(ROW, recorder);
    let code = found.as_ref().map(|warning| warning.code.as_str());
    assert_eq!(code, expected.map(|(code, _)| code), "{found:?}");
    if let (Some(warning), Some((_, figure))) = (&found, expected) {
        assert!(warning.message.contains(figure), "{}", warning.message);
    }
}

fn plain(request: u64) -> Way<'static> {
    Way {
        request,
        delta: &|_| 60_000,
    }
}

#[test]
fn a_plain_path_and_a_long_one_are_nobodys_fault() {
    check(&recorded(12, |_| plain(100_000)), None);
    let far = recorded(12, |_| Way {
        request: 40 * MILLI,
        delta: &|_| 40 * MILLI,
    });
    check(&far, None);
    check(&Recorder::new(), None);
}

#[test]
fn requests_that_wait_for_an_acknowledgement() {
    // The first of a connection does not.
    let turns = recorded(12, |trace| match trace % 4 {
        0 => plain(100_000),
        _ => plain(40 * MILLI + trace * 300_000),
    });
    check(
        &turns,
        Some(("nagle", "the request_transfer of 9 of 12 exchanges")),
    );
    let all = recorded(12, |_| plain(41 * MILLI));
    check(&all, Some(("nagle", "of 12 of 12 exchanges")));
    // Behind a long link as well.
    let far = recorded(12, |trace| Way {
        request: 20 * MILLI + (trace % 2) * 42 * MILLI,
        delta: &|_| 20 * MILLI,
    });
    check(&far, Some(("nagle", "of 6 of 12 exchanges")));
}

#[test]
fn first_tokens_that_wait_for_an_acknowledgement() {
    let held = recorded(12, |trace| Way {
        request: 100_000,
        delta: match trace % 2 {
            0 => &|_| 60_000,
            _ => &|k| (41 * MILLI).saturating_sub(k * GAP).max(60_000),
        },
    });
    check(&held, Some(("nagle", "the delivery of 6 of 12 exchanges")));
}

#[test]
fn a_queue_has_waits_of_all_lengths() {
    let queue = recorded(40, |trace| plain(trace * 2 * MILLI));
    check(&queue, None);
}

#[test]
fn two_waits_of_that_length_are_chance() {
    let chance = recorded(12, |trace| match trace {
        0 | 1 => plain(41 * MILLI),
        _ => plain(100_000),
    });
    check(&chance, None);
}

#[test]
fn a_hop_that_holds_four_deltas() {
    let held = recorded(12, |_| Way {
        request: 100_000,
        delta: &|k| (3 - k % 4) * GAP + 60_000,
    });
    check(
        &held,
        Some((
            "buffering_hop",
            "86 % of the gaps between deltas shrank, by 10.",
        )),
    );
}

#[test]
fn a_link_that_jitters_is_no_buffer() {
    // Every other delta is later by most of a gap, as is the first: half of the gaps shrink, and the median does not fall by half.
    let jitter = recorded(12, |trace| Way {
        request: 100_000 + trace,
        delta: &|k| 8 * MILLI - (k % 3) * 3 * MILLI,
    });
    check(&jitter, None);
}

#[test]
fn replies_of_one_delta_and_rows_without_a_proxy_say_nothing_of_a_path() {
    let mut short = Recorder::new();
    let mut alone = Recorder::new();
    for trace in 0..12 {
        let one = [9 * MILLI];
        short.finish(&exchange(trace, &one), Some(&hop(trace, &one)));
        let held: Vec<u64> = (0..DELTAS).map(|k| 50 * MILLI + k / 4 * 4 * GAP).collect();
        alone.finish(&exchange(trace, &held), None);
    }
    check(&short, None);
    check(&alone, None);
}
