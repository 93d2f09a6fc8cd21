//! What a path does to tokens, and which of it is put down to a hop between the ends.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::counters::RunQueue;
use crate::floor::Floor;
use crate::recorder::Tallies;
use crate::samples::{RowSketch, at, cell, exchange, hop};

#[path = "path_requests_tests.rs"]
mod requests;

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

/// A run of `ROW` behind so long a round trip, in nanoseconds; it sends so much in each of the recorder's exchanges.
fn behind(round_trip: u64, recorder: &Recorder, request: u64) -> RunRecord {
    let mut record = RunRecord::begin("compare", UNIX_EPOCH, vec![ROW]);
    record.floor = Some(Floor::of_connect(Duration::from_nanos(round_trip)));
    let sketch = RowSketch {
        row: ROW,
        request: 10,
        delta: 10,
        model: (100, 100),
    };
    let mut cell = cell(&sketch, 0, 0);
    cell.counters.wire_bytes_sent = Some(request * recorder.tallies().exchanges());
    cell.duration_ns = 1_000 * MILLI;
    record.cells.push(cell);
    record
}

#[track_caller]
fn check(recorder: &Recorder, expected: Option<(&str, &str)>) {
    check_in(&behind(100_000, recorder, 900), recorder, expected);
}

#[track_caller]
fn check_in(record: &RunRecord, recorder: &Recorder, expected: Option<(&str, &str)>) {
    let found = suspect(record, ROW, recorder);
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
    check_in(&behind(80 * MILLI, &far, 900), &far, None);
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
    let record = behind(40 * MILLI, &far, 900);
    check_in(&record, &far, Some(("nagle", "of 6 of 12 exchanges")));
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
fn a_long_way_holds_no_token() {
    // Deltas come in pairs, after a way of 20 ms to either side: the first one has waited for the second.
    let held = recorded(12, |_| Way {
        request: 20 * MILLI,
        delta: &|k| 20 * MILLI + (1 - k % 2) * GAP,
    });
    let figure = "the first token was held for 11.";
    let record = behind(40 * MILLI, &held, 900);
    check_in(&record, &held, Some(("buffering_hop", figure)));
    // Of a longer way nothing is left that the first one waited for.
    check_in(&behind(48 * MILLI, &held, 900), &held, None);
}

#[test]
fn deltas_that_a_busy_generator_reads_together_are_no_hops() {
    let mut recorder = recorded(12, |_| Way {
        request: 100_000,
        delta: &|k| (1 - k % 2) * GAP + 60_000,
    });
    let mut record = behind(100_000, &recorder, 900);
    let hop = Some(("buffering_hop", "of the gaps between deltas shrank"));
    check_in(&record, &recorder, hop);
    // Half of the deltas came in one read with the next.
    recorder.restore_tallies(&Tallies {
        coalesced: 12 * DELTAS / 2,
        ..Tallies::default()
    });
    check_in(&record, &recorder, hop);
    let counters = &mut record.cells[0].counters;
    counters.client_cpu_ns = Some(400 * MILLI);
    check_in(&record, &recorder, hop);
    let counters = &mut record.cells[0].counters;
    counters.client_run_queue = Some(RunQueue {
        delay_ns: 200 * MILLI,
        timeslices: 100,
    });
    check_in(&record, &recorder, None);
    // A hop that holds more than that is one all the same.
    let more = recorded(12, |_| Way {
        request: 100_000,
        delta: &|k| (7 - k % 8) * GAP + 60_000,
    });
    check_in(&record, &more, hop);
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
