//! Requests that are late for other reasons than a small write that waits, and those that are late for that one.

use super::*;
use crate::clock::Stamp;
use crate::clocks::{ClockBatch, ClockRecord, RoundTrip};
use crate::row::State;

/// Exchanges of which every other request takes `more` on its way of `up`, and deltas `down`; all in milliseconds.
fn uneven(up: u64, down: u64, more: u64) -> Recorder {
    let delta = |_| down * MILLI;
    recorded(12, |trace| Way {
        request: (up + trace % 2 * more) * MILLI,
        delta: &delta,
    })
}

const WAITED: Option<(&str, &str)> = Some(("nagle", "the request_transfer of 6 of 12 exchanges"));

#[test]
fn a_request_that_does_not_leave_at_once_waits_for_round_trips() {
    // Slow start: one more of 40 ms, two of 20, three of 13, seven of 6.
    for (round_trip, more) in [(40, 40), (20, 40), (13, 39), (6, 42)] {
        let half = round_trip / 2;
        let slow = uneven(half, half, more);
        let long = behind(round_trip * MILLI, &slow, 23_000);
        check_in(&long, &slow, None);
        // What leaves at once waits for something else, as does what goes a short way.
        check_in(&behind(round_trip * MILLI, &slow, 900), &slow, WAITED);
        let near = uneven(0, 0, more);
        check_in(&behind(100_000, &near, 23_000), &near, WAITED);
    }
    // Who did not count what was sent does not know that it was little.
    let slow = uneven(20, 20, 40);
    let mut uncounted = behind(40 * MILLI, &slow, 900);
    uncounted.cells[0].counters.wire_bytes_sent = None;
    check_in(&uncounted, &slow, None);
}

#[test]
fn between_sidecars_it_is_their_bytes_that_count() {
    let row = Row::events(Transport::PairHttp, State::Incremental);
    let waited = uneven(20, 20, 40);
    let mut record = behind(40 * MILLI, &waited, 23_000);
    record.cells[0].row = row;
    let found = |record: &RunRecord| suspect(record, row, &waited).map(|warning| warning.code);
    assert_eq!(found(&record), None);
    let leg = record.cells[0].leg.get_or_insert_default();
    leg.wire_bytes_sent = Some(900 * 12);
    assert_eq!(found(&record).as_deref(), Some("nagle"));
}

#[test]
fn a_way_up_that_is_longer_than_the_way_down_is_no_wait() {
    let uneven_way = uneven(50, 10, 0);
    let record = behind(60 * MILLI, &uneven_way, 900);
    check_in(&record, &uneven_way, None);
    let waited = uneven(50, 10, 42);
    check_in(&record, &waited, WAITED);
    // A hop beside the client answered: the floor says nothing of the way behind it.
    check_in(&behind(100_000, &uneven_way, 900), &uneven_way, None);
    let mut unknown = behind(60 * MILLI, &waited, 900);
    unknown.floor = None;
    check_in(&unknown, &waited, None);
}

#[test]
fn what_goes_by_datagrams_waits_for_no_acknowledgement() {
    let waited = uneven(20, 20, 42);
    let record = behind(40 * MILLI, &waited, 900);
    for transport in Transport::ALL {
        let mut record = record.clone();
        let row = Row::events(transport, State::Full);
        record.cells[0].row = row;
        let found = suspect(&record, row, &waited).is_some();
        let name = transport.to_string();
        let by_datagrams = name.ends_with("quic") || name.ends_with("http3");
        assert_eq!(found, !by_datagrams, "{name}");
    }
}

#[test]
fn an_emulated_link_has_no_hop_between_its_ends() {
    let waited = uneven(20, 20, 42);
    let mut record = behind(40 * MILLI, &waited, 900);
    let way = Duration::from_millis(20);
    record.floor = Some(Floor::of_link(2 * way, way));
    check_in(&record, &waited, None);
}

#[test]
fn two_clocks_that_are_known_badly_say_nothing_of_a_request() {
    let waited = uneven(20, 20, 42);
    let mut record = behind(40 * MILLI, &waited, 900);
    let mut ask = |half: u64| {
        let [sent, there, arrived] = [1, 1 + half, 1 + 2 * half].map(|it| at(it * MILLI));
        record.clocks = Some(ClockRecord {
            ours: Some("here".to_owned()),
            theirs: Some("there".to_owned()),
            started: Stamp::from_nanos(0),
            batches: vec![ClockBatch {
                round_trips: 16,
                fastest: RoundTrip {
                    sent,
                    received: there,
                    replied: there,
                    arrived,
                },
            }],
        });
        suspect(&record, ROW, &waited).is_some()
    };
    assert!(ask(4));
    assert!(!ask(5));
}
