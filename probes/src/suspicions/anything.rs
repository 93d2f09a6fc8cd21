//! Whatever a run's files say, the verdict is reached, and what it says can be read.

use proptest::prelude::*;

use super::*;
use crate::clock::Stamp;
use crate::clocks::{ClockBatch, ClockRecord, RoundTrip};
use crate::counters::{Counters, RunQueue};
use crate::exchange::FailureKind;
use crate::floor::{Floor, FloorSource};
use crate::join::Unjoined;
use crate::metric::Metric;
use crate::row::State;
use crate::samples::{RowSketch, run};
use crate::verdict::Verdict;

const ROWS: [Row; 4] = [
    Row::events(Transport::Direct, State::Full),
    Row::HTTP_COLD_FULL,
    Row::HTTP_FULL,
    Row::events(Transport::PairQuic, State::Incremental),
];

/// Small numbers, which conditions are about, and those at the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..5u64, 2 => 0..1_000u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn tallies() -> impl Strategy<Value = Tallies> {
    proptest::array::uniform16(number()).prop_map(|n| Tallies {
        completed: n[0],
        truncated: n[1],
        failed: n[2],
        cancelled: n[3],
        failures: [(FailureKind::Timeout, n[2])].into(),
        tokens: n[4],
        deltas: n[5],
        coalesced: n[6],
        chunks: n[7],
        with_usage: n[8],
        input_tokens: n[9],
        with_cached_input: n[10],
        cached_input_tokens: n[11],
        unjoined: Unjoined {
            no_hop_record: n[12],
            ordinals_differ: n[13],
            duplicate_trace: n[14],
            evicted: n[15],
        },
        ..Tallies::default()
    })
}

fn recorder() -> impl Strategy<Value = Option<Recorder>> {
    // From nothing to a minute, both signs, and what is beyond all histograms.
    let value = prop_oneof![
        Just(0),
        Just(40_000_000),
        -60_000_000_000..60_000_000_000i64,
        any::<i64>()
    ];
    let values = prop::collection::vec((0..Metric::ALL.len(), value, 1..6u32), 0..24);
    prop::option::weighted(0.9, (tallies(), values)).prop_map(|found| {
        let (tallies, values) = found?;
        let mut recorder = Recorder::new();
        recorder.restore_tallies(&tallies);
        for (metric, nanos, times) in values {
            (0..times).for_each(|_| recorder.record(Metric::ALL[metric], nanos));
        }
        Some(recorder)
    })
}

/// Turns of rows, most without anything that was counted.
fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let queue = || prop::option::of((number(), number()));
    let spent = (number(), number());
    let cell = (
        0..ROWS.len(),
        0..30u32,
        queue(),
        queue(),
        spent,
        any::<bool>(),
    );
    let cell = cell.prop_map(|(row, block, ours, theirs, (duration, sent), whole)| {
        let sketch = RowSketch {
            row: ROWS[row],
            request: 10,
            delta: 10,
            model: (100, 100),
        };
        let mut cell = crate::samples::cell(&sketch, block, 0);
        let queue = |(delay_ns, timeslices)| RunQueue {
            delay_ns,
            timeslices,
        };
        cell.duration_ns = duration;
        cell.counters = Counters {
            client_run_queue: ours.map(queue),
            proxy_run_queue: theirs.map(queue),
            reads: Some(u64::MAX),
            wire_bytes_sent: Some(sent),
            client_cpu_ns: Some(sent),
            ..Counters::default()
        };
        if !whole {
            cell.statistics = Default::default();
        }
        cell
    });
    prop::collection::vec(cell, 0..12)
}

fn floor() -> impl Strategy<Value = Option<Floor>> {
    let way = || prop_oneof![number(), 0..100_000_000u64];
    let floor =
        (way(), way(), any::<bool>()).prop_map(|(round_trip_ns, downlink_ns, link)| Floor {
            round_trip_ns,
            downlink_ns,
            source: match link {
                true => FloorSource::Link,
                false => FloorSource::Connect,
            },
        });
    prop::option::of(floor)
}

/// Clocks that were asked at any time, and say anything.
fn clocks() -> impl Strategy<Value = Option<ClockRecord>> {
    let stamps = || proptest::array::uniform4(prop_oneof![number(), 0..9_000_000_000u64]);
    let batch = (1..64u32, stamps()).prop_map(|(round_trips, stamps)| {
        let [sent, received, replied, arrived] = stamps.map(Stamp::from_nanos);
        ClockBatch {
            round_trips,
            fastest: RoundTrip {
                sent,
                received,
                replied,
                arrived,
            },
        }
    });
    let batches = prop::collection::vec(batch, 0..6);
    let clocks = (any::<bool>(), number(), batches).prop_map(|(one, started, batches)| {
        let name = |name: &str| Some(name.to_owned());
        ClockRecord {
            ours: name("here"),
            theirs: name(if one { "here" } else { "there" }),
            started: Stamp::from_nanos(started),
            batches,
        }
    });
    prop::option::of(clocks)
}

proptest! {
    #[test]
    fn any_record_has_a_verdict(
        rows in prop::sample::subsequence(ROWS.to_vec(), 0..=ROWS.len()),
        found in prop::collection::vec(recorder(), ROWS.len()),
        cells in cells(),
        floor in floor(),
        clocks in clocks(),
        open_loop: bool,
    ) {
        let (mut record, _) = run(&[], 0);
        record.rows = rows;
        record.cells = cells;
        record.open_loop = open_loop;
        record.floor = floor;
        record.clocks = clocks;
        let found = ROWS.into_iter().zip(found);
        let recorders: Recorders = found.filter_map(|(row, it)| Some((row, it?))).collect();
        let verdict = Verdict::reach(&record, &recorders);
        prop_assert_eq!(verdict.trusted, verdict.warnings.is_empty());
        for warning in verdict.warnings {
            prop_assert!(!warning.message.contains("NaN"), "{}", warning.message);
            prop_assert!(!warning.message.contains("inf"), "{}", warning.message);
            prop_assert!(!warning.remedy.is_empty());
        }
    }
}
