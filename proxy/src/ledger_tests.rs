use tokenlag_probes::{Outcome, Stamp};

use super::*;

fn record(trace: u128, deltas: usize) -> HopExchange {
    let stamp = Stamp::from_nanos(trace as u64);
    HopExchange {
        trace: Some(TraceId::from_bits(trace)),
        channel: "http".into(),
        in_head: stamp,
        in_body: stamp,
        up_written: Some(stamp),
        up_token: vec![stamp; deltas],
        up_coalesced: 0,
        out_token: vec![stamp; deltas],
        up_end: Some(stamp),
        usage: None,
        up_connected_anew: false,
        overlapped: false,
        outcome: Outcome::Complete,
    }
}

fn finished(trace: u128, deltas: usize) -> Finished {
    Finished::of(&record(trace, deltas))
}

fn traces(ledger: &Ledger, since: u64, most: usize) -> (Vec<u64>, Cursor) {
    let (page, cursor) = ledger.since(since, most, 1000);
    let traces = page.records().map(|record| record.in_head.as_nanos());
    (traces.collect(), cursor)
}

#[test]
fn a_reader_gets_each_record_once() {
    let mut ledger = Ledger::new(10, 1000);
    for trace in 1..=3 {
        ledger.push(finished(trace, 1));
    }
    let (got, cursor) = traces(&ledger, 0, 2);
    assert_eq!((got, cursor.next), (vec![1, 2], 2));
    ledger.push(finished(4, 1));
    let (got, cursor) = traces(&ledger, cursor.next, 100);
    assert_eq!(
        (got, cursor),
        (
            vec![3, 4],
            Cursor {
                next: 4,
                evicted: 0
            }
        )
    );
    assert_eq!(
        traces(&ledger, 4, 100),
        (
            vec![],
            Cursor {
                next: 4,
                evicted: 0
            }
        )
    );
}

#[test]
fn what_was_evicted_is_counted() {
    let mut ledger = Ledger::new(3, 1000);
    for trace in 1..=8 {
        ledger.push(finished(trace, 1));
    }
    let (got, cursor) = traces(&ledger, 2, 100);
    assert_eq!(
        (got, cursor),
        (
            vec![6, 7, 8],
            Cursor {
                next: 8,
                evicted: 3
            }
        )
    );
    assert_eq!(ledger.evicted(), 5);
    assert_eq!(ledger.of_trace(TraceId::from_bits(5)), None);
    assert!(ledger.of_trace(TraceId::from_bits(6)).is_some());
}

#[test]
fn stamps_are_what_takes_room() {
    let mut ledger = Ledger::new(1000, 100);
    for trace in 1..=10 {
        ledger.push(finished(trace, 30));
    }
    assert_eq!(traces(&ledger, 0, 100).0, [8, 9, 10]);
}

#[test]
fn an_answer_is_bounded_by_its_deltas_too_and_the_cursor_leads_on() {
    let mut ledger = Ledger::new(1000, 10_000);
    for trace in 1..=5 {
        ledger.push(finished(trace, 600));
    }
    let mut got = Vec::new();
    let mut next = 0;
    for _ in 0..3 {
        let (traces, cursor) = traces(&ledger, next, 100);
        next = cursor.next;
        got.push(traces);
    }
    assert_eq!(got, [vec![1, 2], vec![3, 4], vec![5]]);
    // One that is longer than an answer is an answer.
    ledger.push(finished(6, 5_000));
    assert_eq!(traces(&ledger, 5, 100).0, [6]);
}

#[test]
fn records_are_whole_whatever_pieces_they_lie_in() {
    let mut ledger = Ledger::new(300, 1_000_000);
    // Some are longer than a piece, most are short, and nearly all are evicted.
    let deltas = |trace: u128| if trace.is_multiple_of(100) { 40_000 } else { 7 };
    for trace in 1..=5_000 {
        ledger.push(finished(trace, deltas(trace)));
    }
    assert_eq!(ledger.evicted(), 4_700);
    let (page, cursor) = ledger.since(0, 1_000, usize::MAX);
    assert_eq!((cursor.next, cursor.evicted), (5_000, 4_700));
    let wanted = (4_701..=5_000).map(|trace| record(trace, deltas(trace)));
    assert!(page.records().eq(wanted));
    let same = TraceId::from_bits(4_900);
    assert_eq!(ledger.of_trace(same), Some(record(4_900, 40_000)));
    ledger.push(finished(4_900, 3));
    assert_eq!(ledger.of_trace(same), Some(record(4_900, 3)), "the latest");
}

#[test]
fn one_beyond_all_bounds_leaves_nothing_behind() {
    let mut ledger = Ledger::new(10, 100);
    for _ in 0..3 {
        ledger.push(finished(1, 5));
        ledger.push(finished(2, 101));
        assert!(ledger.pieces.is_empty());
    }
    assert_eq!((ledger.evicted(), ledger.deltas, ledger.records), (6, 0, 0));
}

#[test]
fn a_cursor_of_another_life_of_the_proxy_is_no_error() {
    let mut ledger = Ledger::new(3, 100);
    ledger.push(finished(1, 1));
    assert_eq!(
        traces(&ledger, 99, 100),
        (
            vec![1],
            Cursor {
                next: 1,
                evicted: 0
            }
        )
    );
}
