//! Rows that did not do the same work, and tokens without a stamp of their own.

use super::*;
use crate::Floor;
use crate::suspicions::tokens::coalesced;

/// Books one more exchange of `WS` whose usage is far from the others'.
fn with_usage(recorders: &mut Recorders, change: impl FnOnce(&mut crate::exchange::Usage)) {
    let mut odd = exchange(1, &[2_000; 8]);
    change(odd.usage.as_mut().expect("samples have a usage"));
    spoil_ws(recorders, |recorder| recorder.finish(&odd, None));
}

#[test]
fn unequal_prompts() {
    check(
        "input_tokens_differ",
        "http-cold/full has 7.0, ws/incremental has 17.",
        |_, recorders| {
            with_usage(recorders, |usage| usage.input += 1_000);
        },
    );
}

#[test]
fn unequal_outputs() {
    check(
        "output_tokens_differ",
        "rows differ in output tokens",
        |_, recorders| {
            with_usage(recorders, |usage| usage.output += 100);
        },
    );
}

#[test]
fn unequal_caches() {
    check(
        "cached_tokens_differ",
        "http-cold/full has 3.0",
        |_, recorders| {
            with_usage(recorders, |usage| usage.cached_input = Some(1_000));
        },
    );
}

#[test]
fn deltas_of_several_tokens() {
    check(
        "coalesced_tokens",
        "2.0 tokens of ws/incremental share a stamp (2.0 a delta, and 1.0 deltas that were read at once)",
        |_, recorders| {
            for recorder in recorders.values_mut() {
                let mut tallies = recorder.tallies().clone();
                tallies.tokens *= 2;
                *recorder = Recorder::new();
                recorder.restore_tallies(&tallies);
            }
        },
    );
}

#[test]
fn reads_of_several_deltas() {
    check(
        "coalesced_tokens",
        "1.6 tokens of ws/incremental share a stamp (1.0 a delta, and 1.6 deltas that were read at once)",
        |_, recorders| {
            recorders.insert(WS, read_in_pairs());
        },
    );
}

/// Exchanges whose deltas were read two by two, but for the last.
fn read_in_pairs() -> Recorder {
    let mut recorder = Recorder::new();
    for trace in 0..96 {
        let stamps: Vec<u64> = (0..8).map(|k| 9_000_000 + k / 2 * 2_000_000).collect();
        let mut pairs = exchange(trace, &stamps);
        for (k, mark) in pairs.tokens.iter_mut().enumerate() {
            mark.chunk = if k == 7 { 4 } else { k as u32 / 2 };
        }
        pairs.chunks = 5;
        recorder.finish(&pairs, None);
    }
    recorder
}

#[test]
fn what_comes_over_an_emulated_link_in_one_read_came_in_one_moment() {
    let over_a_link = |record: &mut RunRecord, recorders: &mut Recorders| {
        let way = std::time::Duration::from_millis(20);
        record.floor = Some(Floor::of_link(2 * way, way));
        recorders.insert(WS, read_in_pairs());
    };
    let (mut record, mut recorders) = sound();
    over_a_link(&mut record, &mut recorders);
    assert_eq!(coalesced(&record, &recorders), None);
    // A generator that had no time to read each as it came is told of, over a link as well.
    check("coalesced_tokens", "ws/incremental", |record, recorders| {
        over_a_link(record, recorders);
        for cell in record.cells.iter_mut().filter(|cell| cell.row == WS) {
            cell.counters.client_cpu_ns = Some(cell.duration_ns);
        }
    });
    // And so is a backend that writes several at once to every row.
    for row in record.rows.clone() {
        recorders.insert(row, read_in_pairs());
    }
    assert!(coalesced(&record, &recorders).is_some());
}

#[test]
fn a_third_of_the_deltas_may_be_read_with_the_next() {
    let (record, mut recorders) = sound();
    spoil_ws(&mut recorders, |recorder| {
        let shared = Tallies {
            coalesced: recorder.tallies().deltas * 3 / 10,
            ..Tallies::default()
        };
        recorder.restore_tallies(&shared);
    });
    assert!(Verdict::reach(&record, &recorders).trusted);
}
