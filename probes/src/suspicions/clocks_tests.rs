use super::*;
use crate::clock::Stamp;
use crate::clocks::{ClockBatch, RoundTrip};
use crate::row::{Row, State, Transport};
use crate::samples::{RowSketch, run};

const WS: Row = Row::events(Transport::Ws, State::Full);

/// Two rows of 20 blocks whose deltas take `delta` us to the client, and their clocks: a batch for each of `offsets`, in
/// nanoseconds and a second apart, each of a round trip of `delay` ns.
fn warnings(delta: u64, offsets: &[i64], delay: u64) -> Vec<Warning> {
    let sketch = |row| RowSketch {
        row,
        request: 200,
        delta,
        model: (5_000, 1_000),
    };
    let (mut record, recorders) = run(&[sketch(Row::HTTP_FULL), sketch(WS)], 20);
    record.clocks = Some(clocks(offsets.iter().map(|offset| (*offset, delay))));
    drift(&record, &recorders)
}

/// Two clocks that were asked once a second, from a second on, with such offsets over such round trips, in nanoseconds.
fn clocks(batches: impl Iterator<Item = (i64, u64)>) -> ClockRecord {
    let at = |nanos: u64| Stamp::from_nanos(nanos);
    let batch = |(second, (offset, delay)): (usize, (i64, u64))| {
        let sent = 1_000_000_000 * (second as u64 + 1);
        let there = at(sent + delay / 2).moved_by(offset);
        ClockBatch {
            round_trips: 16,
            fastest: RoundTrip {
                sent: at(sent),
                received: there,
                replied: there,
                arrived: at(sent + delay),
            },
        }
    };
    ClockRecord {
        ours: Some("here".to_owned()),
        theirs: Some("there".to_owned()),
        started: at(1_000_000_000),
        batches: batches.enumerate().map(batch).collect(),
    }
}

#[test]
fn clocks_that_are_known_well_are_no_reason() {
    assert_eq!(warnings(100, &[5_000; 30], 60_000), []);
    assert_eq!(warnings(100, &[-7_000_000_000_000; 3], 60_000), []);
}

#[test]
fn an_offset_that_is_known_no_better_than_the_figure_is_one() {
    let found = warnings(100, &[5_000; 30], 260_000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "clock_drift");
    assert!(found[0].message.contains("known to 0.130 ms"), "{found:?}");
    assert!(found[0].message.contains("token_overhead p50"), "{found:?}");
}

#[test]
fn each_row_is_held_against_what_was_known_of_the_offset_while_it_ran() {
    let sketch = |row, delta| RowSketch {
        row,
        request: 200,
        delta,
        model: (5_000, 1_000),
    };
    let (mut record, recorders) = run(&[sketch(Row::HTTP_FULL, 100), sketch(WS, 200)], 24);
    // The row with the larger figure ran while round trips were slow.
    let ran = |row| if row == WS { 16..24 } else { 0..8 };
    (record.cells).retain(|cell| ran(cell.row).contains(&cell.block));
    let slow =
        |from: usize, delay| (0..30).map(move |k| (5_000, if k < from { 60_000 } else { delay }));
    record.clocks = Some(clocks(slow(12, 300_000)));
    assert_eq!(drift(&record, &recorders), []);
    record.clocks = Some(clocks(slow(12, 700_000)));
    let found = drift(&record, &recorders);
    assert_eq!(found.len(), 1, "{found:?}");
    let figures = ["known to 0.350 ms", "token_overhead p50 of ws/full: 0.20"];
    for figure in figures {
        assert!(found[0].message.contains(figure), "{found:?}");
    }
    // Of two that are known too badly it is the one that is known worse.
    record.clocks = Some(clocks(slow(0, 700_000)));
    assert!(
        drift(&record, &recorders)[0]
            .message
            .contains("of http/full: 0.10")
    );
}

#[test]
fn drift_that_a_long_reply_brings_into_an_overhead_is_one() {
    // 40 us a second over a roundtrip of 12 ms are half a microsecond; ten milliseconds a second are not to be borne.
    let steps = |by: i64| (0..30).map(|k| k * by).collect::<Vec<_>>();
    assert_eq!(warnings(100, &steps(40_000), 60_000), []);
    let found = warnings(100, &steps(10_000_000), 60_000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].message.contains("drifts by +10000.0 ppm"),
        "{found:?}"
    );
    assert!(found[0].message.contains("_overhead p50 of"), "{found:?}");
}

#[test]
fn a_clock_that_is_set_within_the_run_is_one() {
    let mut offsets = [5_000; 30];
    offsets[15..].fill(905_000);
    let found = warnings(100, &offsets, 60_000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("0.390 ms more"), "{found:?}");
}
